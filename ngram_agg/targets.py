"""Compact targets: for every position a few weighted tokens that stand for a whole distribution.

The schemes, their variances and the proof that `retain` and `split` are unbiased are in
docs/targets.md; the idea is from arXiv 2407.02819.
"""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from corpusmill.corpus.datasets import hash_listing, read_manifest
from corpusmill.corpus.ragged import Rows, offsets_of
from corpusmill.ngram_agg.compiled import compiled
from corpusmill.ngram_agg.counts_files import counts_packing
from corpusmill.ngram_agg.full_tables import ContextIndex, NextTokens, read_contexts
from corpusmill.ngram_agg.hash_index import build_index
from corpusmill.ngram_agg.heads import (
    NO_CONTEXT,
    WEIGHT_UNITS,
    Heads,
    Targets,
    join_heads,
    observed_heads,
)
from corpusmill.ngram_agg.packing import Packing, Tokens, Words
from corpusmill.ngram_agg.positions import Positions
from corpusmill.ngram_agg.saved_columns import Columns, cached_columns, open_columns, save_columns
from corpusmill.ngram_agg.table_checks import check_target_columns
from corpusmill.ngram_agg.tail_draws import draw_tails, make_guides
from corpusmill.ngram_agg.target_options import TargetOptions

_INDEX = ("high", "low", "slots")
_TAILS = ("tail_offsets", "tail_tokens", "tail_cumulative", "tail_guides")


@dataclass(frozen=True)
class TargetTable:
    """What targets of certain options take from each context, in memory or memory-mapped.

    Attributes:
      packing: of (context backwards, next token).
      options: what the targets are made of.
      index: the contexts.
      heads: of the contexts, then the `observed_heads`.
      tail_offsets: int64 [contexts + 1]: context i has the entries tail_offsets[i] to
        tail_offsets[i + 1] of `tail_tokens` (ids outside its head, rising) and `tail_cumulative`
        (how often this or an earlier one of them followed, uint64).
      tail_guides: uint32, beside these: the points from 0 to the last `cumulative` are divided
        into as many even stretches as the context has entries, and this says how many entries
        aren't above the lowest point of each stretch, so that a draw begins its search there.
    """

    packing: Packing
    options: TargetOptions
    index: ContextIndex
    heads: Heads
    tail_offsets: Rows
    tail_tokens: Tokens
    tail_cumulative: Words
    tail_guides: Words

    def __len__(self) -> int:
        return len(self.index.low)

    def columns(self) -> Columns:
        """Its arrays by name, as they are saved."""
        heads = {f"head_{each.name}": getattr(self.heads, each.name) for each in _HEAD_FIELDS}
        index = {name: getattr(self.index, name) for name in _INDEX}
        return {**index, **heads, **{name: getattr(self, name) for name in _TAILS}}

    @classmethod
    def of_columns(
        cls, packing: Packing, options: TargetOptions, columns: Columns
    ) -> "TargetTable":
        """The inverse of `columns`."""
        index = ContextIndex(packing, *(columns[name] for name in _INDEX))
        heads = Heads(*(columns[f"head_{each.name}"] for each in _HEAD_FIELDS))
        return cls(packing, options, index, heads, *(columns[name] for name in _TAILS))


_HEAD_FIELDS = dataclasses.fields(Heads)


def make_target_table(
    packing: Packing, options: TargetOptions, parts: Iterable[NextTokens]
) -> TargetTable:
    """Chooses the heads of all contexts of some parts."""
    found = [_choose(packing, options, part) for part in parts]
    empty = np.empty(0, np.uint64)
    high = np.concatenate([empty.astype(packing.high_dtype), *(each.index.high for each in found)])
    low = np.concatenate([empty, *(each.index.low for each in found)])
    tail_sizes = [np.diff(each.tail_offsets) for each in found]
    tail_offsets = offsets_of(np.concatenate([np.empty(0, np.int64), *tail_sizes]))
    cumulative = np.concatenate([empty, *(each.tail_cumulative for each in found)])
    guides = np.empty(len(cumulative), np.uint32)
    make_guides(tail_offsets, cumulative, guides)
    return TargetTable(
        packing,
        options,
        ContextIndex(packing, high, low, build_index(high, low)),
        join_heads([*(each.heads for each in found), observed_heads(packing)]),
        tail_offsets,
        np.concatenate([np.empty(0, packing.token_dtype), *(each.tail_tokens for each in found)]),
        cumulative,
        guides,
    )


