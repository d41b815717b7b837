"""Codecs: ways to turn byte strings into ids and back, told apart by name and content hash.

A codec is kept as a folder of small files, which every compressed dataset has a copy of.
"""

from corpusmill.compress.codecs.arithmetic import ArithmeticCodec, StaticArithmeticCodec
from corpusmill.compress.codecs.baselines import BytesCodec, GzipCodec
from corpusmill.compress.codecs.codec import Codec, sums_by_document
from corpusmill.compress.codecs.equal_info import EqualInfoCodec
from corpusmill.compress.codecs.frozen import CODEBOOK_FILE, CodebookCodec
from corpusmill.compress.codecs.opening import (
    BASELINES,
    codec_on_device,
    device_of,
    expect_codec,
    open_codec,
    read_marker,
    runs_network,
)
from corpusmill.compress.codecs.padded import PaddedCodec
from corpusmill.compress.codecs.subword import SubwordCodec

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
    "device_of",
    "expect_codec",
    "open_codec",
    "read_marker",
    "runs_network",
    "sums_by_document",
]
