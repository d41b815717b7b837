"""Compact targets: for every position a few weighted tokens that stand for a whole distribution.

The schemes, their variances and the proof that `retain` and `split` are unbiased are in
docs/targets.md; the idea is from arXiv 2407.02819.

All but the drawn tokens of a target follows from its context: its *head*. A position is a head, by
its number, and the tokens that were drawn for it.
"""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.corpus.datasets import hash_listing, read_manifest
from corpusmill.ngram_agg.compiled import compiled, prefetch
from corpusmill.ngram_agg.counts_files import counts_packing, counts_urls
from corpusmill.ngram_agg.full_tables import ContextIndex, NextTokens, Rows, read_contexts
from corpusmill.ngram_agg.hash_index import build_index
from corpusmill.ngram_agg.hashing import mix
from corpusmill.ngram_agg.packing import Packing, Tokens, Words
from corpusmill.ngram_agg.positions import Positions
from corpusmill.ngram_agg.ragged import offsets_of, row_sums, take_ragged
from corpusmill.ngram_agg.saved_columns import Columns, cached_columns, open_columns, save_columns
from corpusmill.ngram_agg.table_checks import check_target_columns
from corpusmill.ngram_agg.target_options import MAX_HEAD, TargetOptions

# The weights of a position add up to this.
WEIGHT_UNITS = 65535
# The order of a position without a context, whose target is the observed token.
NO_CONTEXT = 255
# The time goes to waiting for memory: what a position needs is asked for so many positions before,
# and so many draws wait at once.
_AHEAD = 16
_BATCH = 512


@dataclass(frozen=True)
class Heads:
    """What targets have in common with others of their context.

    Attributes:
      offsets: int64 [heads + 1]; head i has the entries offsets[i] to offsets[i + 1].
      tokens: ids, the most frequent ones first.
      weights: uint16, theirs, above 0; what a head's miss to `WEIGHT_UNITS` is the drawn tokens'.
      orders: uint8 [heads], tokens in the context; `NO_CONTEXT` without one.
      draws: uint16 [heads], tokens drawn for each position; 1 and no entries where the target is
        the observed token, which takes the place of a drawn one.
    """

    offsets: Rows
    tokens: Tokens
    weights: Words
    orders: Words
    draws: Words

    def __len__(self) -> int:
        return len(self.orders)

    @property
    def values(self) -> tuple[Tokens, Words, Words, Words]:
        """All but the offsets."""
        return self.tokens, self.weights, self.orders, self.draws

    def take(self, rows: Rows) -> "Heads":
        """Some of them, in this order."""
        return Heads(
            offsets_of(np.diff(self.offsets)[rows]),
            take_ragged(self.tokens, self.offsets, rows),
            take_ragged(self.weights, self.offsets, rows),
            self.orders[rows],
            self.draws[rows],
        )

    def left(self) -> Words:
        """What each head's weights miss to `WEIGHT_UNITS`, the drawn tokens', uint16 [heads]."""
        return (WEIGHT_UNITS - row_sums(self.weights, self.offsets)).astype(np.uint16)

    def slot_weights(self, head: int, tail_draws: int) -> Words:
        """The weights in `Targets.dense` of positions with these heads, of shape [heads, slots]."""
        weights = np.zeros((len(self), head + tail_draws), np.uint16)
        sizes = np.diff(self.offsets)
        weights[np.repeat(np.arange(len(self)), sizes), _places(sizes)] = self.weights
        draws = self.draws.astype(np.int64)
        rows, draw = np.repeat(np.arange(len(self)), draws), _places(draws)
        left = (WEIGHT_UNITS - weights.sum(axis=1, dtype=np.int64))[rows]
        slots = np.where(sizes[rows] > 0, head, 0) + draw
        weights[rows, slots] = left // draws[rows] + (draw < left % draws[rows])
        return weights


def join_heads(parts: Iterable[Heads]) -> Heads:
    """The heads of one or more parts, one part after the other."""
    found = list(parts)
    sizes = np.concatenate([np.diff(part.offsets) for part in found])
    names = ("tokens", "weights", "orders", "draws")
    columns = (np.concatenate([getattr(part, name) for part in found]) for name in names)
    return Heads(offsets_of(sizes), *columns)


