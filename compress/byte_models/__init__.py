"""Byte models: how probable each byte is after a prefix, as integers that add up to a power of two.

Every coder here asks a `ByteModel`, and codes with what it answers.
"""

from corpusmill.compress.byte_models.byte_model import ByteModel, ModelState
from corpusmill.compress.byte_models.devices import DEVICES, on_device
from corpusmill.compress.byte_models.loading import (
    model_files,
    ngram_model,
    open_model,
    save_model,
    static_model,
)
from corpusmill.compress.byte_models.ngram import NgramModel
from corpusmill.compress.byte_models.static import StaticModel
from corpusmill.compress.byte_models.transformer import TransformerModel
from corpusmill.compress.byte_models.window_starts import WindowStartsModel

__all__ = [
    "DEVICES",
    "ByteModel",
    "ModelState",
    "NgramModel",
    "StaticModel",
    "TransformerModel",
    "WindowStartsModel",
    "model_files",
    "ngram_model",
    "on_device",
    "open_model",
    "save_model",
    "static_model",
]
