"""Which files are read, what each of them is, and how they are cut into segments and shards."""

import contextlib
import glob
import io
import itertools
import json
import os
import re
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, TypeVar

import fsspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from fsspec.implementations.local import LocalFileSystem

from corpus import storage
from corpus.errors import UsageError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

INPUT_FORMATS = ("auto", "jsonl", "parquet", "text", "arrow")
TEXT_UNITS = ("line", "file")
TABLE_FORMATS = ("parquet", "arrow")
BOM = b"\xef\xbb\xbf"

# Byte lengths and list offsets of a tokens dataset are 32 bits wide.
_MAX_DOCUMENT_BYTES = 2**31 - 1
_BLOCK = 1 << 20
_HEAD_BYTES = 1 << 16
# Small, because what a decompressor has made of a piece is lost when the piece turns out damaged,
# and because one byte of zstd can stand for 32,768.
_COMPRESSED_PIECE = 1 << 13
# Opening a file takes about as long as reading this much of it.
_OPENING_COST = 1 << 16
# Remote files are looked at in parallel: each look is mostly waiting.
_THREADS = 16
# Reddit's and other archives are written with `zstd --long=31`.
_ZSTD_MAX_WINDOW = 2**31

# By path; some web servers don't tell sizes.
_Sizes = dict[str, int | None]

_JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonlines", ".json")
_UNSUPPORTED = {
    b"BZh[1-9]1AY&SY": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"PK\x03\x04": "a zip archive",
    b"\x04\x22\x4d\x18": "compressed with lz4",
}


@dataclass(frozen=True)
class ReadOptions:
    """How documents are read.

    Attributes:
      text_field: field (JSONL) or column (Parquet, Arrow) that holds the text.
      id_field: field or column that holds the document id, a string or an integer; by default the
        id is the file's name and the record's byte offset or row number.
      input_format: one of `INPUT_FORMATS`; `auto` looks at each file's content, then its name.
      text_unit: what is one document in text files: a `line` or the `file`.
      max_document_bytes: longer records (the line of JSONL or text as it stands in the file, the
        text file, the value in a table) are bad records.
    """

    text_field: str = "text"
    id_field: str | None = None
    input_format: str = "auto"
    text_unit: str = "line"
    max_document_bytes: int = 512 * 2**20

    def __post_init__(self) -> None:
        if not self.text_field:
            raise UsageError("text field '' is empty; give the name of a field, such as 'text'")
        if self.id_field == "":
            raise UsageError("id field '' is empty; give the name of a field, or leave it out")
        _require_one_of("input format", self.input_format, INPUT_FORMATS)
        _require_one_of("text unit", self.text_unit, TEXT_UNITS)
        if not 1 <= self.max_document_bytes <= _MAX_DOCUMENT_BYTES:
            raise UsageError(
                f"max document bytes {self.max_document_bytes} is out of range;"
                f" accepted is 1 to {_MAX_DOCUMENT_BYTES}"
            )


@dataclass(frozen=True)
class InputFile:
    """A file to be read.

    Attributes:
      url: absolute path or URL.
      name: path below the folder that all inputs have in common; begins default document ids.
      format: one of `INPUT_FORMATS` but `auto`.
      compression: None, `gzip` or `zstd`, of the file as a whole.
      size: bytes as stored.
    """

    url: str
    name: str
    format: str
    compression: str | None
    size: int


@dataclass(frozen=True)
class Segment:
    """A part of an input file that one worker reads.

    Of plain JSONL and of text by the line it owns the lines that start at bytes [start, end); of
    plain Parquet, row groups [start, end), where an end past the last one means the last one.
    Of everything else it is the whole file.
    """

    url: str
    name: str
    format: str
    compression: str | None
    start: int
    end: int


class DamagedStreamError(Exception):
    """A compressed stream that is corrupt or ends too early."""


