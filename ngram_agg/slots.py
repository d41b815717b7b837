"""Compact targets as losses take them: as many slots for every position, in any order, fast."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ngram_agg.compiled import compiled, copy_word, prefetch
from ngram_agg.packing import Tokens, Words
from ngram_agg.targets import NO_HEAD, WEIGHT_UNITS, Targets

# What a position needs is asked for so many positions before.
_AHEAD = 16
_UNIT = np.float32(1 / WEIGHT_UNITS)


class Slots:
    """Fills in the slots of `Targets.dense`, int32 and float32, for sequences of positions."""

    def __init__(self, targets: Targets, head: int) -> None:
        """Prepares the heads of targets, which should be few, for so many slots each."""
        heads = targets.heads
        self._tokens = np.zeros(len(heads) * head, np.int32)
        self._weights = np.zeros(len(heads) * head, np.float32)
        self._left = np.empty(len(heads), np.uint16)
        _spread_heads(
            heads.offsets,
            heads.tokens,
            heads.weights,
            head,
            self._tokens,
            self._weights,
            self._left,
        )
        # An observed token stands in the first slot.
        self._first_drawn = np.where(np.diff(heads.offsets) == 0, 0, head)
        self._draws = heads.draws
        self._drawn = targets.drawn
        self._head = head

    def fill(
        self,
        head: npt.NDArray[Any],
        starts: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
        tokens: npt.NDArray[np.int32],
        weights: npt.NDArray[np.float32],
    ) -> None:
        """Fills in some sequences.

        Args:
          head: [sequences, length], the head of each position, or `NO_HEAD`.
          starts: [sequences], where the drawn tokens of each sequence begin.
          places: [sequences], where each sequence goes in `tokens` and `weights`.
          tokens: to be filled, of shape [any, length, slots].
          weights: of the same shape; those of a position add up to 1.
        """
        _fill_slots(
            head,
            starts,
            places,
            tokens.shape[2],
            self._head,
            self._tokens,
            self._weights,
            self._tokens.view(np.uint8),
            self._weights.view(np.uint8),
            self._left,
            self._first_drawn,
            self._draws,
            self._drawn,
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
    left: Words,
) -> None:
    for row in range(len(offsets) - 1):
        rest = np.int64(WEIGHT_UNITS)
        to = row * slots
        for i in range(offsets[row], offsets[row + 1]):
            slot_tokens[to] = tokens[i]
            slot_weights[to] = np.float32(weights[i]) * _UNIT
            rest -= np.int64(weights[i])
            to += 1
        left[row] = rest


@compiled
def _fill_slots(
    head: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
    slots: int,
    head_slots: int,
    head_tokens: npt.NDArray[np.int32],
    head_weights: npt.NDArray[np.float32],
    head_token_bytes: npt.NDArray[np.uint8],
    head_weight_bytes: npt.NDArray[np.uint8],
    left: Words,
    first_drawn: npt.NDArray[np.int64],
    draws: Words,
    drawn: Tokens,
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
            if i + _AHEAD < length and head[sequence, i + _AHEAD] != NO_HEAD and head_slots:
                ahead = np.int64(head[sequence, i + _AHEAD])
                prefetch(draws, ahead)
                for j in range(0, head_slots, 16):
                    prefetch(head_tokens, ahead * head_slots + j)
                    prefetch(head_weights, ahead * head_slots + j)
            if head[sequence, i] == NO_HEAD:
                for slot in range(slots):
                    tokens[to + slot] = 0
                    weights[to + slot] = 0
                to += slots
                continue
            row = np.int64(head[sequence, i])
            source = row * head_slots
            for k in range(0, paired, 8):
                copy_word(head_token_bytes, 4 * source + k, token_bytes, 4 * to + k)
                copy_word(head_weight_bytes, 4 * source + k, weight_bytes, 4 * to + k)
            if head_slots % 2:
                tokens[to + head_slots - 1] = head_tokens[source + head_slots - 1]
                weights[to + head_slots - 1] = head_weights[source + head_slots - 1]
            for slot in range(head_slots, slots):
                tokens[to + slot] = 0
                weights[to + slot] = 0
            count = np.int64(draws[row])
            if count:
                each = np.int64(left[row]) // count
                more = np.int64(left[row]) % count
                first = to + first_drawn[row]
                for j in range(count):
                    tokens[first + j] = drawn[at + j]
                    weights[first + j] = np.float32(each + (j < more)) * _UNIT
                at += count
            to += slots
