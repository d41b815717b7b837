"""Counts runs: sorted unique n-grams with their counts, and what is done with them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from corpusmill.corpus.errors import DataError
from corpusmill.corpus.tokens import check_vocabulary
from corpusmill.ngram_agg.compiled import compiled
from corpusmill.ngram_agg.packing import (
    Key,
    Packing,
    Tokens,
    Words,
    keys_rise,
    lower_bound,
    pack_sequence,
    unpack_columns,
    upper_bound,
)

# Above this many high bits, buckets by the high word are too many to be worth it.
_MAX_BUCKET_BITS = 16


@dataclass(frozen=True)
class CountsRun:
    """Sorted unique n-grams, each with how often it was seen.

    Attributes:
      packing: how tokens became keys.
      high, low: the keys' two words, each of shape [rows].
      counts: uint64 of shape [rows].
    """

    packing: Packing
    high: Words
    low: Words
    counts: Words

    def __len__(self) -> int:
        return len(self.low)

    def __getitem__(self, rows: slice) -> "CountsRun":
        return CountsRun(self.packing, self.high[rows], self.low[rows], self.counts[rows])

    def columns(self) -> list[Tokens]:
        """The n-grams as `packing.length` arrays of token ids."""
        return unpack_columns(self.packing, self.high, self.low)

    def total(self) -> int:
        """Number of positions counted."""
        return int(self.counts.sum(dtype=np.uint64))

    def lower_bound(self, key: Key) -> int:
        """The first row whose key is not below `key` (its high and low word)."""
        return lower_bound(self.high, self.low, key)

    def upper_bound(self, key: Key) -> int:
        """The first row whose key is above `key`."""
        return upper_bound(self.high, self.low, key)

    def key(self, row: int) -> Key:
        return int(self.high[row]), int(self.low[row])

    def order(self, order: int) -> "CountsRun":
        """Counts of (context, next token) for contexts of `order` tokens, from the longer n-grams.

        Contexts don't cross documents, so n-grams whose context holds the end-of-document token
        are only filling and are left out.

        Raises:
          UsageError: `order` is not between 0 and `packing.max_order`.
        """
        shorter = self.shortened(order + 1)
        keep = np.ones(len(shorter), bool)
        for column in shorter.columns()[:-1]:
            keep &= column != self.packing.end_of_document
        return CountsRun(
            shorter.packing, shorter.high[keep], shorter.low[keep], shorter.counts[keep]
        )

    def shortened(self, length: int) -> "CountsRun":
        """Counts of the first `length` tokens of the n-grams, filling included.

        Raises:
          UsageError: `length` is not between 1 and `packing.length`.
        """
        packing = self.packing.shortened(length)
        high = np.empty(len(self), packing.high_dtype)
        low = np.empty(len(self), np.uint64)
        shift = (self.packing.length - length) * packing.token_bits
        _shift_down(self.high, self.low, shift, high, low)
        return CountsRun(packing, *_sum_equal(high, low, self.counts))


def empty_run(packing: Packing) -> CountsRun:
    return CountsRun(
        packing, np.empty(0, packing.high_dtype), np.empty(0, np.uint64), np.empty(0, np.uint64)
    )


def joined_runs(runs: Sequence[CountsRun]) -> CountsRun:
    """One run of several that follow each other: keys rise from run to run."""
    return CountsRun(
        runs[0].packing,
        np.concatenate([run.high for run in runs]),
        np.concatenate([run.low for run in runs]),
        np.concatenate([run.counts for run in runs]),
    )


def count_ngrams(
    tokens: Tokens,
    *,
    max_order: int,
    vocabulary_size: int,
    end_of_document: int,
    starts: int | None = None,
) -> CountsRun:
    """Counts the n-grams of `max_order` + 1 tokens; every lower order follows from them.

    >>> run = count_ngrams(np.array([5, 6, 5, 6, 9]), max_order=1, vocabulary_size=10,
    ...                    end_of_document=9)
    >>> [column.tolist() for column in run.columns()], run.counts.tolist()
    ([[5, 6, 6, 9], [6, 5, 9, 9]], [2, 1, 1, 1])

    Args:
      tokens: ids, documents one after the other, each ended by `end_of_document`.
      max_order: tokens in the longest context, at least 0.
      vocabulary_size: every id is below it.
      end_of_document: the id that ends documents; n-grams are filled up with it.
      starts: count only the n-grams that start at the first `starts` positions (the tokens after
        them are looked at, not counted); all positions by default.

    Raises:
      DataError: an id is outside the vocabulary.
      UsageError: n-grams of this length don't fit in a key.
    """
    packing = Packing(max_order + 1, vocabulary_size, end_of_document)
    check_vocabulary(tokens, vocabulary_size)
    starts = len(tokens) if starts is None else starts
    if starts == 0:
        return empty_run(packing)
    return _aggregate(packing, *pack_sequence(packing, tokens, starts))


def check_run(run: CountsRun, after: Key | None, place: str) -> None:
    """Checks what merging and scanning rely on, of a run that was read.

    Args:
      run: what was read.
      after: the key that its first one has to be above.
      place: where it was read.

    Raises:
      DataError: keys don't rise or have more bits than the packing's, or a count is 0.
    """
    if (len(run) and after is not None and run.key(0) <= after) or not keys_rise(run.high, run.low):
        raise DataError(f"n-grams in {place} do not rise")
    if int(run.high.max(initial=0)) >> run.packing.high_bits:
        raise DataError(f"an n-gram in {place} has too many bits")
    if not run.counts.all():
        raise DataError(f"row {int(np.argmin(run.counts))} of {place} has a count of 0")


def _aggregate(packing: Packing, high: Words, low: Words) -> CountsRun:
    high, low = _sort_keys(packing, high, low)
    ones = np.broadcast_to(np.uint64(1), len(low))
    return CountsRun(packing, *_sum_equal(high, low, ones))


def _sort_keys(packing: Packing, high: Words, low: Words) -> tuple[Words, Words]:
    if packing.high_bits == 0:
        low.sort()
        return high, low
    if packing.high_bits > _MAX_BUCKET_BITS:
        return _sort_by_top_word(packing, high, low)
    # numpy sorts single words with SIMD, an order of magnitude faster than pairs: one pass puts
    # each low word in its high word's bucket, then the buckets are sorted.
    starts = _bucket_starts(high, 1 << packing.high_bits)
    bucketed = np.empty_like(low)  # numpy's, which come with huge pages, unlike numba's
    _scatter(high, low, starts[:-1].copy(), bucketed)
    sizes = np.diff(starts)
    for bucket in np.flatnonzero(sizes > 1).tolist():
        bucketed[starts[bucket] : starts[bucket + 1]].sort()
    return np.repeat(np.arange(len(sizes), dtype=high.dtype), sizes), bucketed


def _sort_by_top_word(packing: Packing, high: Words, low: Words) -> tuple[Words, Words]:
    # An argsort of the first 64 bits leaves only n-grams that agree in these to be sorted.
    shift = np.uint64(packing.high_bits)
    top = (high.astype(np.uint64) << (np.uint64(64) - shift)) | (low >> shift)
    order = np.argsort(top)
    top = top[order]
    rest = low[order] & np.uint64((1 << packing.high_bits) - 1)
    _sort_within_equal(top, rest)
    return (top >> (np.uint64(64) - shift)).astype(high.dtype), (top << shift) | rest


def _sum_equal(high: Words, low: Words, counts: Words) -> tuple[Words, Words, Words]:
    """Sorted keys with repeats become unique ones with summed counts."""
    out = np.empty_like(high), np.empty_like(low), np.empty(len(low), np.uint64)
    rows = _sum_equal_into(high, low, counts, *out)
    return out[0][:rows], out[1][:rows], out[2][:rows]


@compiled
def _bucket_starts(high: Words, buckets: int) -> Words:
    starts = np.zeros(buckets + 1, np.int64)
    for i in range(len(high)):
        starts[np.int64(high[i]) + 1] += 1
    for bucket in range(buckets):
        starts[bucket + 1] += starts[bucket]
    return starts


@compiled
def _scatter(high: Words, low: Words, next_free: Words, out: Words) -> None:
    for i in range(len(low)):
        bucket = high[i]
        out[next_free[bucket]] = low[i]
        next_free[bucket] += 1


@compiled
def _sort_within_equal(top: Words, rest: Words) -> None:
    first = 0
    for i in range(len(top)):
        if i + 1 == len(top) or top[i + 1] != top[i]:
            if i > first:
                rest[first : i + 1].sort()
            first = i + 1


@compiled
def _sum_equal_into(
    high: Words, low: Words, counts: Words, out_high: Words, out_low: Words, out_counts: Words
) -> int:
    rows = 0
    total = np.uint64(0)
    # Every row is written and kept by moving on: a branch would be guessed wrong too often.
    for i in range(len(low)):
        total += counts[i]
        out_high[rows] = high[i]
        out_low[rows] = low[i]
        out_counts[rows] = total
        last = i + 1 == len(low) or (low[i] != low[i + 1]) | (high[i] != high[i + 1])
        rows += int(last)
        total = np.uint64(0) if last else total
    return rows


@compiled
def _shift_down(high: Words, low: Words, shift: int, out_high: Words, out_low: Words) -> None:
    if shift == 0:
        for i in range(len(low)):
            out_high[i] = high[i]
            out_low[i] = low[i]
    elif shift >= 64:
        for i in range(len(low)):
            out_high[i] = 0
            out_low[i] = np.uint64(high[i]) >> np.uint64(shift - 64)
    else:
        for i in range(len(low)):
            above = np.uint64(high[i])
            out_high[i] = above >> np.uint64(shift)
            out_low[i] = (low[i] >> np.uint64(shift)) | (above << np.uint64(64 - shift))