def find_inputs(patterns: Sequence[str], options: ReadOptions) -> list[InputFile]:
    """Finds the files to read, each once, sorted by URL, whatever the order of the patterns.

    Args:
      patterns: each a file, a glob, a folder (read recursively, without names that begin with
        `.` or `_`), a folder written by `Dataset.save_to_disk`, any of these as an fsspec URL, or
        `hf:NAME`, `hf:NAME:CONFIG` or `hf:NAME:CONFIG:SPLIT` for a Hugging Face dataset, which the
        `datasets` package puts into its cache (HF_DATASETS_CACHE); workers have to see that disk.
      options: what the files are taken to be.

    Raises:
      UsageError: a pattern matches nothing, or a file can't be read as what it is said to be.
    """
    if not patterns:
        raise UsageError("no input is given; give a file, a glob, a folder, a URL or hf:NAME")
    sizes: dict[str, int] = {}
    for pattern in patterns:
        sizes.update(_expand(pattern))
    urls = sorted(sizes)
    kinds = _in_threads(partial(_detect, options=options), urls)
    return [
        InputFile(url, name, file_format, compression, sizes[url])
        for url, name, (file_format, compression) in zip(urls, _names(urls), kinds, strict=True)
    ]


def check_columns(inputs: Iterable[InputFile], options: ReadOptions) -> None:
    """Checks that every Parquet and Arrow file has the columns that are wanted.

    Damaged files pass: their fault is reported when they are read.

    Raises:
      UsageError: a column is missing or isn't of a type that can be read.
    """
    tables = [file for file in inputs if file.format in TABLE_FORMATS and file.size]
    _in_threads(partial(_check_file, options=options), tables)


def plan_shards(
    inputs: Iterable[InputFile], options: ReadOptions, shard_bytes: int = 64 * 2**20
) -> list[tuple[Segment, ...]]:
    """Cuts large files and groups small neighbours, so that shards have about `shard_bytes`.

    The plan follows from the set of inputs alone. Empty files are left out.
    """
    files = sorted((file for file in inputs if file.size), key=lambda file: file.url)
    shards: list[list[Segment]] = []
    room = 0
    cuts = _in_threads(partial(_cut, options, shard_bytes), files)
    for file, pieces in zip(files, cuts, strict=True):
        for start, end, size in pieces:
            cost = size + _OPENING_COST
            if not shards or cost > room:
                shards.append([])
                room = shard_bytes
            shards[-1].append(
                Segment(file.url, file.name, file.format, file.compression, start, end)
            )
            room -= cost
    return [tuple(shard) for shard in shards]


def decompressed(file: IO[bytes], compression: str | None) -> Iterator[bytes]:
    """The content of an open file from where it stands, in blocks of about a MiB at most.

    Files of several gzip members or zstd frames are read to their end.

    Raises:
      DamagedStreamError: after everything before the fault, short of a few kilobytes.
    """
    blocks = iter(partial(file.read, _BLOCK), b"")
    if compression is None:
        yield from blocks
        return
    decompressor = None
    for block in blocks:
        for start in range(0, len(block), _COMPRESSED_PIECE):
            piece = block[start : start + _COMPRESSED_PIECE]
            while piece:
                if decompressor is None:
                    # Archives on tape and some object stores pad files with zeros.
                    piece = piece.lstrip(b"\0")
                    if not piece:
                        break
                    decompressor = _new_decompressor(compression)
                try:
                    data = decompressor.decompress(piece)
                except (zlib.error, zstandard.ZstdError) as error:
                    raise DamagedStreamError(f"corrupt {compression} stream: {error}") from error
                piece = b""
                if decompressor.eof:
                    piece, decompressor = decompressor.unused_data, None
                if data:
                    yield data
    if decompressor is not None:
        raise DamagedStreamError(f"truncated {compression} stream")


@contextlib.contextmanager
def open_table(file: InputFile | Segment) -> Iterator[Any]:
    """A `ParquetFile`, or a record batch reader of an Arrow IPC stream or file.

    A compressed file is unpacked into a temporary one.

    Raises:
      DamagedStreamError: its compressed stream is damaged.
    """
    with _plain_source(file) as source:
        if file.format == "parquet":
            # A buffer bounds memory: column chunks are streamed rather than read whole.
            with pq.ParquetFile(source, buffer_size=_BLOCK, pre_buffer=False) as table:
                yield table
        elif source.read(6) == b"ARROW1":
            with pa.ipc.open_file(source) as reader:
                yield reader
        else:
            source.seek(0)
            with pa.ipc.open_stream(source) as reader:
                yield reader