def _choose(packing: Packing, options: TargetOptions, part: NextTokens) -> TargetTable:
    """The part of a table that is about some contexts, without an index."""
    contexts, entries = len(part), len(part.tokens)
    head_sizes = np.empty(contexts, np.int64)
    head_tokens = np.empty(entries, packing.token_dtype)
    head_weights = np.empty(entries, np.uint16)
    draws = np.empty(contexts, np.uint16)
    tail_sizes = np.empty(contexts, np.int64)
    tail_tokens = np.empty(entries, packing.token_dtype)
    tail_cumulative = np.empty(entries, np.uint64)
    in_heads, in_tails = _choose_heads(
        part.offsets,
        part.tokens,
        part.cumulative,
        options.head,
        options.tail_draws,
        options.scheme == "retain",
        head_sizes,
        head_tokens,
        head_weights,
        draws,
        tail_sizes,
        tail_tokens,
        tail_cumulative,
    )
    # Copies: what is cut off need not be kept.
    heads = Heads(
        offsets_of(head_sizes),
        head_tokens[:in_heads].copy(),
        head_weights[:in_heads].copy(),
        part.orders,
        draws,
    )
    return TargetTable(
        packing,
        options,
        ContextIndex(packing, part.high, part.low, part.low[:0]),
        heads,
        offsets_of(tail_sizes),
        tail_tokens[:in_tails].copy(),
        tail_cumulative[:in_tails].copy(),
        head_tokens[:0],
    )


def load_target_table(counts: str, options: TargetOptions) -> TargetTable:
    """The table of a counts dataset, memory-mapped and shared by the processes of a machine.

    The first process that asks builds it, which takes the memory of a few tables, in the folder
    for temporary files.

    Args:
      counts: path or URL of the dataset.
      options: what the targets are made of.

    Raises:
      UsageError: the options need longer contexts than were counted.
    """
    manifest = read_manifest(counts, "counts")
    options.check_counts(counts, manifest)
    packing = counts_packing(manifest)

    def make() -> Columns:
        files = manifest.data_urls(counts)
        contexts = read_contexts(files, packing, options.orders, options.min_count)
        return make_target_table(packing, options, contexts).columns()

    made_of = hash_listing([manifest.content_hash, dataclasses.asdict(options)])
    folder = os.path.join(tempfile.gettempdir(), f"corpusmill-targets-{made_of[:32]}")
    columns = cached_columns(folder, make, _check_of(packing, options))
    return TargetTable.of_columns(packing, options, columns)


def _check_of(packing: Packing, options: TargetOptions) -> Callable[[Columns], None]:
    """Raises DataError where columns aren't those of such a table."""
    return partial(
        check_target_columns, packing=packing, head=options.head, tail_draws=options.tail_draws
    )


def save_target_table(folder: str, table: TargetTable) -> None:
    """Writes a table into a folder, local or remote; writing it again replaces it."""
    save_columns(folder, table.columns())


def open_target_table(
    folder: str, packing: Packing, options: TargetOptions, made_of: Any = None
) -> TargetTable:
    """A saved table, memory-mapped; `made_of` as in `open_columns`."""
    columns = open_columns(folder, _check_of(packing, options), made_of)
    return TargetTable.of_columns(packing, options, columns)


def make_targets(table: TargetTable, positions: Positions) -> Targets:
    """The targets of positions; whatever was kept of their contexts must be in the table."""
    rows = table.index.longest(
        positions.high, positions.low, positions.lengths, table.options.orders
    )
    size = replace_observed(table.options, table.heads, rows, positions.tokens)
    drawn = draw(table, rows, positions.hashes, positions.tokens, size)
    return Targets(table.heads, rows, drawn)


def draw(table: TargetTable, rows: Rows, hashes: Words, observed: Tokens, size: int) -> Tokens:
    """Draws tokens from the tails of contexts.

    Args:
      table: of the contexts.
      rows: int64 [positions], the head of each position in the table.
      hashes: uint64 [positions], which decide.
      observed: the token at each position, which stands for a drawn one for the `observed_heads`.
      size: how many tokens there will be.

    Returns:
      Ids [size], those of one position after those of the other.
    """
    drawn = np.empty(size, table.packing.token_dtype)
    draw_tails(
        rows,
        hashes,
        observed,
        table.heads.draws,
        table.tail_offsets,
        table.tail_tokens,
        table.tail_cumulative,
        table.tail_guides,
        drawn,
    )
    return drawn


