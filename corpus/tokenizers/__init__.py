"""Tokenizers: text to token ids and back, each document ended by one token.

Text never yields special tokens: `<|endoftext|>` in a document is tokenized as the thirteen
characters that it is. Long texts are tokenized in pieces: see `corpus.tokenizers.pieces`.
"""

from corpus.tokenizers.base import Tokenizer, describe_tokenizer
from corpus.tokenizers.certify import use_backend, use_fastest
from corpus.tokenizers.loading import load_tokenizer
from corpus.tokenizers.streaming import TextStream

__all__ = [
    "TextStream",
    "Tokenizer",
    "describe_tokenizer",
    "load_tokenizer",
    "use_backend",
    "use_fastest",
]
