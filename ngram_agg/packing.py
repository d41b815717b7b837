"""N-grams as exact integer keys.

An n-gram of `length` tokens of `token_bits` bits each is one integer with the first token in the
highest bits, so that sorting keys sorts n-grams and brings a context's n-grams together. The
integer is held in two words: `low` has the last 64 bits, `high` what is above them (in the
smallest unsigned dtype; all zero where 64 bits are enough).

An n-gram that starts near the end of a document is filled up with the end-of-document token.
No document holds that token anywhere but at its end, so nothing is lost: what follows the first
end-of-document token of a key is filling.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.tokens import id_dtype
from corpusmill.ngram_agg.compiled import compiled

Tokens = npt.NDArray[Any]
Words = npt.NDArray[Any]
Key = tuple[int, int]

KEY_BITS = 128
MAX_VOCABULARY = 1 << 31


@dataclass(frozen=True)
class Packing:
    """How n-grams of one corpus become keys.

    Attributes:
      length: tokens in an n-gram, the longest context's and the next one.
      vocabulary_size: token ids are below it.
      end_of_document: the id that ends every document.

    Raises:
      UsageError: the n-gram doesn't fit in 128 bits, or an id in the vocabulary.
    """

    length: int
    vocabulary_size: int
    end_of_document: int

    def __post_init__(self) -> None:
        if not 1 <= self.vocabulary_size <= MAX_VOCABULARY:
            raise UsageError(
                f"vocabulary size {self.vocabulary_size} is not between 1 and {MAX_VOCABULARY}"
            )
        if not 0 <= self.end_of_document < self.vocabulary_size:
            raise UsageError(
                f"end-of-document id {self.end_of_document} is not below the vocabulary size"
                f" {self.vocabulary_size}"
            )
        longest = KEY_BITS // self.token_bits
        if not 1 <= self.length <= longest:
            raise UsageError(
                f"contexts of {self.length - 1} tokens do not fit: a vocabulary of"
                f" {self.vocabulary_size} allows orders 0 to {longest - 1}"
            )

    @property
    def token_bits(self) -> int:
        return max(1, (self.vocabulary_size - 1).bit_length())

    @property
    def max_order(self) -> int:
        """Tokens in the longest context."""
        return self.length - 1

    @property
    def high_bits(self) -> int:
        return max(0, self.length * self.token_bits - 64)

    @property
    def high_dtype(self) -> npt.DTypeLike:
        return np.min_scalar_type((1 << self.high_bits) - 1)

    @property
    def token_dtype(self) -> np.dtype[Any]:
        return id_dtype(self.vocabulary_size)

    @classmethod
    def of(cls, tokenizer: Mapping[str, Any], length: int) -> "Packing":
        """The packing of n-grams of `length` tokens of a tokenizer as a manifest describes it."""
        return cls(length, tokenizer["vocabulary_size"], tokenizer["end_of_document"])

    def shortened(self, length: int) -> "Packing":
        """The packing of the first `length` tokens of these n-grams.

        Raises:
          UsageError: they have fewer tokens, or `length` is not at least 1.
        """
        if not 1 <= length <= self.length:
            raise UsageError(
                f"n-grams of {length} tokens are asked for: those here have the first 1 to"
                f" {self.length}"
            )
        return Packing(length, self.vocabulary_size, self.end_of_document)


def pack_sequence(packing: Packing, tokens: Tokens, starts: int) -> tuple[Words, Words]:
    """Keys of the n-grams that start at the first `starts` positions of a token sequence.

    Args:
      packing: the packing; `packing.length` tokens an n-gram.
      tokens: documents one after the other, each ended by `packing.end_of_document`. Where more
        tokens follow than are given, `max_order` tokens beyond `starts` are needed.
      starts: number of positions.

    Returns:
      `high` and `low`, one key a position.
    """
    high = np.empty(starts, packing.high_dtype)
    low = np.empty(starts, np.uint64)
    _pack_sequence(tokens, packing.length, packing.token_bits, packing.end_of_document, high, low)
    return high, low


def pack_columns(packing: Packing, columns: Sequence[Tokens]) -> tuple[Words, Words]:
    """Keys of n-grams given as `packing.length` arrays, the first tokens, the second, ..."""
    rows = len(columns[0])
    high = np.zeros(rows, packing.high_dtype)
    low = np.zeros(rows, np.uint64)
    for position, column in enumerate(columns):
        shift = (packing.length - 1 - position) * packing.token_bits
        _add_token(np.ascontiguousarray(column), shift, high, low)
    return high, low


def unpack_columns(packing: Packing, high: Words, low: Words) -> list[Tokens]:
    """The inverse of `pack_columns`: `packing.length` arrays of token ids."""
    columns = []
    for position in range(packing.length):
        column = np.empty(len(low), packing.token_dtype)
        shift = (packing.length - 1 - position) * packing.token_bits
        _take_token(high, low, shift, packing.token_bits, column)
        columns.append(column)
    return columns


def pack_one(packing: Packing, prefix: Sequence[int]) -> Key:
    """The lowest key of the n-grams that begin with `prefix`; the n-gram's own if it is whole."""
    return prefix_keys(packing, prefix)[0]


