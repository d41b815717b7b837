"""Counts runs are added up: two of them, many, and streams of them in bounded memory."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from corpusmill.ngram_agg.compiled import compiled
from corpusmill.ngram_agg.counts_runs import CountsRun
from corpusmill.ngram_agg.packing import Words


def merge_runs(runs: Sequence[CountsRun]) -> CountsRun:
    """Adds up runs of the same packing; the order in which they are given does not matter."""
    if not runs:
        raise ValueError("merge_runs needs at least one run")
    # Pairs of neighbours, level by level, so that every row is moved log2(runs) times.
    while len(runs) > 1:
        pairs = [_merge_pair(*runs[i : i + 2]) for i in range(0, len(runs) - 1, 2)]
        runs = pairs + list(runs[len(pairs) * 2 :])
    return runs[0]


def merge_streams(streams: Iterable[Iterator[CountsRun]]) -> Iterator[CountsRun]:
    """Merges sorted streams of runs into one sorted stream, holding one block of each in memory.

    Args:
      streams: each yields runs whose keys rise from run to run.

    Yields:
      Non-empty runs, keys rising from run to run.
    """
    heads = [(block, stream) for stream in streams if (block := _next_block(stream)) is not None]
    while len(heads) > 1:
        # All rows up to the smallest last key of any block are known to be complete.
        bound = min(block.key(len(block) - 1) for block, _ in heads)
        ready, waiting = [], []
        for block, stream in heads:
            end = block.upper_bound(bound)
            if end:
                ready.append(block[:end])
            rest = block[end:] if end < len(block) else _next_block(stream)
            if rest is not None:
                waiting.append((rest, stream))
        yield merge_runs(ready)
        heads = waiting
    for block, stream in heads:
        yield block
        yield from (later for later in stream if len(later))


def _next_block(stream: Iterator[CountsRun]) -> CountsRun | None:
    return next((block for block in stream if len(block)), None)


def _merge_pair(left: CountsRun, right: CountsRun) -> CountsRun:
    if left.packing != right.packing:
        raise ValueError(f"runs of different packings: {left.packing} and {right.packing}")
    rows = len(left) + len(right)
    high = np.empty(rows, left.high.dtype)
    low = np.empty(rows, np.uint64)
    counts = np.empty(rows, np.uint64)
    rows = _merge_into(
        left.high, left.low, left.counts, right.high, right.low, right.counts, high, low, counts
    )
    return CountsRun(left.packing, high[:rows], low[:rows], counts[:rows])


@compiled
def _merge_into(
    left_high: Words,
    left_low: Words,
    left_counts: Words,
    right_high: Words,
    right_low: Words,
    right_counts: Words,
    high: Words,
    low: Words,
    counts: Words,
) -> int:
    i = 0
    j = 0
    rows = 0
    # Which side comes next is as good as random, so the loop takes both sides' heads without a
    # branch: the smaller key, the counts of the sides that have it.
    while i < len(left_low) and j < len(right_low):
        equal_high = left_high[i] == right_high[j]
        left_first = (left_high[i] < right_high[j]) | (equal_high & (left_low[i] <= right_low[j]))
        right_first = (left_high[i] > right_high[j]) | (equal_high & (left_low[i] >= right_low[j]))
        high[rows] = left_high[i] if left_first else right_high[j]
        low[rows] = left_low[i] if left_first else right_low[j]
        counts[rows] = left_counts[i] * np.uint64(left_first) + right_counts[j] * np.uint64(
            right_first
        )
        i += int(left_first)
        j += int(right_first)
        rows += 1
    for k in range(i, len(left_low)):
        high[rows] = left_high[k]
        low[rows] = left_low[k]
        counts[rows] = left_counts[k]
        rows += 1
    for k in range(j, len(right_low)):
        high[rows] = right_high[k]
        low[rows] = right_low[k]
        counts[rows] = right_counts[k]
        rows += 1
    return rows
