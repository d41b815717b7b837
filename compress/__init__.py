r"""Equal-info compression: text as tokens that carry about the same information each.

from corpusmill.compress import ByteStrings, Codebook, FreezeOptions, freeze, ngram_model

book = Codebook.open("gs://bucket/english.codebook")
ids = book.encode(b"\xff any bytes")
book.decode(ids)                          # the same bytes
ids, offsets = book.encode_batch(ByteStrings.of(documents))
tokenizer = CodebookTokenizer(book)       # with the methods that Hugging Face's tokenizers have

book = freeze(None, FreezeOptions(), {}, ByteStrings.of(documents))
model = ngram_model("data/byte-counts")   # a byte model from a counts dataset of bytes
book = freeze(model, FreezeOptions("optimal"), {"model": model.content_hash})
"""

from corpusmill.compress.byte_models import (
    ByteModel,
    NgramModel,
    StaticModel,
    ngram_model,
    open_model,
    save_model,
    static_model,
)
from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.compress.codebooks.codebook import Codebook
from corpusmill.compress.codebooks.freeze import FreezeOptions, freeze
from corpusmill.compress.codebooks.streams import decode_stream, encode_stream
from corpusmill.compress.codecs import (
    ArithmeticCodec,
    CodebookCodec,
    Codec,
    EqualInfoCodec,
    PaddedCodec,
    StaticArithmeticCodec,
    SubwordCodec,
    open_codec,
)
from corpusmill.compress.codecs.codebook_tokenizer import CodebookTokenizer

__all__ = [
    "ArithmeticCodec",
    "ByteModel",
    "ByteStrings",
    "Codebook",
    "CodebookCodec",
    "CodebookTokenizer",
    "Codec",
    "EqualInfoCodec",
    "FreezeOptions",
    "NgramModel",
    "PaddedCodec",
    "StaticArithmeticCodec",
    "StaticModel",
    "SubwordCodec",
    "decode_stream",
    "encode_stream",
    "freeze",
    "ngram_model",
    "open_codec",
    "open_model",
    "save_model",
    "static_model",
]