def table_schema(table: Any) -> pa.Schema:
    """The Arrow schema of what `open_table` gives."""
    return table.schema_arrow if isinstance(table, pq.ParquetFile) else table.schema


def check_schema(schema: pa.Schema, url: str, options: ReadOptions) -> None:
    """Checks a table's columns.

    Raises:
      UsageError: a column is missing or isn't of a type that can be read.
    """
    _check_column(schema, url, options.text_field, "text field", _is_text, "strings are needed")
    if options.id_field is not None:
        _check_column(
            schema, url, options.id_field, "id field", _is_id, "strings or integers are needed"
        )


def is_damage(error: BaseException) -> bool:
    """Whether pyarrow says with `error` that a file's content is at fault, not the way to it.

    Arrow raises a bare OSError without errno for content that can't be read; errors of disks and
    networks have a number or a class of their own.
    """
    return isinstance(error, DamagedStreamError | pa.ArrowException) or (
        type(error) is OSError and error.errno is None
    )


def one_line(error: BaseException) -> str:
    """The first line of an error's message, or its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _require_one_of(what: str, value: str, accepted: Sequence[str]) -> None:
    if value not in accepted:
        raise UsageError(f"{what} {value!r} is unknown; accepted are {', '.join(accepted)}")


def _in_threads(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, items))


# --- which files ---------------------------------------------------------------------------------


def _expand(pattern: str) -> dict[str, int]:
    """URLs and sizes of the files that a pattern stands for."""
    if pattern.startswith("hf:") and not pattern.startswith("hf://"):
        return _hugging_face_files(pattern)
    fs, path = storage.filesystem(pattern)
    fs.invalidate_cache()
    try:
        found = _find(fs, path)
    except OSError as error:
        raise UsageError(f"cannot read input {pattern!r}: {one_line(error)}") from error
    if not found:
        raise UsageError(
            f"input {pattern!r} matches no file; give a file, a glob, a folder, a URL or hf:NAME"
        )
    local = isinstance(fs, LocalFileSystem)
    scheme = "" if local or "://" not in pattern else pattern[: pattern.index("://") + 3]
    sizes: dict[str, int] = {}
    for path, size in found.items():
        if size is None:
            raise UsageError(f"the size of input {path} is unknown; copy it to a disk first")
        sizes[path if "://" in path else scheme + path] = size
    return sizes


def _find(fs: fsspec.AbstractFileSystem, path: str) -> _Sizes:
    # A name with brackets in it may be meant as it is, so look before globbing.
    if fs.isfile(path):
        return {path: fs.size(path)}
    if fs.isdir(path):
        return _find_in_folder(fs, path)
    if glob.has_magic(path):
        return _find_matches(fs, path)
    return {}


def _find_in_folder(fs: fsspec.AbstractFileSystem, folder: str) -> _Sizes:
    if fs.isfile(f"{folder}/dataset_dict.json"):
        splits = json.loads(fs.cat_file(f"{folder}/dataset_dict.json")).get("splits", [])
        choices = ", ".join(f"{folder}/{split}" for split in splits)
        raise UsageError(f"input {folder} holds several splits; name one of {choices}")
    if fs.isfile(f"{folder}/state.json") and fs.isfile(f"{folder}/dataset_info.json"):
        return _find_saved_dataset(fs, folder)
    if isinstance(fs, LocalFileSystem):
        return _find_in_local_folder(folder)
    return {
        path: info["size"]
        for path, info in fs.find(folder, detail=True).items()
        if info["type"] == "file" and not _is_hidden(path.removeprefix(folder).split("/"))
    }


def _find_matches(fs: fsspec.AbstractFileSystem, pattern: str) -> _Sizes:
    parts = pattern.split("/")
    fixed = len(list(itertools.takewhile(lambda part: not glob.has_magic(part), parts)))
    wants_hidden = _is_hidden(parts[fixed:])
    found: _Sizes = {}
    for path, info in sorted(fs.glob(pattern, detail=True).items()):
        if wants_hidden or not _is_hidden(path.rstrip("/").split("/")[fixed:]):
            if info["type"] == "file":
                found[path] = info["size"]
            elif info["type"] == "directory":
                found.update(_find_in_folder(fs, path.rstrip("/")))
    return found


def _find_in_local_folder(folder: str) -> _Sizes:
    """As `fs.find`, which would leave out in silence what can't be listed."""

    def fail(error: OSError) -> None:
        raise error

    found: _Sizes = {}
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not _is_hidden([name])]
        for name in names:
            path = os.path.join(place, name)
            if not _is_hidden([name]) and stat.S_ISREG((status := os.stat(path)).st_mode):
                found[path] = status.st_size
    return found


