"""Codecs that need no model: the bytes themselves, and gzip."""

import struct
import zlib
from typing import Any

import numpy as np

from corpusmill.compress.byte_strings import ByteStrings, Ids, Offsets
from corpusmill.compress.codecs.codec import Codec, sums_by_document
from corpusmill.corpus.errors import DataError
from corpusmill.corpus.tokenizers.byte_letters import byte_definition

# Deflate, no name, no time, unknown system: the same on every machine.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_GZIP_LEVEL = 9


class BytesCodec(Codec):
    """Every byte is an id."""

    kind = "bytes"
    window_ids = 1

    def encode_batch(self, documents: ByteStrings) -> tuple[Ids, Offsets]:
        first, last = documents.offsets[[0, -1]]
        return documents.data[first:last].astype(self.dtype), documents.offsets - first

    def decode_batch(self, ids: Ids, offsets: Offsets) -> ByteStrings:
        return ByteStrings(_bytes_of(ids), np.asarray(offsets))

    def text_ends(self, ids: Ids, offsets: Offsets) -> Offsets:
        return sums_by_document(np.ones(len(_bytes_of(ids)), np.int64), offsets)

    def definition(self) -> dict[str, Any]:
        return byte_definition()


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
