"""Codecs: ways to turn byte strings into ids and back, told apart by name and content hash.

A codec is kept as a folder of small files, which every compressed dataset has a copy of.
"""

from compress.codecs.base import Codec, sums_by_document
from compress.codecs.baselines import BytesCodec, GzipCodec
from compress.codecs.frozen import CODEBOOK_FILE, CodebookCodec
from compress.codecs.opening import BASELINES, expect_codec, open_codec, read_marker

__all__ = [
    "BASELINES",
    "CODEBOOK_FILE",
    "BytesCodec",
    "CodebookCodec",
    "Codec",
    "GzipCodec",
    "expect_codec",
    "open_codec",
    "read_marker",
    "sums_by_document",
]
