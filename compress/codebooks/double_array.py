"""Tries as double arrays: a step from a node to its child is one look-up (Aoe 1989).

A node with children has a base that no other has; its child by byte c is at slot base + c. A slot
is one word with the byte that leads to its node in the lower 8 bits. So a step is right if the byte
there is the byte followed: no other base leads there by the same byte. The upper 24 bits are b, and
the node's base is b + floor(b / 16), so that tries of 2^24 nodes fit. Nodes without children have
base 0, and slots 0 to 255 are empty. The empty string's base is 256, and all single bytes are its
children.

No base leaves the remainder 16 when divided by 17. An empty slot s holds the byte (s - 16) mod 17:
what would lead there by that byte leaves the remainder 16.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from corpusmill.compress.byte_strings import Bytes, Offsets
from corpusmill.compress.codebooks.trie import NO_PARENT, Trie, Words
from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.ragged import offsets_of
from corpusmill.ngram_agg.compiled import compiled

# Of the empty string, so that the slots of no string's are those below.
ROOT_BASE = 256
# What b with 24 bits can reach.
_MAX_SLOTS = (1 << 24) + (1 << 20)
# A family that fits nowhere among so many free slots makes the next ones begin where it ended.
_TRIES = 256


@dataclass(frozen=True)
class DoubleArray:
    """A trie that is walked by look-ups.

    Attributes:
      slots: uint32.
      low_codes: the lower 16 bits of the code of the node in each slot, uint16.
      high_codes: the bits above them, uint8; one element, 0, where no code has any.
      ends: whether a string ends at the node in each slot, uint8; None where one does at all.
    """

    slots: Words
    low_codes: Words
    high_codes: Words
    ends: Words | None


@compiled
def base_of(word: Any) -> Any:
    """The base of the node in a slot, int64 or uint64 like the slot's word."""
    return (word >> 8) + (word >> 12)


def build_double_array(trie: Trie) -> DoubleArray:
    """The double array of a trie that has all single bytes.

    Raises:
      UsageError: it takes more than 2^24 + 2^20 slots.
    """
    children, first = _children(trie)
    singles = np.flatnonzero(trie.parents == NO_PARENT)
    sizes = np.diff(first)
    # Large families first, while there is room; then small ones fill the gaps.
    families = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    room = len(trie) + len(trie) // 8 + 4096
    while True:
        slots = np.empty(min(room, _MAX_SLOTS), np.uint32)
        nodes = np.empty(len(slots), np.int32)
        used = _place(families, first, children, singles, trie.bytes, slots, nodes)
        if used:
            break
        if room >= _MAX_SLOTS:
            raise UsageError(
                f"the strings take more than {_MAX_SLOTS:,} slots; use shorter windows"
            )
        room += room // 2
    found = np.maximum(nodes[:used], 0)
    codes = trie.codes()[found]
    high_codes = (codes >> 16).astype(np.uint8)
    if not high_codes.any():
        high_codes = high_codes[:1]
    ends = None if trie.ends is None else (trie.ends[found] & (nodes[:used] >= 0)).astype(np.uint8)
    return DoubleArray(slots[:used].copy(), codes.astype(np.uint16), high_codes, ends)


def _children(trie: Trie) -> tuple[Words, Offsets]:
    """All nodes, parent by parent, and where the children of each node begin among them."""
    is_inner = trie.parents != NO_PARENT
    children = np.flatnonzero(is_inner).astype(np.int32)
    children = children[np.argsort(trie.parents[is_inner], kind="stable")]
    sizes = np.bincount(trie.parents[is_inner], minlength=len(trie))
    return children, offsets_of(sizes)


@compiled
def _place(
    families: Words,
    first: Offsets,
    children: Words,
    singles: Words,
    last_bytes: Bytes,
    slots: Words,
    nodes: Words,
) -> int:
    """Finds a base for every node that has children, and fills the slots.

    Args:
      families: nodes with children, those with most first.
      first: where each node's children begin in `children`.
      children: nodes, parent by parent, bytes rising.
      singles: the nodes of the 256 single bytes.
      last_bytes: the byte that leads to each node.
      slots: filled.
      nodes: filled with the node in each slot, -1 where there is none.

    Returns:
      How many slots are used; 0 if there are too few.
    """
    room = len(slots)
    bases = np.zeros(len(last_bytes), np.int32)
    is_base = np.zeros(room, np.bool_)
    nodes[:] = -1
    nodes[ROOT_BASE : ROOT_BASE + 256] = singles
    # Free slots are a chain, so that what is full is not looked at again.
    following = np.arange(1, room + 1).astype(np.int32)
    previous = np.arange(-1, room - 1).astype(np.int32)
    head = ROOT_BASE + 256
    previous[head] = -1
    is_base[0] = True
    is_base[ROOT_BASE] = True
    end = np.int64(head)
    size = 0
    start = head
    for family in families:
        begin = first[family]
        if first[family + 1] - begin != size:
            size = first[family + 1] - begin
            start = head
        slot = start
        tries = 0
        lowest = np.int64(last_bytes[children[begin]])
        base = np.int64(0)
        while True:
            if slot + 256 > room:
                return 0
            base = slot - lowest
            if base % 17 != 16 and not is_base[base]:
                fits = True
                for i in range(begin + 1, begin + size):
                    if nodes[base + last_bytes[children[i]]] >= 0:
                        fits = False
                        break
                if fits:
                    break
            slot = following[slot]
            tries += 1
        if tries > _TRIES:
            start = slot
        bases[family] = base
        is_base[base] = True
        for i in range(begin, begin + size):
            place = base + last_bytes[children[i]]
            nodes[place] = children[i]
            before = previous[place]
            after = following[place]
            if before < 0:
                head = after
            else:
                following[before] = after
            if after < room:
                previous[after] = before
        end = max(end, base + 256)
        while start < room and nodes[start] >= 0:
            start = following[start]
    for slot in range(end):
        if nodes[slot] >= 0:
            owned = bases[nodes[slot]]
            slots[slot] = (owned - owned // 17) << 8 | last_bytes[nodes[slot]]
        else:
            slots[slot] = (slot + 1) % 17
    return int(end)