def replace_observed(options: TargetOptions, heads: Heads, rows: Rows, observed: Tokens) -> int:
    """Puts in the `observed_heads` where the target is the observed token.

    Args:
      options: what the targets are made of.
      heads: of contexts, and the `observed_heads` as the last ones.
      rows: the head of each position's context, -1 without one; it is changed.
      observed: the token at each position.

    Returns:
      How many tokens are drawn for all the positions, observed ones included.
    """
    return int(
        _replace_observed(
            rows,
            observed,
            options.scheme == "split",
            heads.offsets,
            heads.tokens,
            heads.orders,
            heads.draws,
            int(np.flatnonzero(heads.orders == NO_CONTEXT)[0]),
        )
    )


@compiled
def _choose_heads(
    offsets: Rows,
    tokens: Tokens,
    cumulative: Words,
    most: int,
    most_draws: int,
    has_tail: bool,
    head_sizes: Rows,
    head_tokens: Tokens,
    head_weights: Words,
    draws: Words,
    tail_sizes: Rows,
    tail_tokens: Tokens,
    tail_cumulative: Words,
) -> tuple[int, int]:
    units = np.uint64(WEIGHT_UNITS)
    counts = np.zeros(most + 1, np.uint64)
    entries = np.zeros(most + 1, np.int64)
    weights = np.zeros(most + 1, np.uint64)
    rest = np.zeros(most + 1, np.uint64)
    in_heads = 0
    in_tails = 0
    for row in range(len(offsets) - 1):
        size = 0
        previous = np.uint64(0)
        for entry in range(offsets[row], offsets[row + 1]):
            count = cumulative[entry] - previous
            previous = cumulative[entry]
            # Tokens come by rising id, so a later one only passes those with smaller counts.
            if size < most or (most > 0 and count > counts[most - 1]):
                slot = size if size < most else most - 1
                size = min(size + 1, most)
                while slot > 0 and counts[slot - 1] < count:
                    counts[slot] = counts[slot - 1]
                    entries[slot] = entries[slot - 1]
                    slot -= 1
                counts[slot] = count
                entries[slot] = entry
        in_head = np.uint64(0)
        for slot in range(size):
            in_head += counts[slot]
        total = previous if has_tail else in_head
        # Largest remainders: units in proportion, rounded down, and what is left to those that
        # lost most (the first of equals; the tail, which comes last, is what nobody else gets).
        left = units
        for slot in range(size):
            share = counts[slot] * units
            weights[slot] = share // total
            rest[slot] = share % total
            left -= share // total
        rest[size] = ((total - in_head) * units) % total
        left -= ((total - in_head) * units) // total
        for _ in range(left):
            best = 0
            for slot in range(1, size + 1):
                if rest[slot] > rest[best]:
                    best = slot
            if best < size:
                weights[best] += np.uint64(1)
            rest[best] = 0
        # Weights fall like counts, so those without any are the last ones.
        tail_weight = units
        kept = 0
        while kept < size and weights[kept] > 0:
            head_tokens[in_heads] = tokens[entries[kept]]
            head_weights[in_heads] = weights[kept]
            tail_weight -= weights[kept]
            in_heads += 1
            kept += 1
        head_sizes[row] = kept
        draws[row] = 0
        tail_sizes[row] = 0
        if has_tail and tail_weight > 0:
            draws[row] = min(np.uint64(most_draws), tail_weight)
            previous = np.uint64(0)
            tail = np.uint64(0)
            for entry in range(offsets[row], offsets[row + 1]):
                is_head = False
                for slot in range(size):
                    is_head |= entries[slot] == entry
                if not is_head:
                    tail += cumulative[entry] - previous
                    tail_tokens[in_tails] = tokens[entry]
                    tail_cumulative[in_tails] = tail
                    in_tails += 1
                    tail_sizes[row] += 1
                previous = cumulative[entry]
    return in_heads, in_tails


@compiled
def _replace_observed(
    rows: Rows,
    observed: Tokens,
    is_split: bool,
    offsets: Rows,
    tokens: Tokens,
    orders: Words,
    draws: Words,
    no_context: int,
) -> int:
    drawn = 0
    for i in range(len(rows)):
        row = rows[i]
        if row < 0:
            row = no_context
        elif is_split:
            # What is not in the head stands for itself alone.
            in_head = False
            for j in range(offsets[row], offsets[row + 1]):
                in_head |= tokens[j] == observed[i]
            if not in_head:
                row = no_context + 1 + orders[row]
        rows[i] = row
        drawn += draws[row]
    return drawn
