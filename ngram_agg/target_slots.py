"""Compact targets as losses take them: as many slots for every position, in any order, fast."""

from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.ngram_agg.compiled import compiled, prefetch
from corpusmill.ngram_agg.heads import NO_HEAD, WEIGHT_UNITS, Heads
from corpusmill.ngram_agg.packing import Tokens, Words

# What a position needs is asked for so many positions before, and what that names a bit later.
_AHEAD = 16
_NEAR = 8
_UNIT = np.float32(1 / WEIGHT_UNITS)


class Slots:
    """Fills in the slots of `Targets.dense`, int32 and float32, for sequences of positions."""

    def __init__(self, heads: Heads, head: int) -> None:
        """Prepares heads for so many slots each."""
        self._heads = heads
        self._head = head
        self._left = heads.left()

    def fill(
        self,
        head: npt.NDArray[Any],
        drawn: Tokens,
        starts: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
        tokens: npt.NDArray[np.int32],
        weights: npt.NDArray[np.float32],
    ) -> None:
        """Fills in some sequences.

        Args:
          head: [sequences, length], the head of each position, or `NO_HEAD`.
          drawn: ids, of these and other sequences.
          starts: [sequences], where those of each sequence begin.
          places: [sequences], where each sequence goes in `tokens` and `weights`.
          tokens: of zeros, of shape [any, length, slots].
          weights: of zeros, of the same shape; those of a position will add up to 1.
        """
        heads = self._heads
        _fill_slots(
            head,
            drawn,
            starts,
            places,
            tokens.shape[2],
            self._head,
            heads.offsets,
            heads.tokens,
            heads.weights,
            heads.draws,
            self._left,
            tokens.reshape(-1),
            weights.reshape(-1),
        )


@compiled
def _fill_slots(
    head: npt.NDArray[Any],
    drawn: Tokens,
    starts: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
    slots: int,
    head_slots: int,
    offsets: npt.NDArray[np.int64],
    head_tokens: Tokens,
    head_weights: Words,
    draws: Words,
    left: Words,
    tokens: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float32],
) -> None:
    length = head.shape[1]
    for sequence in range(head.shape[0]):
        at = starts[sequence]
        to = places[sequence] * length * slots
        for i in range(length):
            if i + _AHEAD < length and head[sequence, i + _AHEAD] != NO_HEAD:
                ahead = np.int64(head[sequence, i + _AHEAD])
                prefetch(offsets, ahead)
                prefetch(draws, ahead)
                prefetch(left, ahead)
            if i + _NEAR < length and head[sequence, i + _NEAR] != NO_HEAD:
                near = offsets[head[sequence, i + _NEAR]]
                if near < len(head_tokens):
                    prefetch(head_tokens, near)
                    prefetch(head_weights, near)
            if head[sequence, i] == NO_HEAD:
                to += slots
                continue
            row = np.int64(head[sequence, i])
            first = offsets[row]
            size = offsets[row + 1] - first
            # One loop an array: together they would not be seen to be apart in memory.
            for j in range(size):
                tokens[to + j] = head_tokens[first + j]
            for j in range(size):
                weights[to + j] = np.float32(head_weights[first + j]) * _UNIT
            count = np.int64(draws[row])
            if count:
                each = np.int64(left[row]) // count
                more = np.int64(left[row]) - each * count
                # An observed token stands in the first slot.
                slot = to + head_slots if size else to
                for j in range(count):
                    tokens[slot + j] = drawn[at + j]
                    weights[slot + j] = np.float32(each + (j < more)) * _UNIT
                at += count
            to += slots
