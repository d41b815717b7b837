"""Texts that a transformer reads side by side, whatever computes it.

A table of the prefixes that come again and again stands before the network: coders start a model
afresh with every window, so that most windows begin as others did. It holds what the network said,
so it changes nothing but the time.
"""

import threading
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from corpusmill.compress import tally
from corpusmill.compress.byte_models.byte_model import Frequencies
from corpusmill.compress.byte_strings import Bytes, Offsets
from corpusmill.corpus.ragged import places

# The token that stands before every prefix.
START = 256

# A table's memory when it is full; a prefix takes 8 KB at the size 3m.
_TABLE_BYTES = 1 << 30
# A prefix is remembered if the one before it has been read so often: most are never read again.
_VISITS = 4
_ZERO = np.zeros(1, np.int64)


class Network(Protocol):
    """Computes positions of texts; their keys and values are kept in the slots of a cache.

    Attributes:
      length: C of `TransformerModel`: a text's positions are 0, the start token's, to C - 1.
      most_rows: how many positions are best computed at a time.
    """

    @property
    def length(self) -> int: ...

    @property
    def most_rows(self) -> int: ...

    def new_cache(self, slots: int) -> Any:
        """Keys and values of so many positions: an array [layers, 2, slots, inner]."""
        ...

    def compute(
        self,
        tokens: npt.NDArray[Any],
        positions: Offsets,
        firsts: Offsets,
        cache: Any,
        asked: Offsets,
    ) -> Frequencies:
        """Computes positions of texts from those before them.

        Args:
          tokens: of each position, [rows].
          positions: in its text, int64 [rows].
          firsts: the slot of its text's position 0, int64 [rows]; the others follow.
          cache: holds the positions before; those of the rows are put there.
          asked: rows whose next byte is wanted, int64 [asked].

        Returns:
          Frequencies of shape [asked, 256].
        """
        ...


