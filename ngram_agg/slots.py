"""Compact targets as losses take them: as many slots for every position, in any order, fast."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ngram_agg.compiled import compiled, copy_word, prefetch
from ngram_agg.packing import Tokens, Words
from ngram_agg.targets import NO_HEAD, WEIGHT_UNITS, Heads

# What a position needs is asked for so many positions before, and what that names a bit later.
_AHEAD = 16
_NEAR = 8
# Heads that stand ready: of simplewiki's million those that three quarters of the positions have.
_READY = 1 << 16
_UNIT = np.float32(1 / WEIGHT_UNITS)


class Slots:
    """Fills in the slots of `Targets.dense`, int32 and float32, for sequences of positions."""

    def __init__(self, heads: Heads, head: int) -> None:
        """Prepares heads, the most used of which come first, for so many slots each."""
        self._heads = heads
        self._head = head
        self._left = heads.left()
        # The first ones stand ready as they are copied; all of them would take too much memory.
        ready = min(len(heads), _READY)
        self._tokens = np.zeros(ready * head, np.int32)
        self._weights = np.zeros(ready * head, np.float32)
        _spread_heads(
            heads.offsets[: ready + 1],
            heads.tokens,
            heads.weights,
            head,
            self._tokens,
            self._weights,
        )

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
          tokens: to be filled, of shape [any, length, slots].
          weights: of the same shape; those of a position add up to 1.
        """
        heads = self._heads
        _fill_slots(
            head,
            drawn,
            starts,
            places,
            tokens.shape[2],
            self._head,
            len(self._tokens) // max(1, self._head),
            self._tokens.view(np.uint8),
            self._weights.view(np.uint8),
            heads.offsets,
            heads.tokens,
            heads.weights,
            heads.draws,
            self._left,
            tokens.reshape(-1),
            weights.reshape(-1),
            tokens.reshape(-1).view(np.uint8),
            weights.reshape(-1).view(np.uint8),
        )


@compiled
def _spread_heads(
    offsets: npt.NDArray[np.int64],
    tokens: Tokens,
    weights: Words,
    slots: int,
    slot_tokens: npt.NDArray[np.int32],
    slot_weights: npt.NDArray[np.float32],
) -> None:
    for row in range(len(offsets) - 1):
        to = row * slots
        for i in range(offsets[row], offsets[row + 1]):
            slot_tokens[to] = tokens[i]
            slot_weights[to] = np.float32(weights[i]) * _UNIT
            to += 1


@compiled
def _fill_slots(
    head: npt.NDArray[Any],
    drawn: Tokens,
    starts: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
    slots: int,
    head_slots: int,
    ready: int,
    ready_tokens: npt.NDArray[np.uint8],
    ready_weights: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    head_tokens: Tokens,
    head_weights: Words,
    draws: Words,
    left: Words,
    tokens: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float32],
    token_bytes: npt.NDArray[np.uint8],
    weight_bytes: npt.NDArray[np.uint8],
) -> None:
    length = head.shape[1]
    # Two slots are copied at once, as a word.
    paired = head_slots // 2 * 8
    for sequence in range(head.shape[0]):
        at = starts[sequence]
        to = places[sequence] * length * slots
        for i in range(length):
            if i + _AHEAD < length and head[sequence, i + _AHEAD] != NO_HEAD:
                ahead = np.int64(head[sequence, i + _AHEAD])
                prefetch(offsets, ahead)
                prefetch(draws, ahead)
                if ahead < ready:
                    for j in range(0, 4 * head_slots, 64):
                        prefetch(ready_tokens, 4 * ahead * head_slots + j)
                        prefetch(ready_weights, 4 * ahead * head_slots + j)
            if i + _NEAR < length and head[sequence, i + _NEAR] != NO_HEAD:
                near = offsets[head[sequence, i + _NEAR]]
                if head[sequence, i + _NEAR] >= ready and near < len(head_tokens):
                    prefetch(head_tokens, near)
                    prefetch(head_weights, near)
            if head[sequence, i] == NO_HEAD:
                for slot in range(slots):
                    tokens[to + slot] = 0
                    weights[to + slot] = 0
                to += slots
                continue
            row = np.int64(head[sequence, i])
            first = offsets[row]
            size = offsets[row + 1] - first
            filled = head_slots
            if row < ready and head_slots % 2 == 0:
                source = 4 * row * head_slots
                for k in range(0, paired, 8):
                    copy_word(ready_tokens, source + k, token_bytes, 4 * to + k)
                    copy_word(ready_weights, source + k, weight_bytes, 4 * to + k)
            else:
                filled = size
                for j in range(size):
                    tokens[to + j] = head_tokens[first + j]
                    weights[to + j] = np.float32(head_weights[first + j]) * _UNIT
            for slot in range(filled, slots):
                tokens[to + slot] = 0
                weights[to + slot] = 0
            count = np.int64(draws[row])
            if count:
                each = np.int64(left[row]) // count
                more = np.int64(left[row]) % count
                # An observed token stands in the first slot.
                slot = to + head_slots if size else to
                for j in range(count):
                    tokens[slot + j] = drawn[at + j]
                    weights[slot + j] = np.float32(each + (j < more)) * _UNIT
                at += count
            to += slots
