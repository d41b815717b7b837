"""Codecs: ways to turn byte strings into ids and back, told apart by name and content hash.

Codebooks, and what they are measured against: the bytes themselves, and gzip. A codec is kept as a
folder of small files, which every compressed dataset has a copy of.
"""

import abc
import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, ClassVar

import numpy as np

from compress.byte_strings import ByteStrings, Offsets
from compress.codebook import Codebook, Ids
from corpus import storage
from corpus.errors import DataError, UsageError, one_line
from corpus.tokenizers.base import MARKER

CODEBOOK_FILE = "tokenizer.codebook"

# Deflate, no name, no time, unknown system: the same on every machine.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_GZIP_LEVEL = 9


class Codec(abc.ABC):
    """Turns any byte strings into ids and back. The empty string has no ids, all others have some.

    Attributes:
      kind: `codebook`, `bytes` or `gzip`.
    """

    kind: ClassVar[str]

    @property
    def options(self) -> Mapping[str, Any]:
        """What else decides the ids, as JSON."""
        return {}

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return 256

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of ids: uint16 where they fit, else uint32."""
        return np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.uint32)

    @property
    def content_hash(self) -> str:
        """SHA-256 of what decides which bytes the ids stand for."""
        return hashlib.sha256(self.kind.encode()).hexdigest()

    @property
    def description(self) -> dict[str, Any]:
        """What a manifest says of the codec, where others say it of a tokenizer."""
        return {
            "kind": self.kind,
            "content_hash": self.content_hash,
            "vocabulary_size": self.vocab_size,
            "end_of_document": None,
            **self.options,
        }

    @property
    def marker(self) -> dict[str, Any]:
        """What the file that marks a codec's folder says."""
        return {"kind": self.kind, **self.options}

    @property
    def files(self) -> dict[str, Callable[[str], None]]:
        """File name -> what writes that file to a path or URL; `open_codec` reads them."""
        marker = json.dumps(self.marker, indent=1).encode() + b"\n"
        return {MARKER: partial(storage.write_bytes, data=marker)}

    @abc.abstractmethod
    def encode_batch(self, documents: ByteStrings) -> tuple[Ids, Offsets]:
        """The ids of documents.

        Returns:
          The ids of all documents one after the other, and int64 [documents + 1]: document i has
          the ids from offsets[i] to offsets[i + 1].
        """

    @abc.abstractmethod
    def decode_batch(self, ids: Ids, offsets: Offsets) -> ByteStrings:
        """The documents that have these ids; the inverse of `encode_batch`.

        Raises:
          DataError: no document has them.
        """

    @abc.abstractmethod
    def text_ends(self, ids: Ids, offsets: Offsets) -> Offsets:
        """How much of its document is known from each id and those before it.

        Args:
          ids: of documents, each of which may lack its last ids.
          offsets: which ids each document has.

        Returns:
          int64 [ids]: bytes from the document's beginning, never falling within a document.

        Raises:
          DataError: no document begins with these ids.
        """


@dataclass(frozen=True)
class CodebookCodec(Codec):
    """A codebook, and how it parses: by default as `Codebook.encode` does.

    Raises:
      UsageError: there is no such parse.
    """

    book: Codebook
    parse: str | None = None
    kind = "codebook"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parse", self.book.resolve_parse(self.parse))

    @property
    def options(self) -> Mapping[str, Any]:
        return {"parse": self.parse}

    @property
    def vocab_size(self) -> int:
        return self.book.vocab_size

    @cached_property
    def content_hash(self) -> str:
        return self.book.content_hash

    @property
    def files(self) -> dict[str, Callable[[str], None]]:
        return {**super().files, CODEBOOK_FILE: self.book.write}

    def encode_batch(self, documents: ByteStrings) -> tuple[Ids, Offsets]:
        return self.book.encode_batch(documents, self.parse)

    def decode_batch(self, ids: Ids, offsets: Offsets) -> ByteStrings:
        return self.book.decode_batch(ids, offsets)

    def text_ends(self, ids: Ids, offsets: Offsets) -> Offsets:
        # Every id is a document, so decoding them finds those outside the codebook.
        single = self.book.decode_batch(ids, np.arange(len(ids) + 1))
        return sums_by_document(single.lengths(), offsets)