def _is_hidden(parts: Iterable[str]) -> bool:
    """Whether a path below a folder is one of those that tools put beside the data."""
    return any(part.startswith((".", "_")) for part in parts)


def _find_saved_dataset(fs: fsspec.AbstractFileSystem, folder: str) -> _Sizes:
    """Arrow files of a folder written by `Dataset.save_to_disk`."""
    try:
        state: dict[str, Any] = json.loads(fs.cat_file(f"{folder}/state.json"))
        names = [file["filename"] for file in state["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder}/state.json is damaged: {one_line(error)}") from error
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UsageError(
            f"input {folder} was saved with an index of selected rows by an old version of"
            " datasets; load it and save it again"
        )
    return {f"{folder}/{name}": fs.size(f"{folder}/{name}") for name in names}


def _hugging_face_files(pattern: str) -> dict[str, int]:
    """Parquet files that the `datasets` package makes of a dataset in its local cache."""
    name, config, split, *more = [*pattern.split(":")[1:], "", ""]
    if not name or any(more):
        raise UsageError(f"input {pattern!r} is not understood; accepted is hf:NAME:CONFIG:SPLIT")
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            f"input {pattern!r} needs the package datasets: pip install datasets"
        ) from error
    problems = (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError)
    try:
        builder = datasets.load_dataset_builder(name, config or None)
        # The cache's own folder, which changes with the dataset's revision and configuration.
        folder = f"{builder.cache_dir}-parquet"
        builder.download_and_prepare(folder, file_format="parquet")
    except problems as error:
        raise UsageError(f"cannot load input {pattern!r}: {one_line(error)}") from error
    splits = sorted(builder.info.splits)
    if split not in splits and (split or len(splits) > 1):
        given = f"no split {split!r}" if split else f"{len(splits)} splits"
        choices = ", ".join(f"hf:{name}:{config}:{choice}" for choice in splits)
        raise UsageError(f"input {pattern!r} has {given}; name one of {choices}")
    stem = re.escape(f"{builder.dataset_name}-{split or splits[0]}")
    file_name = re.compile(rf"{stem}(-\d{{5,}}-of-\d{{5,}})?\.parquet")
    names = [entry for entry in os.listdir(folder) if file_name.fullmatch(entry)]
    return {f"{folder}/{entry}": os.path.getsize(f"{folder}/{entry}") for entry in names}


def _names(urls: Sequence[str]) -> list[str]:
    """Paths below the folder that all of `urls` have in common."""
    folders = [url.split("/")[:-1] for url in urls]
    pairs = zip(min(folders), max(folders), strict=False)
    shared = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return ["/".join(url.split("/")[shared:]) for url in urls]


# --- what they are -------------------------------------------------------------------------------


def _detect(url: str, options: ReadOptions) -> tuple[str, str | None]:
    """Format and compression of a file."""
    try:
        head, compression = _read_head(url)
    except OSError as error:
        raise UsageError(f"cannot read input {url}: {one_line(error)}") from error
    for magic, what in _UNSUPPORTED.items():
        if re.match(magic, head):
            raise UsageError(f"input {url} is {what}; accepted are plain, gzip and zstd files")
    found = _table_format(head)
    wanted = options.input_format
    if wanted == "auto":
        return found or _text_format(head, url), compression
    if head and found != (wanted if wanted in TABLE_FORMATS else None):
        raise UsageError(
            f"input {url} is {found or 'text'} by its content, but --input-format is {wanted};"
            " use --input-format auto"
        )
    return wanted, compression


