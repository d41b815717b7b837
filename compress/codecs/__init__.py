"""Codecs: ways to turn byte strings into ids and back, told apart by name and content hash.

A codec is kept as a folder of small files, which every compressed dataset has a copy of.
"""

from compress.codecs.arithmetic import ArithmeticCodec, StaticArithmeticCodec
from compress.codecs.base import Codec, sums_by_document
from compress.codecs.baselines import BytesCodec, GzipCodec
from compress.codecs.equal_info import EqualInfoCodec
from compress.codecs.frozen import CODEBOOK_FILE, CodebookCodec
from compress.codecs.opening import (
    BASELINES,
    codec_on_device,
    expect_codec,
    open_codec,
    read_marker,
    runs_network,
)
from compress.codecs.padded import PaddedCodec
from compress.codecs.subword import SubwordCodec

__all__ = [
    "BASELINES",
    "CODEBOOK_FILE",
    "ArithmeticCodec",
    "BytesCodec",
    "CodebookCodec",
    "Codec",
    "EqualInfoCodec",
    "GzipCodec",
    "PaddedCodec",
    "StaticArithmeticCodec",
    "SubwordCodec",
    "codec_on_device",
    "expect_codec",
    "open_codec",
    "read_marker",
    "runs_network",
    "sums_by_document",
]
