r"""Equal-info compression: text as tokens that carry about the same information each.

from compress import ByteStrings, Codebook, FreezeOptions, freeze, ngram_model

book = Codebook.open("gs://bucket/english.codebook")
ids = book.encode(b"\xff any bytes", parse="flexible")
book.decode(ids)                          # the same bytes
ids, offsets = book.encode_batch(ByteStrings.of(documents))

model = ngram_model("data/byte-counts")   # a byte model from a counts dataset of bytes
book = freeze(model, FreezeOptions(window_bits=16), {"model": model.content_hash})
"""

from compress.byte_models import (
    ByteModel,
    NgramModel,
    StaticModel,
    ngram_model,
    open_model,
    save_model,
    static_model,
)
from compress.byte_strings import ByteStrings
from compress.codebook import Codebook
from compress.freeze import FreezeOptions, freeze
from compress.windows import WindowCode

__all__ = [
    "ByteModel",
    "ByteStrings",
    "Codebook",
    "FreezeOptions",
    "NgramModel",
    "StaticModel",
    "WindowCode",
    "freeze",
    "ngram_model",
    "open_model",
    "save_model",
    "static_model",
]
