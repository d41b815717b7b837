"""What a file is, by its content, and how its bytes are opened."""

import bz2
import contextlib
import io
import json
import lzma
import os
import re
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from corpusmill.corpus import storage
from corpusmill.corpus.errors import UsageError, one_line

try:
    # Three times as fast; not every platform has it.
    from isal import isal_zlib as inflate
except ImportError:
    import zlib as inflate  # type: ignore[no-redef]

TABLE_FORMATS = ("parquet", "arrow")
BOM = b"\xef\xbb\xbf"

_BLOCK = 1 << 20
_HEAD_BYTES = 1 << 16
# Bytes that are decompressed at once: few, because what a decompressor has made of them is lost
# when they turn out damaged, and because one byte of gzip can stand for 1,032, of zstd for 32,768.
_PIECES = {"gzip": 1 << 13, "zstd": 1 << 11, "bzip2": 1 << 10, "xz": 1 << 13}
# A few bytes of bzip2 can stand for a block of 900 KB, of which nothing comes out before its end.
_BZIP2_BLOCK = 1 << 20
# Reddit's and other archives are written with `zstd --long=31`.
_ZSTD_MAX_WINDOW = 2**31

_JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonlines", ".json")
_UNSUPPORTED = {
    b"PK\x03\x04": "a zip archive",
    b"\x04\x22\x4d\x18": "compressed with lz4",
}
_INFLATE_ERROR: type[Exception] = inflate.error  # type: ignore[assignment]
_COMPRESSIONS = "plain, gzip, zstd, bzip2 and xz"
_TEXT_TYPES = (
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.null(),
)


class DamagedStreamError(Exception):
    """A compressed stream that is corrupt or ends too early."""


def is_damage(error: BaseException) -> bool:
    """Whether pyarrow says with `error` that a file's content is at fault, not the way to it.

    Arrow raises a bare OSError without errno for content that can't be read; errors of disks and
    networks have a number or a class of their own.
    """
    return isinstance(error, DamagedStreamError | pa.ArrowException) or (
        type(error) is OSError and error.errno is None
    )


def detect(url: str, input_format: str) -> tuple[str, str | None]:
    """Format and compression of a file.

    Args:
      url: a path or URL.
      input_format: what it is taken to be; `auto` looks at its content, then its name.

    Raises:
      UsageError: the file can't be read, or not as what it is taken to be.
    """
    try:
        head, compression = _read_head(url)
    except OSError as error:
        raise UsageError(f"cannot read input {url}: {one_line(error)}") from error
    for magic, what in _UNSUPPORTED.items():
        if re.match(magic, head):
            raise UsageError(f"input {url} is {what}; accepted are {_COMPRESSIONS} files")
    found = _table_format(head)
    if input_format == "auto":
        return found or _text_format(head, url), compression
    if head and found != (input_format if input_format in TABLE_FORMATS else None):
        raise UsageError(
            f"input {url} is {found or 'text'} by its content, but --input-format is"
            f" {input_format}; use --input-format auto"
        )
    return input_format, compression


def _read_head(url: str) -> tuple[bytes, str | None]:
    """The first bytes of a file's content and its compression."""
    with storage.open_input(url) as file:
        head = file.read(_HEAD_BYTES)
        compression = _compression(head)
        if compression == "bzip2":
            head += file.read(_BZIP2_BLOCK)
    if compression is None:
        return head, None
    content = bytearray()
    # That the head of a stream ends too early is no surprise.
    with contextlib.suppress(DamagedStreamError):
        for block in decompressed(io.BytesIO(head), compression):
            content += block
            if len(content) >= _HEAD_BYTES:
                break
    return bytes(content[:_HEAD_BYTES]), compression