def observed_heads(packing: Packing) -> Heads:
    """The heads of positions whose target is the observed token.

    The first one is of those without a context, number 1 + k of those with a context of k tokens.
    """
    orders = np.arange(-1, packing.max_order + 1).astype(np.uint8)
    orders[0] = NO_CONTEXT
    return Heads(
        np.zeros(len(orders) + 1, np.int64),
        np.empty(0, packing.token_dtype),
        np.empty(0, np.uint16),
        orders,
        np.ones(len(orders), np.uint16),
    )


@dataclass(frozen=True)
class Targets:
    """Compact targets of some positions.

    Attributes:
      heads: what `head` counts.
      head: [positions], each position's head.
      drawn: ids, `heads.draws[head[i]]` of position i after those of the positions before it. The
        weight that its head leaves is divided among them evenly, the first ones get a unit more.
    """

    heads: Heads
    head: npt.NDArray[Any]
    drawn: Tokens

    def __len__(self) -> int:
        return len(self.head)

    def split(self, sizes: Iterable[int]) -> Iterator["Targets"]:
        """The targets of the first so many positions, of the next ones, ..."""
        starts = offsets_of(self.heads.draws[self.head])
        first = 0
        for size in sizes:
            last = first + size
            drawn = self.drawn[starts[first] : starts[last]]
            yield Targets(self.heads, self.head[first:last], drawn)
            first = last

    def compact(self) -> "Targets":
        """The same targets with no heads but their own."""
        used, number = number_rows(self.head)
        return Targets(self.heads.take(used), number, self.drawn)

    def dense(self, head: int, tail_draws: int) -> tuple[Tokens, Words]:
        """All tokens and weights of each position, in the same places for all.

        Args:
          head: slots for the tokens of a head.
          tail_draws: slots for drawn tokens, which come after these; an observed token stands in
            the first slot of all.

        Returns:
          Ids and weights (uint16, `WEIGHT_UNITS` in all), of shape [positions, head + tail_draws];
          0 and 0 in slots that aren't used.
        """
        tokens = np.zeros((len(self), head + tail_draws), self.drawn.dtype)
        weights = self.heads.take(self.head.astype(np.int64)).slot_weights(head, tail_draws)
        heads, rows = self.heads, self.head.astype(np.int64)
        sizes = heads.offsets[rows + 1] - heads.offsets[rows]
        positions, slots = np.repeat(np.arange(len(self)), sizes), _places(sizes)
        tokens[positions, slots] = heads.tokens[heads.offsets[rows[positions]] + slots]
        draws = heads.draws[rows].astype(np.int64)
        positions, slots = np.repeat(np.arange(len(self)), draws), _places(draws)
        tokens[positions, np.where(sizes[positions] > 0, head, 0) + slots] = self.drawn
        return tokens, weights


