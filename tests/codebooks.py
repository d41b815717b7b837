"""Small codebooks, and texts that are hard on them."""

import functools

import numpy as np

from corpusmill.compress import ByteStrings, Codebook, FreezeOptions, NgramModel, freeze
from corpusmill.ngram_agg.counts_runs import count_ngrams
from corpusmill.ngram_agg.full_tables import build_table, forward_contexts

ENGLISH = "the cat sat on the mat, and the dog sat on the log with another cat. "
HARD_TEXTS = [
    "",
    "a",
    "\0" * 3000,
    "thé à la crème, 猫は好きです。 🐈‍⬛" * 30,
    "def f(x):\n\treturn {x: [x]}  # №\r\n" * 20,
    ENGLISH * 50,
    "",
]


@functools.cache
def small_book(window_bits: int = 12) -> Codebook:
    """A codebook made of a few sentences, with strings of up to dozens of bytes."""
    text = np.frombuffer(f"{ENGLISH * 3}thé \0 [x]".encode(), np.uint8).astype(np.uint16)
    tokens = np.append(text, np.uint16(256))
    run = count_ngrams(tokens, max_order=3, vocabulary_size=257, end_of_document=256)
    table = build_table(run.packing, forward_contexts(run.packing, [run], range(4), 2))
    return freeze(NgramModel(table), FreezeOptions("optimal", window_bits), {})


@functools.cache
def small_used_book(boundaries: str = "words", window_bits: int = 10) -> Codebook:
    """A codebook of strings that save most ids in a few texts; not all prefixes are strings."""
    text = ByteStrings.of([ENGLISH * 3, *HARD_TEXTS])
    return freeze(None, FreezeOptions("used", window_bits, boundaries=boundaries), {}, text)
