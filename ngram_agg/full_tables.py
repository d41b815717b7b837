"""Full next-token distributions, looked up by the tokens that stand before a position.

A context is read backwards, the token next to the position first, and filled up with the
end-of-document token, which no context holds. So the contexts of all orders live in one table, a
shorter context of a position is a prefix of its longer ones, and an n-gram of (context backwards,
next token) is an n-gram like those in counts: it is packed, spilled, merged and partitioned by
the same code.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.ragged import Rows, offsets_of
from corpusmill.ngram_agg.compiled import compiled, prefetch
from corpusmill.ngram_agg.counts_files import counts_packing, read_counts
from corpusmill.ngram_agg.counts_runs import CountsRun, empty_run, joined_runs
from corpusmill.ngram_agg.hash_index import EMPTY, ROW, build_index
from corpusmill.ngram_agg.hashing import hash_key
from corpusmill.ngram_agg.merging import merge_runs
from corpusmill.ngram_agg.packing import (
    Key,
    Packing,
    Tokens,
    Words,
    pack_columns,
    prefix_keys,
    unpack_columns,
)
from corpusmill.ngram_agg.partitions import Cut
from corpusmill.ngram_agg.ragged import take_ragged
from corpusmill.ngram_agg.saved_columns import Columns, cached_columns
from corpusmill.ngram_agg.table_checks import check_full_columns

# The time goes to waiting for memory: so many look-ups wait at once.
_BLOCK = 512


@dataclass(frozen=True)
class NextTokens:
    """Whole contexts with all that followed them.

    Attributes:
      high, low: keys of the contexts, with 0 for the next token.
      orders: uint8, tokens in each context.
      offsets: int64 [contexts + 1]; context i has the entries offsets[i] to offsets[i + 1].
      tokens: ids, rising within a context.
      cumulative: uint64, how often this or an earlier one of the context's tokens followed.
    """

    high: Words
    low: Words
    orders: Words
    offsets: Rows
    tokens: Tokens
    cumulative: Words

    def __len__(self) -> int:
        return len(self.low)


@dataclass(frozen=True)
class FullTable:
    """All next tokens of contexts, in memory or memory-mapped.

    Attributes:
      packing: of (context backwards, next token).
      columns: those of `NextTokens`, but for `orders`; and `slots`, an index of the keys.
    """

    packing: Packing
    columns: Mapping[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["low"])

    @property
    def nbytes(self) -> int:
        return sum(column.nbytes for column in self.columns.values())

    @property
    def index(self) -> "ContextIndex":
        columns = self.columns
        return ContextIndex(self.packing, columns["high"], columns["low"], columns["slots"])


def load_full_table(counts: str, orders: range, min_count: int) -> FullTable:
    """The full distributions of a counts dataset, memory-mapped.

    The table is built in this process, which takes the memory of a few tables, and kept in the
    folder for temporary files, so that the next call and other processes find it.

    Args:
      counts: path or URL of a counts dataset.
      orders: lengths of contexts.
      min_count: contexts seen fewer times are left out.
    """
    manifest = read_manifest(counts, "counts")
    packing = counts_packing(manifest)

    def make() -> Columns:
        files = manifest.data_urls(counts)
        return dict(build_table(packing, read_contexts(files, packing, orders, min_count)).columns)

    made_of = f"{manifest.content_hash[:32]}-{orders[0]}-{orders[-1]}-{min_count}"
    folder = os.path.join(tempfile.gettempdir(), f"corpusmill-full-{made_of}")
    check = partial(check_full_columns, packing=packing)
    return FullTable(packing, cached_columns(folder, make, check))


def build_table(packing: Packing, parts: Iterable[NextTokens]) -> FullTable:
    """The table of all contexts of some parts, by rising keys."""
    found = [_no_contexts(packing), *parts]
    high, low, tokens, cumulative = (
        np.concatenate([getattr(part, name) for part in found])
        for name in ("high", "low", "tokens", "cumulative")
    )
    offsets = offsets_of(np.concatenate([np.diff(part.offsets) for part in found]))
    rows = sorted_rows(high, low)
    columns = {"high": high[rows], "low": low[rows], "offsets": offsets_of(np.diff(offsets)[rows])}
    columns["tokens"] = take_ragged(tokens, offsets, rows)
    columns["cumulative"] = take_ragged(cumulative, offsets, rows)
    columns["slots"] = build_index(columns["high"], columns["low"])
    return FullTable(packing, columns)


def read_contexts(
    files: Iterable[str], packing: Packing, orders: range, min_count: int
) -> Iterator[NextTokens]:
    """`forward_contexts` of the files of a counts dataset."""
    blocks = (block for file in files for block in read_counts(file, packing))
    return forward_contexts(packing, blocks, orders, min_count)


def forward_contexts(
    packing: Packing, blocks: Iterable[CountsRun], orders: range, min_count: int
) -> Iterator[NextTokens]:
    """The contexts of counts, order by order within each block.

    Args:
      packing: of the n-grams.
      blocks: counts, n-grams rising from block to block.
      orders: lengths of contexts.
      min_count: contexts seen fewer times are left out.
    """
    held = {order: empty_run(packing.shortened(order + 1)) for order in orders}
    for block in blocks:
        for order in orders:
            # What a block ends with may go on in the next one: a context, an n-gram even.
            run = merge_runs([held[order], block.order(order)])
            last = _last_context(run)
            held[order] = run[last:]
            yield _contexts_of_order(packing, run[:last], min_count)
    for run in held.values():
        yield _contexts_of_order(packing, run, min_count)


def _contexts_of_order(packing: Packing, run: CountsRun, min_count: int) -> NextTokens:
    """Contexts of one order from their n-grams, sorted as they are read."""
    first, found = _contexts_of(run, min_count)
    *context, _ = unpack_columns(run.packing, run.high[first], run.low[first])
    filling = [np.full(len(first), packing.end_of_document, packing.token_dtype)]
    filling *= packing.max_order - run.packing.max_order
    nothing = np.zeros(len(first), packing.token_dtype)
    high, low = pack_columns(packing, [*reversed(context), *filling, nothing])
    orders = np.full(len(first), run.packing.max_order, np.uint8)
    return NextTokens(high, low, orders, *found)


def backward_contexts(
    packing: Packing, runs: Iterable[CountsRun], min_count: int
) -> Iterator[NextTokens]:
    """The contexts of sorted (context backwards, next token) n-grams, of all orders together.

    Args:
      packing: of the n-grams.
      runs: all n-grams of each context; keys rise from run to run.
      min_count: contexts seen fewer times are left out.
    """
    mask = np.uint64((1 << packing.token_bits) - 1)
    for run in _whole_contexts(packing, runs):
        first, found = _contexts_of(run, min_count)
        high, low = run.high[first], run.low[first] & ~mask
        yield NextTokens(high, low, context_lengths(packing, high, low), *found)


def _contexts_of(run: CountsRun, min_count: int) -> tuple[Rows, tuple[Rows, Tokens, Words]]:
    """The first rows of the contexts that were seen often enough; offsets, tokens, cumulative."""
    first = np.empty(len(run), np.int64)
    offsets = np.zeros(len(run) + 1, np.int64)
    tokens = np.empty(len(run), run.packing.token_dtype)
    cumulative = np.empty(len(run), np.uint64)
    contexts, entries = _collect_contexts(
        run.high,
        run.low,
        run.counts,
        run.packing.token_bits,
        min_count,
        first,
        offsets,
        tokens,
        cumulative,
    )
    # Copies: what is cut off need not be kept.
    return first[:contexts].copy(), (
        offsets[: contexts + 1].copy(),
        tokens[:entries].copy(),
        cumulative[:entries].copy(),
    )


def backward_key(packing: Packing, context: Cut) -> Key:
    """The key of a context in a `FullTable`: its tokens backwards, filled up."""
    filling = (packing.end_of_document,) * (packing.max_order - len(context))
    return prefix_keys(packing, (*reversed(context), *filling))[0]


def context_lengths(packing: Packing, high: Words, low: Words) -> Words:
    """How many tokens the contexts with these keys have, uint8."""
    *context, _ = unpack_columns(packing, high, low)
    lengths = np.zeros(len(low), np.uint8)
    for column in context:
        lengths += column != packing.end_of_document
    return lengths


def backward_run(part: CountsRun, orders: Iterable[int], min_count: int) -> CountsRun:
    """The (context backwards, next token) n-grams of contexts of some orders.

    Args:
      part: counts of all n-grams between two of them, so that only the first and the last context
        of an order can have n-grams elsewhere too.
      orders: lengths of contexts.
      min_count: contexts seen fewer times are left out, unless they can have n-grams elsewhere.
    """
    packing = part.packing
    keys, counts = [], []
    for order in orders:
        run = _without_rare_contexts(part.order(order), min_count)
        *context, tokens = run.columns()
        filling = [np.full(len(run), packing.end_of_document, packing.token_dtype)]
        columns = [*reversed(context), *(filling * (packing.max_order - order)), tokens]
        keys.append(pack_columns(packing, columns))
        counts.append(run.counts)
    high = np.concatenate([high for high, _ in keys])
    low = np.concatenate([low for _, low in keys])
    rows = sorted_rows(high, low)
    return CountsRun(packing, high[rows], low[rows], np.concatenate(counts)[rows])


def sorted_rows(high: Words, low: Words) -> Rows:
    """As `np.lexsort((low, high))`, but with the faster sort of single words."""
    if high.any():
        rows = np.argsort(low)
        return rows[np.argsort(high[rows], kind="stable")]
    return np.argsort(low)


def _without_rare_contexts(run: CountsRun, min_count: int) -> CountsRun:
    if not len(run):
        return run
    starts = _context_starts(run)
    keep = np.add.reduceat(run.counts, starts) >= min_count
    keep[[0, -1]] = True
    rows = np.repeat(keep, np.diff(starts, append=len(run)))
    return CountsRun(run.packing, run.high[rows], run.low[rows], run.counts[rows])


def _whole_contexts(packing: Packing, runs: Iterable[CountsRun]) -> Iterator[CountsRun]:
    """The same n-grams in runs that end where a context ends."""
    held = empty_run(packing)
    for run in runs:
        if len(held):
            run = joined_runs([held, run])
        last = _last_context(run)
        yield run[:last]
        held = run[last:]
    yield held


def _last_context(run: CountsRun) -> int:
    """The row at which the n-grams of the last context begin."""
    if not len(run):
        return 0
    bits = run.packing.token_bits
    high, low = run.key(len(run) - 1)
    return run.lower_bound((high, low >> bits << bits))


def _context_starts(run: CountsRun) -> Rows:
    """Rows at which the n-grams of another context begin."""
    bits = np.uint64(run.packing.token_bits)
    low = run.low >> bits
    starts = np.ones(len(run), bool)
    starts[1:] = (low[1:] != low[:-1]) | (run.high[1:] != run.high[:-1])
    return np.flatnonzero(starts)


def _no_contexts(packing: Packing) -> NextTokens:
    words: Words = np.empty(0, np.uint64)
    return NextTokens(
        np.empty(0, packing.high_dtype),
        words,
        np.empty(0, np.uint8),
        np.zeros(1, np.int64),
        np.empty(0, packing.token_dtype),
        words,
    )


@dataclass(frozen=True)
class ContextIndex:
    """Where the contexts of a table stand in it.

    Attributes:
      packing: of (context backwards, next token).
      high, low: their keys.
      slots: an index of the keys.
    """

    packing: Packing
    high: Words
    low: Words
    slots: Words

    def longest(self, high: Words, low: Words, lengths: Words, orders: range) -> Rows:
        """The rows of the longest contexts of some orders before positions.

        Args:
          high: keys of the longest context before each position, the upper words.
          low: the lower words.
          lengths: tokens in it.
          orders: lengths of contexts that may be found.

        Returns:
          int64 [positions], -1 where there is none.
        """
        rows = np.empty(len(low), np.int64)
        _find_rows(
            high,
            low,
            lengths,
            *_prefixes(self.packing),
            orders[0],
            orders[-1],
            self.slots,
            self.high,
            self.low,
            rows,
        )
        return rows


def full_distributions(
    table: FullTable, rows: Rows, observed: Tokens
) -> tuple[Rows, Tokens, npt.NDArray[np.float32]]:
    """y_all of each position: the whole distribution of its context.

    Args:
      table: the full table.
      rows: of the positions' contexts, from `ContextIndex.longest`.
      observed: the token at each position, which is all there is without a context.

    Returns:
      Offsets, int64 [positions + 1], tokens and probabilities: position i has the entries
      offsets[i] to offsets[i + 1].
    """
    starts = table.columns["offsets"]
    sizes = np.where(rows < 0, 1, starts[rows + 1] - starts[rows])
    offsets = offsets_of(sizes)
    tokens = np.empty(offsets[-1], table.packing.token_dtype)
    probabilities = np.empty(offsets[-1], np.float32)
    entries = table.columns["tokens"], table.columns["cumulative"]
    _copy_distributions(rows, observed, starts, *entries, offsets, tokens, probabilities)
    return offsets, tokens, probabilities


def _prefixes(packing: Packing) -> tuple[Words, Words, Words, Words]:
    """For every order: masks of the context's tokens in a key, and the filling of the others."""
    masks, fillings = [], []
    bits = packing.token_bits
    for order in range(packing.max_order + 1):
        key = ((1 << order * bits) - 1) << (packing.length - order) * bits
        masks.append((key >> 64, key & (1 << 64) - 1))
        high, low = backward_key(packing, ())
        fillings.append((high & ~masks[-1][0], low & ~masks[-1][1]))
    words = np.array([masks, fillings], np.uint64)
    return (
        words[0, :, 0].copy(),
        words[0, :, 1].copy(),
        words[1, :, 0].copy(),
        words[1, :, 1].copy(),
    )


