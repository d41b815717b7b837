"""Tries of the strings of a codebook, as arrays in depth-first order, children by their bytes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_strings import Bytes, ByteStrings, Offsets, read_only
from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.ragged import offsets_of
from corpusmill.ngram_agg.compiled import compiled

Words = npt.NDArray[Any]

# A model that is sure of one byte makes strings of thousands of bytes, each with all its prefixes.
_MAX_POOL = 1 << 32
# The parent of single bytes: the empty string, which is no node.
NO_PARENT = -1


@dataclass(frozen=True)
class Trie:
    """The strings of a codebook, and what they begin with.

    Attributes:
      parents: int32, the node of each node's string without its last byte; `NO_PARENT` for single
        bytes.
      bytes: uint8, the last byte of each node's string.
      ends: bool, whether a node's string is one of the codebook's; None where all are.
    """

    parents: npt.NDArray[np.int32]
    bytes: Bytes
    ends: npt.NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, strings: ByteStrings) -> "Trie":
        """The trie of strings that differ and rise as byte strings."""
        data, offsets = read_only(strings.data), read_only(strings.offsets)
        parents = np.empty(_count_nodes(data, offsets), np.int32)
        last_bytes, ends = np.empty(len(parents), np.uint8), np.zeros(len(parents), np.bool_)
        _grow(data, offsets, int(strings.lengths().max()), parents, last_bytes, ends)
        return cls(parents, last_bytes, None if ends.all() else ends)

    def __len__(self) -> int:
        """How many nodes there are."""
        return len(self.bytes)

    def strings(self) -> ByteStrings:
        """The string of every code.

        Raises:
          UsageError: they take more than 4 GiB.
        """
        lengths = np.empty(len(self), np.int64)
        _measure(self.parents, lengths)
        if lengths.sum() > _MAX_POOL:
            raise UsageError(
                f"the strings take {lengths.sum():,} bytes, more than 4 GiB: the byte model is too"
                " sure of some bytes for so long windows; use shorter ones"
            )
        offsets = offsets_of(lengths)
        data = np.empty(offsets[-1], np.uint8)
        _spell(self.parents, self.bytes, offsets, data)
        nodes = ByteStrings(data, offsets)
        return nodes if self.ends is None else nodes.take(np.flatnonzero(self.ends))

    def codes(self) -> Words:
        """The code of every node, int32; 0 where no string ends."""
        if self.ends is None:
            return np.arange(len(self), dtype=np.int32)
        return np.where(self.ends, np.cumsum(self.ends) - 1, 0).astype(np.int32)

    def only(self, keep: Words) -> "Trie":
        """The nodes where `keep`, bool, holds; it has to hold for the prefixes of each."""
        ends = None if self.ends is None else self.ends[keep]
        return Trie(renumbered(self.parents, keep), self.bytes[keep], ends)


def renumbered(parents: Words, keep: Words) -> Words:
    """The parents of the nodes that are kept, all of which are kept too."""
    places = (np.cumsum(keep) - 1).astype(np.int32)
    parents = parents[keep]
    return np.where(parents == NO_PARENT, parents, places[parents])


@compiled
def _common(data: Bytes, offsets: Offsets, string: int) -> int:
    """How many bytes a string has in common with the one before it."""
    if string == 0:
        return 0
    before, begin, end = offsets[string - 1], offsets[string], offsets[string + 1]
    length = 0
    while before + length < begin and begin + length < end:
        if data[before + length] != data[begin + length]:
            break
        length += 1
    return length


@compiled
def _count_nodes(data: Bytes, offsets: Offsets) -> int:
    nodes = 0
    for string in range(len(offsets) - 1):
        nodes += offsets[string + 1] - offsets[string] - _common(data, offsets, string)
    return nodes


@compiled
def _grow(
    data: Bytes, offsets: Offsets, longest: int, parents: Words, last_bytes: Bytes, ends: Words
) -> None:
    path = np.full(longest + 1, NO_PARENT)
    node = 0
    for string in range(len(offsets) - 1):
        length = offsets[string + 1] - offsets[string]
        for depth in range(_common(data, offsets, string), length):
            parents[node] = path[depth]
            last_bytes[node] = data[offsets[string] + depth]
            path[depth + 1] = node
            node += 1
        ends[node - 1] = True


@compiled
def _measure(parents: Words, lengths: Words) -> None:
    for node in range(len(parents)):
        parent = parents[node]
        lengths[node] = 1 if parent < 0 else lengths[parent] + 1


@compiled
def _spell(parents: Words, last_bytes: Bytes, offsets: Offsets, data: Bytes) -> None:
    for node in range(len(parents)):
        last = offsets[node + 1] - 1
        if parents[node] >= 0:
            source = offsets[parents[node]]
            for i in range(offsets[node], last):
                data[i] = data[source + i - offsets[node]]
        data[last] = last_bytes[node]