def _places(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0, 1, ... for each of the values of rows with so many values."""
    return np.arange(sizes.sum()) - np.repeat(offsets_of(sizes)[:-1], sizes)


def number_rows(rows: npt.NDArray[Any]) -> tuple[Rows, Words]:
    """As `np.unique(rows, return_inverse=True)` of numbers that aren't negative, but faster.

    Returns:
      The distinct ones, int64, rising; and uint32 of the rows' shape, the place of each among them.
    """
    used = np.empty(len(rows), np.int64)
    number = np.empty(len(rows), np.uint32)
    slots = np.full(1 << (2 * len(rows)).bit_length(), NO_HEAD)
    used = used[: _number_distinct(rows, slots, used, number)]
    order = np.argsort(used)
    place = np.empty(len(used), np.uint32)
    place[order] = np.arange(len(used), dtype=np.uint32)
    return used[order], place[number]


# The `head` of a place that has no target.
NO_HEAD = np.uint32(0xFFFFFFFF)


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
    _make_guides(tail_offsets, cumulative, guides)
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


def load_target_table(counts: str, options: TargetOptions, cache: str | None = None) -> TargetTable:
    """The table of a counts dataset, memory-mapped and shared by the processes of a machine.

    The first process that asks builds it, which takes the memory of a few tables.

    Args:
      counts: path or URL of the dataset.
      options: what the targets are made of.
      cache: a local folder; by default the one for temporary files.
    """
    manifest = read_manifest(counts, "counts")
    packing = counts_packing(manifest)

    def make() -> Columns:
        files = counts_urls(counts, manifest)
        contexts = read_contexts(files, packing, options.orders, options.min_count)
        return make_target_table(packing, options, contexts).columns()

    made_of = hash_listing([manifest.content_hash, dataclasses.asdict(options)])
    folder = os.path.join(cache or tempfile.gettempdir(), f"corpusmill-targets-{made_of[:32]}")
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
    _draw(
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
def _scaled(word: np.uint64, size: np.uint64) -> np.uint64:
    """A word, evenly distributed over 64 bits, as a number below `size`."""
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    low = (word & mask) * (size & mask)
    middle = (word >> half) * (size & mask) + (low >> half)
    other = (word & mask) * (size >> half) + (middle & mask)
    return (word >> half) * (size >> half) + (middle >> half) + (other >> half)


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


@compiled
def _make_guides(offsets: Rows, cumulative: Words, guides: Words) -> None:
    for row in range(len(offsets) - 1):
        first = offsets[row]
        size = np.uint64(offsets[row + 1] - first)
        entry = first
        for stretch in range(size):
            # The lowest point of the stretch, as `_scaled` rounds it; a product below 2^64 has no
            # need of that function.
            total = cumulative[offsets[row + 1] - 1]
            lowest = total // size * np.uint64(stretch) + total % size * np.uint64(stretch) // size
            while cumulative[entry] <= lowest:
                entry += 1
            guides[first + stretch] = entry - first


@compiled
def _draw(
    rows: Rows,
    hashes: Words,
    observed: Tokens,
    draws: Words,
    offsets: Rows,
    tokens: Tokens,
    cumulative: Words,
    guides: Words,
    drawn: Tokens,
) -> None:
    contexts = len(offsets) - 1
    # A batch of draws asks for the memory that each of them needs before the first one waits.
    words = np.empty(_BATCH + MAX_HEAD, np.uint64)
    firsts = np.empty(_BATCH + MAX_HEAD, np.int64)
    lasts = np.empty(_BATCH + MAX_HEAD, np.int64)
    places = np.empty(_BATCH + MAX_HEAD, np.int64)
    size = 0
    to = 0
    for i in range(len(rows)):
        if i + _AHEAD < len(rows):
            far = min(rows[i + _AHEAD], contexts)
            prefetch(draws, rows[i + _AHEAD])
            prefetch(offsets, far)
        row = rows[i]
        if row >= contexts:
            drawn[to] = observed[i]
            to += 1
        else:
            for draw in range(draws[row]):
                words[size] = mix(hashes[i] + np.uint64(draw))
                firsts[size] = offsets[row]
                lasts[size] = offsets[row + 1] - 1
                places[size] = to
                prefetch(cumulative, lasts[size])
                entries = np.uint64(offsets[row + 1] - offsets[row])
                prefetch(guides, offsets[row] + np.int64(_scaled(words[size], entries)))
                size += 1
                to += 1
        if size >= _BATCH or i + 1 == len(rows):
            for j in range(size):
                entries = np.uint64(lasts[j] + 1 - firsts[j])
                stretch = np.int64(_scaled(words[j], entries))
                firsts[j] += guides[firsts[j] + stretch]
                prefetch(cumulative, firsts[j])
                prefetch(tokens, firsts[j])
            for j in range(size):
                wanted = _scaled(words[j], cumulative[lasts[j]])
                entry = firsts[j]
                while cumulative[entry] <= wanted:
                    entry += 1
                drawn[places[j]] = tokens[entry]
            size = 0


@compiled
def _number_distinct(head: npt.NDArray[Any], slots: Words, used: Rows, number: Words) -> int:
    mask = np.uint64(len(slots) - 1)
    count = 0
    for i in range(len(head)):
        place = mix(np.uint64(head[i])) & mask
        while slots[place] != NO_HEAD and used[slots[place]] != head[i]:
            place = (place + np.uint64(1)) & mask
        if slots[place] == NO_HEAD:
            slots[place] = count
            used[count] = head[i]
            count += 1
        number[i] = slots[place]
    return count