class BytesCodec(Codec):
    """Every byte is an id."""

    kind = "bytes"

    def encode_batch(self, documents: ByteStrings) -> tuple[Ids, Offsets]:
        first, last = documents.offsets[[0, -1]]
        return documents.data[first:last].astype(self.dtype), documents.offsets - first

    def decode_batch(self, ids: Ids, offsets: Offsets) -> ByteStrings:
        return ByteStrings(_bytes_of(ids), np.asarray(offsets))

    def text_ends(self, ids: Ids, offsets: Offsets) -> Offsets:
        return sums_by_document(np.ones(len(_bytes_of(ids)), np.int64), offsets)


class GzipCodec(Codec):
    """Every byte of the document's gzip stream is an id; the empty document has no stream.

    What zlib makes of a text may change with its version; what it makes can always be decoded.
    """

    kind = "gzip"

    def encode_batch(self, documents: ByteStrings) -> tuple[Ids, Offsets]:
        packed = ByteStrings.of(map(_gzip, documents))
        return packed.data.astype(self.dtype), packed.offsets

    def decode_batch(self, ids: Ids, offsets: Offsets) -> ByteStrings:
        return ByteStrings.of(map(_gunzip, ByteStrings(_bytes_of(ids), np.asarray(offsets))))

    def text_ends(self, ids: Ids, offsets: Offsets) -> Offsets:
        streams = ByteStrings(_bytes_of(ids), np.asarray(offsets))
        lengths = [size for stream in streams for size in _gunzipped_sizes(stream)]
        return sums_by_document(np.array(lengths, np.int64), offsets)


BASELINES: dict[str, type[Codec]] = {codec.kind: codec for codec in (BytesCodec, GzipCodec)}


def open_codec(folder: str) -> Codec:
    """The codec whose files are in a folder.

    Args:
      folder: path or URL; a local codebook is memory-mapped.

    Raises:
      UsageError: there is no codec.
      DataError: it is damaged.
    """
    marker = read_marker(folder)
    kind = marker.get("kind")
    if kind == CodebookCodec.kind:
        book = Codebook.open(storage.join(folder, CODEBOOK_FILE))
        return CodebookCodec(book, marker.get("parse", "greedy"))
    if kind not in BASELINES:
        raise UsageError(f"{folder} has the tokenizer {kind}, which is no codec")
    return BASELINES[kind]()


def read_marker(folder: str) -> dict[str, Any]:
    """What the file that marks a folder with a tokenizer or codec says.

    Raises:
      UsageError: there is no such file.
      DataError: it is damaged.
    """
    url = storage.join(folder, MARKER)
    try:
        return dict(json.loads(storage.read_bytes(url)))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"there is no codec in {folder}: it has no {MARKER}") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{url} is damaged: {one_line(error)}") from error


@lru_cache(maxsize=4)
def expect_codec(folder: str, content_hash: str) -> Codec:
    """The codec in a folder of a dataset, opened once in a process.

    Raises:
      DataError: it isn't there, is damaged, or isn't the one with this hash.
    """
    try:
        codec = open_codec(folder)
    except UsageError as error:
        raise DataError(f"the dataset's codec is missing: {error}") from error
    if codec.content_hash != content_hash:
        raise DataError(
            f"the {codec.kind} in {folder} is {codec.content_hash}, but the dataset was made with"
            f" {content_hash}"
        )
    return codec


def sums_by_document(values: Offsets, offsets: Offsets) -> Offsets:
    """Sums of int64 values from the first one of their document on."""
    sums: Offsets = np.cumsum(values)
    before = np.concatenate([np.zeros(1, np.int64), sums])[np.asarray(offsets)[:-1]]
    within: Offsets = sums - np.repeat(before, np.diff(offsets))
    return within


def _bytes_of(ids: Ids) -> Any:
    if len(ids) and ids.max() > 255:
        raise DataError(f"id {ids.max()} is outside the vocabulary of 256")
    return ids.astype(np.uint8)


def _gzip(data: bytes) -> bytes:
    if not data:
        return b""
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    end = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    return b"".join([_GZIP_HEADER, compressor.compress(data), compressor.flush(), end])


def _gunzipped_sizes(data: bytes) -> list[int]:
    """How many more bytes come out for each byte that goes in."""
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        return [len(decompressor.decompress(data[i : i + 1])) for i in range(len(data))]
    except zlib.error as error:
        raise DataError(f"is no gzip stream: {error}") from error


def _gunzip(data: bytes) -> bytes:
    if not data:
        return b""
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        text = decompressor.decompress(data)
    except zlib.error as error:
        raise DataError(f"is no gzip stream: {error}") from error
    if not decompressor.eof or decompressor.unused_data:
        raise DataError("is not one whole gzip stream")
    return text
