"""Tokenizers: text to token ids and back, each document ended by one token.

Text never yields special tokens: `<|endoftext|>` in a document is tokenized as the thirteen
characters that it is. Long texts are tokenized in pieces: see `corpus.tokenizers.pieces`.
"""

from corpusmill.corpus.tokenizers.backends import UnsupportedError
from corpusmill.corpus.tokenizers.certify import use_backend, use_fastest
from corpusmill.corpus.tokenizers.hub import Special, tokenizer_files, with_special
from corpusmill.corpus.tokenizers.loading import load_tokenizer
from corpusmill.corpus.tokenizers.streaming import TextStream
from corpusmill.corpus.tokenizers.tokenizer import Tokenizer, describe_tokenizer

__all__ = [
    "Special",
    "TextStream",
    "Tokenizer",
    "UnsupportedError",
    "describe_tokenizer",
    "load_tokenizer",
    "tokenizer_files",
    "use_backend",
    "use_fastest",
    "with_special",
]