class PrefixTable:
    """What a network says after prefixes, with their keys and values, as far as there is room.

    Prefixes are numbered, the empty one is 0. Threads may share a table: what it says of a prefix
    is complete before the prefix can be found.
    """

    def __init__(self, network: Network, prefixes: int | None = None) -> None:
        """Computes the empty prefix; the rest of the memory isn't taken before it is written to.

        Only devices that have memory of their own take all of it.

        Args:
          network: what the table stands before.
          prefixes: how many there is room for, at least 1; by default what fits into a GiB.
        """
        size_of_one = network.new_cache(1).nbytes + 256 * (4 + 4) + 8
        prefixes = prefixes or max(1, _TABLE_BYTES // size_of_one)
        self.network = network
        self.cache = network.new_cache(prefixes)
        self._longer = np.zeros((prefixes, 256), np.int32)
        self._visits = np.zeros(prefixes, np.int64)
        self._frequencies = np.empty((prefixes, 256), np.uint32)
        self._frequencies[0] = network.compute(np.array([START]), _ZERO, _ZERO, self.cache, _ZERO)
        self._count = 1
        self._lock = threading.Lock()

    def frequencies(self, prefixes: Offsets) -> Frequencies:
        """After these prefixes: uint32 [prefixes, 256]."""
        return self._frequencies[prefixes]

    def follow(self, prefixes: Offsets, following: Bytes) -> Offsets:
        """These prefixes, or -1, with one more byte; -1 where that isn't in the table."""
        np.add.at(self._visits, prefixes[prefixes >= 0], 1)
        return self._find(prefixes, following)

    def add(
        self,
        prefixes: Offsets,
        following: Bytes,
        frequencies: Frequencies,
        cache: Any,
        slots: Offsets,
    ) -> Offsets:
        """Remembers prefixes with one more byte, those that may come again.

        Args:
          prefixes: in the table, or -1.
          following: the byte after each.
          frequencies: after that byte.
          cache: of the network, with the byte's keys and values.
          slots: where they are.

        Returns:
          As `follow`.
        """
        with self._lock:
            found = self._find(prefixes, following)
            wanted = (prefixes >= 0) & (found < 0) & (self._visits[prefixes] >= _VISITS)
            [rows] = np.nonzero(wanted)
            # Texts that are at the same prefix bring the same.
            _, firsts = np.unique(prefixes[rows] << 8 | following[rows], return_index=True)
            rows = rows[np.sort(firsts)][: len(self._longer) - self._count]
            added = self._count + np.arange(len(rows))
            self._count += len(rows)
            self.cache[:, :, added] = cache[:, :, slots[rows]]
            self._frequencies[added] = frequencies[rows]
            self._longer[prefixes[rows], following[rows]] = added
            found[rows] = added
        return found

    def _find(self, prefixes: Offsets, following: Bytes) -> Offsets:
        found = self._longer[prefixes, following]
        return np.where((prefixes >= 0) & (found > 0), found, -1)


class TransformerState:
    """What follows each of several texts that are read byte by byte.

    It holds keys and values of all positions that are seen and were computed for the text itself, 2
    KB a layer at the size 3m.
    """

    def __init__(self, table: PrefixTable, texts: int) -> None:
        """All texts are empty."""
        self._table = table
        self._network = table.network
        length = self._network.length
        # What is seen of each text: how many bytes, and which.
        self._seen = np.zeros(texts, np.int64)
        self._bytes = np.zeros((texts, length), np.uint8)
        # The prefix in the table that a text is, or -1; and those that it was, by their length.
        self._prefix = np.zeros(texts, np.int64)
        self._path = np.zeros((texts, length), np.int64)
        # Positions whose keys and values are in the text's own slots.
        self._held = np.zeros(texts, np.int64)
        self._frequencies = np.empty((texts, 256), np.uint32)
        self.restart(np.arange(texts))

    @cached_property
    def _cache(self) -> Any:
        return self._network.new_cache(len(self._seen) * self._network.length)

    def frequencies(self) -> Frequencies:
        """How often each byte comes next in each text: uint32 [texts, 256]."""
        return self._frequencies.copy()

    def restart(self, texts: Offsets) -> None:
        """Makes these texts empty again."""
        self._seen[texts] = self._prefix[texts] = self._held[texts] = 0
        self._frequencies[texts] = self._table.frequencies(_ZERO)

    def read(self, texts: Offsets, following: Bytes) -> None:
        """Reads one more byte of each of these texts.

        Args:
          texts: which, int64, all different.
          following: the byte of each, uint8.
        """
        self._bytes[texts, self._seen[texts]] = following
        is_full = self._seen[texts] == self._network.length - 1
        self._slide(texts[is_full])
        self._advance(texts[~is_full], following[~is_full])

    def _advance(self, texts: Offsets, following: Bytes) -> None:
        """Goes on by a byte that has been noted, where all that was seen still is."""
        self._seen[texts] += 1
        prefixes = self._prefix[texts]
        self._enter(texts, self._table.follow(prefixes, following))
        is_new = self._prefix[texts] < 0
        texts, following, prefixes = texts[is_new], following[is_new], prefixes[is_new]
        if not len(texts):
            return
        self._hold(texts)
        self._compute(texts, 1)
        slots = self._slots(texts, self._seen[texts])
        said = self._frequencies[texts]
        self._enter(texts, self._table.add(prefixes, following, said, self._cache, slots))

    def _slide(self, texts: Offsets) -> None:
        """Leaves the first half of what was seen behind."""
        if not len(texts):
            return
        half = self._network.length // 2
        self._bytes[texts, :half] = self._bytes[texts, half:]
        self._prefix[texts] = -1
        self._held[texts] = 0
        self._seen[texts] = 1
        self._hold(texts)
        self._seen[texts] = half
        self._compute(texts, half)

    def _enter(self, texts: Offsets, prefixes: Offsets) -> None:
        """Notes which prefixes these texts are now."""
        self._prefix[texts] = prefixes
        self._path[texts, self._seen[texts]] = prefixes
        known = prefixes >= 0
        self._frequencies[texts[known]] = self._table.frequencies(prefixes[known])

    def _hold(self, texts: Offsets) -> None:
        """Copies the keys and values before the last byte that only the table has."""
        counts = self._seen[texts] - self._held[texts]
        rows = np.repeat(texts, counts)
        positions = self._held[rows] + places(counts)
        if len(rows):
            copied = self._table.cache[:, :, self._path[rows, positions]]
            self._cache[:, :, self._slots(rows, positions)] = copied

    def _compute(self, texts: Offsets, count: int) -> None:
        """Computes the last `count` positions of texts; those before them are held."""
        tally.count("positions_computed", len(texts) * count)
        step = max(1, self._network.most_rows // count)
        for first in range(0, len(texts), step):
            block = texts[first : first + step]
            rows = np.repeat(block, count)
            positions = self._seen[rows] - np.tile(np.arange(count - 1, -1, -1), len(block))
            self._frequencies[block] = self._network.compute(
                self._bytes[rows, positions - 1],
                positions,
                self._slots(rows, 0),
                self._cache,
                np.arange(count - 1, len(rows), count),
            )
        self._held[texts] = self._seen[texts] + 1

    def _slots(self, texts: Offsets, positions: Offsets | int) -> Offsets:
        """Where the text's own keys and values of positions are."""
        return texts * self._network.length + positions
