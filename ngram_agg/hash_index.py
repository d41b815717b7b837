"""A hash index of keys: where each key stands in a table, found in about one memory access."""

import numpy as np

from corpusmill.ngram_agg.compiled import compiled
from corpusmill.ngram_agg.hashing import hash_key
from corpusmill.ngram_agg.packing import Words

# A slot holds the upper half of its key's hash, so that other keys are seldom looked at, and the
# key's row.
EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
ROW = np.uint64(0x00000000FFFFFFFF)
_MISSING = -1


def index_slots(keys: int) -> int:
    """How many slots the index of so many keys has, a power of two."""
    # At most half full, so that a look-up seldom sees a second slot.
    return 1 << (2 * keys + 1).bit_length()


def build_index(high: Words, low: Words) -> Words:
    """The slots of an index of less than 2^32 - 1 distinct keys, uint64.

    A key's first slot is its hash modulo the number of slots, a power of two; while a slot is
    taken by another key, the next one is its slot (open addressing).
    """
    slots = np.full(index_slots(len(low)), EMPTY, np.uint64)
    _fill(high, low, slots)
    return slots


@compiled
def find_keys(
    slots: Words, high: Words, low: Words, wanted_high: Words, wanted_low: Words
) -> Words:
    """Rows of the wanted keys, int64 of their shape; -1 where the index hasn't got a key."""
    rows = np.empty(len(wanted_low), np.int64)
    mask = np.uint64(len(slots) - 1)
    for i in range(len(wanted_low)):
        rows[i] = _MISSING
        word = hash_key(wanted_high[i], wanted_low[i])
        place = word & mask
        while slots[place] != EMPTY:
            if (slots[place] ^ word) <= ROW:
                row = slots[place] & ROW
                if low[row] == wanted_low[i] and high[row] == wanted_high[i]:
                    rows[i] = row
                    break
            place = (place + np.uint64(1)) & mask
    return rows


@compiled
def _fill(high: Words, low: Words, slots: Words) -> None:
    mask = np.uint64(len(slots) - 1)
    for row in range(len(low)):
        word = hash_key(high[row], low[row])
        place = word & mask
        while slots[place] != EMPTY:
            place = (place + np.uint64(1)) & mask
        slots[place] = (word & ~ROW) | np.uint64(row)