def prefix_keys(packing: Packing, prefix: Sequence[int]) -> tuple[Key, Key]:
    """The lowest and the highest key of the n-grams that begin with `prefix`."""
    key = 0
    for token in prefix:
        key = key << packing.token_bits | int(token)
    free_bits = (packing.length - len(prefix)) * packing.token_bits
    first = key << free_bits
    return _words(first), _words(first + (1 << free_bits) - 1)


def lower_bound(high: Words, low: Words, key: Key) -> int:
    """The first of rising keys, by number, that is not below `key`."""
    return int(_bound(high, low, np.uint64(key[0]), np.uint64(key[1]), False))


def upper_bound(high: Words, low: Words, key: Key) -> int:
    """The first of rising keys, by number, that is above `key`."""
    return int(_bound(high, low, np.uint64(key[0]), np.uint64(key[1]), True))


def _words(key: int) -> Key:
    return key >> 64, key & (1 << 64) - 1


@compiled
def keys_rise(high: Words, low: Words) -> bool:
    """Whether each key is above the one before it."""
    # Without a branch, many keys are compared at once.
    falls = 0
    for i in range(1, len(low)):
        rises = (high[i] > high[i - 1]) | ((high[i] == high[i - 1]) & (low[i] > low[i - 1]))
        falls += int(not rises)
    return falls == 0


@compiled
def _bound(
    high: Words, low: Words, key_high: np.uint64, key_low: np.uint64, after_equal: bool
) -> int:
    first = 0
    last = len(low)
    while first < last:
        middle = (first + last) // 2
        above = np.uint64(high[middle])
        below = low[middle]
        is_equal = above == key_high and below == key_low
        is_smaller = above < key_high or (above == key_high and below < key_low)
        if is_smaller or (is_equal and after_equal):
            first = middle + 1
        else:
            last = middle
    return first


@compiled
def _pack_sequence(
    tokens: Tokens, length: int, bits: int, end: int, high: Words, low: Words
) -> None:
    # One key is the next one shifted down by a token with its own first token on top. An end of
    # document starts afresh from a key of end tokens only.
    top = (length - 1) * bits
    shift = np.uint64(bits)
    carry = np.uint64(64 - bits)
    end_high = np.uint64(0)
    end_low = np.uint64(0)
    for position in range(length):
        at = position * bits
        if at >= 64:
            end_high |= np.uint64(end) << np.uint64(at - 64)
        else:
            end_low |= np.uint64(end) << np.uint64(at)
            if at + bits > 64:
                end_high |= np.uint64(end) >> np.uint64(64 - at)
    above = end_high
    below = end_low
    last = min(len(tokens), len(low) + length - 1)
    for i in range(last - 1, -1, -1):
        token = np.uint64(tokens[i])
        if token == np.uint64(end):
            above = end_high
            below = end_low
        else:
            below = (below >> shift) | (above << carry)
            above = above >> shift
            if top >= 64:
                above |= token << np.uint64(top - 64)
            else:
                below |= token << np.uint64(top)
                if top + bits > 64:
                    above |= token >> np.uint64(64 - top)
        if i < len(low):
            high[i] = above
            low[i] = below


@compiled
def _add_token(column: Tokens, shift: int, high: Words, low: Words) -> None:
    if shift >= 64:
        for i in range(len(low)):
            high[i] |= np.uint64(column[i]) << np.uint64(shift - 64)
    elif shift == 0:
        for i in range(len(low)):
            low[i] |= np.uint64(column[i])
    else:
        spill = np.uint64(64 - shift)
        for i in range(len(low)):
            token = np.uint64(column[i])
            low[i] |= token << np.uint64(shift)
            high[i] |= token >> spill


@compiled
def _take_token(high: Words, low: Words, shift: int, bits: int, column: Tokens) -> None:
    mask = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    if shift >= 64:
        for i in range(len(low)):
            column[i] = (np.uint64(high[i]) >> np.uint64(shift - 64)) & mask
    elif shift == 0:
        for i in range(len(low)):
            column[i] = low[i] & mask
    else:
        spill = np.uint64(64 - shift)
        for i in range(len(low)):
            token = (low[i] >> np.uint64(shift)) | (np.uint64(high[i]) << spill)
            column[i] = token & mask