def _read_head(url: str) -> tuple[bytes, str | None]:
    """The first bytes of a file's content and its compression."""
    with storage.open_input(url) as file:
        head = file.read(_HEAD_BYTES)
    compression = _compression(head)
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
    stem = re.sub(r"\.(gz|gzip|zst|zstd)$", "", url.lower())
    return "jsonl" if is_json or stem.endswith(_JSON_SUFFIXES) else "text"


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _check_file(file: InputFile, options: ReadOptions) -> None:
    try:
        with open_table(file) as table:
            check_schema(table_schema(table), file.url, options)
    except (pa.ArrowException, OSError, DamagedStreamError) as error:
        if not is_damage(error):
            raise UsageError(f"cannot read input {file.url}: {one_line(error)}") from error


def _check_column(
    schema: pa.Schema,
    url: str,
    name: str,
    role: str,
    is_accepted: Callable[[pa.DataType], bool],
    needed: str,
) -> None:
    if name not in schema.names:
        columns = ", ".join(schema.names)
        raise UsageError(f"{role} {name!r} is not a column of {url}; its columns are {columns}")
    column_type = schema.field(name).type
    if not is_accepted(column_type):
        raise UsageError(f"{role} {name!r} of {url} is of type {column_type}; {needed}")


def _is_text(column: pa.DataType) -> bool:
    if pa.types.is_dictionary(column):
        return _is_text(column.value_type)
    return any(
        is_type(column)
        for is_type in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
            pa.types.is_null,
        )
    )


def _is_id(column: pa.DataType) -> bool:
    return pa.types.is_integer(column) or _is_text(column)


# --- how they are cut ----------------------------------------------------------------------------


def _cut(options: ReadOptions, shard_bytes: int, file: InputFile) -> list[tuple[int, int, int]]:
    """Start, end and bytes of a file's segments."""
    if file.compression is None and file.size > shard_bytes:
        if file.format == "parquet":
            return _cut_row_groups(file, shard_bytes)
        if file.format == "jsonl" or (file.format == "text" and options.text_unit == "line"):
            count = -(-file.size // shard_bytes)
            marks = [file.size * i // count for i in range(count + 1)]
            return [(start, end, end - start) for start, end in itertools.pairwise(marks)]
    return [(0, file.size, file.size)]


def _cut_row_groups(file: InputFile, shard_bytes: int) -> list[tuple[int, int, int]]:
    try:
        with open_table(file) as table:
            sizes = [_row_group_bytes(table.metadata, i) for i in range(table.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        if is_damage(error):
            # Whole, so that its fault is reported once.
            return [(0, file.size, file.size)]
        raise
    pieces = [(0, 0, 0)]
    for group, size in enumerate(sizes):
        start, end, held = pieces[-1]
        if start < end and held + size > shard_bytes:
            pieces.append((group, group + 1, size))
        else:
            pieces[-1] = (start, group + 1, held + size)
    return pieces


def _row_group_bytes(metadata: pq.FileMetaData, index: int) -> int:
    group = metadata.row_group(index)
    return sum(group.column(i).total_compressed_size for i in range(group.num_columns))


# --- their bytes ---------------------------------------------------------------------------------


def _new_decompressor(compression: str) -> Any:
    if compression == "gzip":
        return zlib.decompressobj(wbits=31)
    return zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW).decompressobj()


@contextlib.contextmanager
def _plain_source(file: InputFile | Segment) -> Iterator[pa.NativeFile]:
    if file.compression is None:
        with storage.open_arrow(file.url) as source:
            yield source
        return
    with tempfile.TemporaryDirectory(prefix="corpusmill-") as folder:
        path = os.path.join(folder, "table")
        with storage.open_input(file.url) as packed, open(path, "wb") as unpacked:
            unpacked.writelines(decompressed(packed, file.compression))
        with pa.memory_map(path) as source:
            yield source
