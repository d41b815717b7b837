"""Compact targets of positions, whatever they were made from.

All but the drawn tokens of a target follows from its context: its *head*. A position is a head, by
its number, and the tokens that were drawn for it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.corpus.ragged import Offsets, Rows, offsets_of, places, row_sums
from corpusmill.ngram_agg.compiled import compiled
from corpusmill.ngram_agg.hashing import mix
from corpusmill.ngram_agg.packing import Packing, Tokens, Words
from corpusmill.ngram_agg.ragged import take_ragged

# The weights of a position add up to this.
WEIGHT_UNITS = 65535
# The order of a position without a context, whose target is the observed token.
NO_CONTEXT = 255
# The `head` of a place that has no target.
NO_HEAD = np.uint32(0xFFFFFFFF)


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

    offsets: Offsets
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
        weights[np.repeat(np.arange(len(self)), sizes), places(sizes)] = self.weights
        draws = self.draws.astype(np.int64)
        rows, draw = np.repeat(np.arange(len(self)), draws), places(draws)
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
        positions, slots = np.repeat(np.arange(len(self)), sizes), places(sizes)
        tokens[positions, slots] = heads.tokens[heads.offsets[rows[positions]] + slots]
        draws = heads.draws[rows].astype(np.int64)
        positions, slots = np.repeat(np.arange(len(self)), draws), places(draws)
        tokens[positions, np.where(sizes[positions] > 0, head, 0) + slots] = self.drawn
        return tokens, weights


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