def _compression(head: bytes) -> str | None:
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    # The second is a skippable frame, which pzstd and seekable zstd files may begin with.
    if head.startswith(b"\x28\xb5\x2f\xfd") or re.match(rb"[\x50-\x5f]\x2a\x4d\x18", head):
        return "zstd"
    # A block's mark, or that of the end of an empty file.
    if re.match(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", head):
        return "bzip2"
    if head.startswith(b"\xfd7zXZ\x00"):
        return "xz"
    return None


def _table_format(head: bytes) -> str | None:
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1\0\0", b"\xff\xff\xff\xff")):
        return "arrow"
    return None


def _text_format(head: bytes, url: str) -> str:
    line, newline, _ = head.removeprefix(BOM).lstrip().partition(b"\n")
    if newline or len(head) < _HEAD_BYTES:
        is_json = _is_json_object(line)
    else:
        is_json = re.match(rb'\{\s*["}]', line) is not None
    stem = re.sub(r"\.(gz|gzip|zst|zstd|bz2|xz)$", "", url.lower())
    return "jsonl" if is_json or stem.endswith(_JSON_SUFFIXES) else "text"


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(load_json(line)[0], dict)
    except ValueError:
        return False


def load_json(line: bytes) -> tuple[Any, str | None]:
    """The value of a line of JSON, also where it is JSON but for numbers and lone surrogates.

    Python's own `json` writes NaN and Infinity; a reader who doesn't ask for them needn't mind.

    Returns:
      The value, and what is wrong with the JSON; then strings in it may have no UTF-8.

    Raises:
      ValueError: it is nothing of the kind.
    """
    try:
        return orjson.loads(line), None
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(line.decode()), str(error)
        except (ValueError, RecursionError):
            raise error from None


class Readable(Protocol):
    """What `decompressed` needs of a file."""

    def read(self, size: int, /) -> bytes: ...


def decompressed(file: Readable, compression: str | None) -> Iterator[bytes]:
    """The content of an open file from where it stands, in blocks of 8 MiB, of zstd 64, at most.

    Files of several gzip members, zstd frames, bzip2 or xz streams are read to their end.

    Raises:
      DamagedStreamError: after everything before the fault, short of a few kilobytes.
    """
    blocks = iter(partial(file.read, _BLOCK), b"")
    if compression is None:
        yield from blocks
        return
    size = _PIECES[compression]
    # A few bytes of these may become gigabytes; the libraries of the others take no such limit.
    limits = (_BLOCK,) if compression in ("bzip2", "xz") else ()
    decompressor = None
    for block in blocks:
        for start in range(0, len(block), size):
            piece = block[start : start + size]
            while piece or (limits and decompressor and not decompressor.needs_input):
                if decompressor is None:
                    # Archives on tape and some object stores pad files with zeros.
                    piece = piece.lstrip(b"\0")
                    if not piece:
                        break
                    decompressor = _new_decompressor(compression)
                try:
                    data = decompressor.decompress(piece, *limits)
                # OSError is bzip2's.
                except (_INFLATE_ERROR, zstandard.ZstdError, lzma.LZMAError, OSError) as error:
                    raise DamagedStreamError(f"corrupt {compression} stream: {error}") from error
                piece = b""
                if decompressor.eof:
                    piece, decompressor = decompressor.unused_data, None
                if data:
                    yield data
    if decompressor is not None:
        raise DamagedStreamError(f"truncated {compression} stream")


def _new_decompressor(compression: str) -> Any:
    if compression == "gzip":
        return inflate.decompressobj(wbits=31)
    if compression == "bzip2":
        return bz2.BZ2Decompressor()
    if compression == "xz":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ)
    return zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW).decompressobj()


@contextlib.contextmanager
def open_table(url: str, table_format: str, compression: str | None) -> Iterator[Any]:
    """A `ParquetFile`, or a record batch reader of an Arrow IPC stream or file.

    A compressed file is unpacked into a temporary one.

    Raises:
      DamagedStreamError: its compressed stream is damaged.
    """
    with _plain_source(url, compression) as source:
        if table_format == "parquet":
            # A buffer bounds memory: column chunks are streamed rather than read whole.
            with pq.ParquetFile(source, buffer_size=_BLOCK, pre_buffer=False) as table:
                yield table
        elif source.read(6) == b"ARROW1":
            with pa.ipc.open_file(source) as reader:
                yield reader
        else:
            source.seek(0)
            # Of a stream little is asked for at a time.
            if not isinstance(source, pa.MemoryMappedFile):
                source = pa.BufferedInputStream(source, _BLOCK)
            with pa.ipc.open_stream(source) as reader:
                yield reader


@contextlib.contextmanager
def _plain_source(url: str, compression: str | None) -> Iterator[pa.NativeFile]:
    if compression is None:
        with storage.open_arrow(url) as source:
            yield source
        return
    with tempfile.TemporaryDirectory(prefix="corpusmill-") as folder:
        path = os.path.join(folder, "table")
        with storage.open_input(url) as packed, open(path, "wb") as unpacked:
            unpacked.writelines(decompressed(packed, compression))
        with pa.memory_map(path) as source:
            yield source


def check_table(table: Any, url: str, text_field: str, id_field: str | None) -> None:
    """Checks the columns of what `open_table` gives.

    Raises:
      UsageError: a column is missing or isn't of a type that can be read.
    """
    schema = table.schema_arrow if isinstance(table, pq.ParquetFile) else table.schema
    wanted = [("text field", text_field, _is_text, "strings are needed")]
    if id_field is not None:
        wanted.append(("id field", id_field, _is_id, "strings or integers are needed"))
    for role, name, is_accepted, needed in wanted:
        if name not in schema.names:
            columns = ", ".join(schema.names)
            raise UsageError(f"{role} {name!r} is not a column of {url}; its columns are {columns}")
        if schema.names.count(name) > 1:
            raise UsageError(f"{role} {name!r} is the name of several columns of {url}")
        column_type = schema.field(name).type
        if not is_accepted(column_type):
            raise UsageError(f"{role} {name!r} of {url} is of type {column_type}; {needed}")


def _is_text(column: pa.DataType) -> bool:
    if pa.types.is_dictionary(column):
        return _is_text(column.value_type)
    return column in _TEXT_TYPES


def _is_id(column: pa.DataType) -> bool:
    return pa.types.is_integer(column) or _is_text(column)
