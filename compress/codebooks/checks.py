"""What the columns of a codebook have to be, so that compiled walks stay in their arrays.

A file's hash says that it is as it was written, not by whom. So whoever opens one checks the
columns (`check_columns`), which takes a tenth of the time of hashing them, and whoever walks the
trie checks before that it has the strings of the pool (`check_trie`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_strings import Bytes
from corpusmill.compress.codebooks.double_array import ROOT_BASE, base_of
from corpusmill.corpus.errors import DataError
from corpusmill.ngram_agg.compiled import compiled

Words = npt.NDArray[Any]


def check_columns(columns: Mapping[str, npt.NDArray[Any]], slack: int) -> None:
    """Checks that strings lie one after the other in the pool, and that no step leads out of it.

    Then every sequence of ids decodes within the pool: strings have a length of 1 or more, and the
    lengths of all add up to the pool's.

    Args:
      columns: of a codebook, of the lengths that its header says.
      slack: bytes behind the pool.

    Raises:
      DataError: they are not.
    """
    blocks, begins, slots = (columns[name] for name in ("blocks", "begins", "slots"))
    if not _strings_follow(blocks, begins, np.uint64(len(columns["pool"]) - slack)):
        raise DataError("its strings do not lie one after the other")
    word = int(slots.max(initial=0))
    if max(ROOT_BASE, base_of(word)) + 256 > len(slots):
        raise DataError("a step leads out of its trie")


def check_trie(columns: Mapping[str, npt.NDArray[Any]], longest: int) -> None:
    """Checks that the trie has the strings of the pool, each with its code, and no others.

    Then no walk is longer than the longest string, every byte begins one, and what is encoded is
    what decodes to the same bytes. The columns must have passed `check_columns`.

    Args:
      columns: of a codebook.
      longest: bytes of its longest string.

    Raises:
      DataError: it has not.
    """
    good = _is_trie_of_strings(
        columns["blocks"],
        columns["begins"],
        columns["pool"],
        columns["slots"],
        columns["low_codes"],
        columns["high_codes"],
        columns.get("ends", np.ones(1, np.uint8)),
        longest,
    )
    if not good:
        raise DataError("the codebook is damaged: its trie does not have the strings of its codes")


@compiled
def _strings_follow(blocks: Words, begins: Words, size: np.uint64) -> bool:
    end = blocks[0] + np.uint64(begins[0])
    if end != np.uint64(0):
        return False
    for code in range(1, len(begins)):
        begin = end
        block = blocks[code >> 6]
        end = block + np.uint64(begins[code])
        if block > size or end > size or end <= begin:
            return False
    return bool(end == size)


@compiled
def _is_trie_of_strings(
    blocks: Words,
    begins: Words,
    pool: Bytes,
    slots: Words,
    low_codes: Words,
    high_codes: Words,
    ends: Words,
    longest: int,
) -> bool:
    # Sorted strings are the trie from node to node, depth first. One mark alone means: all of them.
    high_mask = -1 if len(high_codes) > 1 else 0
    end_mask = -1 if len(ends) > 1 else 0
    bases = np.zeros(longest + 1, np.int64)
    bases[0] = ROOT_BASE
    is_base = np.zeros(len(slots), np.bool_)
    is_base[ROOT_BASE] = True
    before = np.int64(0)
    begin = np.int64(0)
    depth = np.int64(0)
    singles = 0
    nodes = 0
    for code in range(len(begins) - 1):
        end = np.int64(blocks[(code + 1) >> 6]) + np.int64(begins[code + 1])
        length = end - begin
        same = np.int64(0)
        while same < min(length, depth) and pool[begin + same] == pool[before + same]:
            same += 1
        if same == length or (same < depth and pool[begin + same] < pool[before + same]):
            return False
        for level in range(same, length):
            parent = bases[level]
            byte = np.int64(pool[begin + level])
            slot = parent + byte
            word = np.int64(slots[slot])
            if parent == 0 or word & 255 != byte:
                return False
            is_end = level == length - 1
            # Walks put the mark into a single bit, so no number but these two may be there.
            if ends[slot & end_mask] != np.uint8(is_end):
                return False
            found = np.int64(high_codes[slot & high_mask]) << 16 | np.int64(low_codes[slot])
            if is_end and found != code:
                return False
            base = base_of(word)
            # A base that two nodes had would give each the children of the other.
            if base and is_base[base]:
                return False
            is_base[base] = True
            bases[level + 1] = base
            nodes += 1
        singles += length == 1
        before, begin, depth = begin, end, length
    # Steps from nodes without children, whose base is 0, must end nowhere.
    is_base[0] = True
    steps = 0
    for slot in range(len(slots)):
        byte = np.int64(slots[slot]) & 255
        if byte <= slot:
            steps += is_base[slot - byte]
    return singles == 256 and steps == nodes