@compiled
def _collect_contexts(
    high: Words,
    low: Words,
    counts: Words,
    bits: int,
    min_count: int,
    first: Rows,
    offsets: Rows,
    tokens: Tokens,
    cumulative: Words,
) -> tuple[int, int]:
    shift = np.uint64(bits)
    mask = (np.uint64(1) << shift) - np.uint64(1)
    contexts = 0
    entries = 0
    total = np.uint64(0)
    start = 0
    for row in range(len(low)):
        total += counts[row]
        tokens[entries] = low[row] & mask
        cumulative[entries] = total
        entries += 1
        if (
            row + 1 == len(low)
            or (low[row] >> shift) != (low[row + 1] >> shift)
            or high[row] != high[row + 1]
        ):
            if total >= np.uint64(min_count):
                first[contexts] = start
                contexts += 1
                offsets[contexts] = entries
            else:
                entries = offsets[contexts]
            start = row + 1
            total = np.uint64(0)
    return contexts, entries


@compiled
def _find_rows(
    high: Words,
    low: Words,
    lengths: Words,
    mask_high: Words,
    mask_low: Words,
    filling_high: Words,
    filling_low: Words,
    min_order: int,
    max_order: int,
    slots: Words,
    table_high: Words,
    table_low: Words,
    rows: Rows,
) -> None:
    # One loop asks for the slots of a block of positions, the next one for the keys that these
    # name, and only then are they looked at.
    last_slot = np.uint64(len(slots) - 1)
    above = np.empty(_BLOCK, np.uint64)
    below = np.empty(_BLOCK, np.uint64)
    words = np.empty(_BLOCK, np.uint64)
    first_slots = np.empty(_BLOCK, np.uint64)
    waiting = np.empty(_BLOCK, np.int64)
    for start in range(0, len(low), _BLOCK):
        size = min(_BLOCK, len(low) - start)
        for j in range(size):
            waiting[j] = start + j
            rows[start + j] = -1
        for order in range(max_order, min_order - 1, -1):
            for j in range(size):
                i = waiting[j]
                above[j] = (np.uint64(high[i]) & mask_high[order]) | filling_high[order]
                below[j] = (low[i] & mask_low[order]) | filling_low[order]
                words[j] = hash_key(above[j], below[j])
            for j in range(size):
                first_slots[j] = slots[words[j] & last_slot]
            for j in range(size):
                if (first_slots[j] ^ words[j]) <= ROW and first_slots[j] != EMPTY:
                    prefetch(table_low, first_slots[j] & ROW)
                    prefetch(table_high, first_slots[j] & ROW)
            left = 0
            for j in range(size):
                i = waiting[j]
                place = words[j] & last_slot
                slot = first_slots[j]
                while lengths[i] >= order and slot != EMPTY:
                    row = slot & ROW
                    is_it = (slot ^ words[j]) <= ROW
                    if is_it and table_low[row] == below[j] and table_high[row] == above[j]:
                        rows[i] = row
                        break
                    place = (place + np.uint64(1)) & last_slot
                    slot = slots[place]
                waiting[left] = i
                left += int(rows[i] < 0)
            size = left


@compiled
def _copy_distributions(
    rows: npt.NDArray[np.int64],
    observed: Tokens,
    table_offsets: npt.NDArray[np.int64],
    table_tokens: Tokens,
    cumulative: Words,
    offsets: npt.NDArray[np.int64],
    tokens: Tokens,
    probabilities: npt.NDArray[np.float32],
) -> None:
    for i in range(len(rows)):
        out = offsets[i]
        if rows[i] < 0:
            tokens[out] = observed[i]
            probabilities[out] = 1
        else:
            last = table_offsets[rows[i] + 1]
            total = np.float64(cumulative[last - 1])
            previous = np.uint64(0)
            for entry in range(table_offsets[rows[i]], last):
                tokens[out] = table_tokens[entry]
                probabilities[out] = np.float64(cumulative[entry] - previous) / total
                previous = cumulative[entry]
                out += 1
