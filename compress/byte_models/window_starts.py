"""The byte model of the places where windows start.

Windows start where others end, so the text at their starts isn't the text anywhere: it often begins
with a space, seldom in the middle of a word. This model counts what follows the starts of a parsed
text, in a trie of prefixes, and blends it with another model in front of which the whole prefix of
the window stands as one more, longest context.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_models.byte_model import (
    ALL_BYTES,
    LANES,
    MAX_PRECISION,
    ByteModel,
    Frequencies,
    ModelState,
    PrefixState,
    Words,
    blend,
    quantize,
)
from corpusmill.compress.byte_strings import Bytes, ByteStrings, Offsets, read_only
from corpusmill.ngram_agg.compiled import compiled

# No prefix that is longer is looked at: identical documents would make a trie as deep as they are.
_MAX_DEPTH = 64


@dataclass(frozen=True)
class WindowStartsModel:
    """A byte model fitted on the starts of windows.

    Attributes:
      model: says what was not seen at starts.
      trie: columns, a row an edge (a prefix with one more byte), breadth first: `bytes` uint8,
        rising among those of a prefix; `counts` uint32, how many starts they follow; `offsets`
        int64 [rows + 1]: the edges that continue row i are rows offsets[i] to offsets[i + 1],
        those of the empty prefix are rows 0 to offsets[0].
    """

    model: ByteModel
    trie: Mapping[str, npt.NDArray[Any]]
    kind = "window-starts"
    lanes = LANES
    context_bytes = ALL_BYTES
    # The probability of a long string is a product of many, so these are finer.
    precision = MAX_PRECISION

    @classmethod
    def fit(
        cls, model: ByteModel, text: Bytes, starts: Offsets, ends: Offsets, min_count: int
    ) -> "WindowStartsModel":
        """Counts what follows the starts of windows.

        Args:
          model: says what was not seen there.
          text: documents one after the other, less than 2^32 bytes.
          starts: where windows start, int64; reordered.
          ends: where the document of each start ends, int64; reordered.
          min_count: prefixes seen fewer times get no distribution of their own.
        """
        levels = []
        kept = np.ones(1, bool)
        first, last = np.zeros(1, np.int64), np.array([len(starts)])
        for depth in range(_MAX_DEPTH):
            groups = _split_groups(read_only(text), starts, ends, first, last, depth)
            sizes_of_kept, edges, counts, first = groups
            sizes = np.zeros(len(kept), np.int64)
            sizes[kept] = sizes_of_kept
            levels.append((sizes, edges, counts))
            kept = counts >= min_count
            first = first[kept]
            last = first + counts[kept]
        levels.append((np.zeros(len(kept), np.int64), edges[:0], counts[:0]))
        sizes, edges, counts = (np.concatenate(column) for column in zip(*levels, strict=True))
        return cls(model, {"bytes": edges, "counts": counts, "offsets": np.cumsum(sizes)})

    @cached_property
    def content_hash(self) -> str:
        digest = hashlib.sha256(f"window-starts {self.model.content_hash}\n".encode())
        for name, column in sorted(self.trie.items()):
            digest.update(f"{name} {column.dtype.str} {len(column)}\n".encode())
            digest.update(column.data)
        return digest.hexdigest()

    def frequencies(self, prefixes: ByteStrings) -> Frequencies:
        """As `ByteModel.frequencies`."""
        out = self.model.frequencies(prefixes)
        _blend_starts(
            read_only(prefixes.data),
            read_only(prefixes.offsets),
            read_only(self.trie["bytes"]),
            read_only(self.trie["counts"]),
            read_only(self.trie["offsets"]),
            self.model.precision,
            self.precision,
            out,
        )
        return out

    def start(self, texts: int) -> ModelState:
        """As `ByteModel.start`."""
        return PrefixState(self, texts)


@compiled
def _split_groups(
    text: Bytes, starts: Offsets, ends: Offsets, first: Offsets, last: Offsets, depth: int
) -> tuple[Offsets, Bytes, Words, Offsets]:
    """Sorts each group of starts by the byte at `depth`, those whose document ends there last.

    Args:
      text: documents.
      starts: reordered within each group.
      ends: reordered like `starts`.
      first: where each group begins in `starts`.
      last: where it ends.
      depth: bytes that a group's starts have in common.

    Returns:
      How many different bytes there are in each group; of each of them, group by group, the byte,
      its starts, and where they now begin.
    """
    total = np.sum(last - first)
    sizes = np.zeros(len(first), np.int64)
    edges = np.empty(total, np.uint8)
    counts = np.empty(total, np.uint32)
    begins = np.empty(total, np.int64)
    largest = np.max(last - first) if len(first) else 0
    symbols = np.empty(largest, np.uint16)
    moved_starts = np.empty(largest, np.int64)
    moved_ends = np.empty(largest, np.int64)
    places = np.empty(257, np.int64)
    rows = 0
    for group in range(len(first)):
        begin = first[group]
        size = last[group] - begin
        places[:] = 0
        for i in range(size):
            at = starts[begin + i] + depth
            symbol = np.int64(text[at]) if at < ends[begin + i] else np.int64(256)
            symbols[i] = symbol
            places[symbol] += 1
        place = 0
        for byte in range(257):
            count = places[byte]
            places[byte] = place
            if count and byte < 256:
                edges[rows] = byte
                counts[rows] = count
                begins[rows] = begin + place
                sizes[group] += 1
                rows += 1
            place += count
        for i in range(size):
            place = places[symbols[i]]
            places[symbols[i]] += 1
            moved_starts[place] = starts[begin + i]
            moved_ends[place] = ends[begin + i]
        starts[begin : begin + size] = moved_starts[:size]
        ends[begin : begin + size] = moved_ends[:size]
    return sizes, edges[:rows].copy(), counts[:rows].copy(), begins[:rows].copy()


@compiled
def _blend_starts(
    data: Bytes,
    bounds: Offsets,
    edges: Bytes,
    seen: Words,
    offsets: Offsets,
    model_precision: int,
    precision: int,
    out: Frequencies,
) -> None:
    probabilities = np.empty(256, np.uint64)
    counts = np.empty(256, np.uint64)
    unit = np.uint64(32 - model_precision)
    for i in range(len(bounds) - 1):
        for byte in range(256):
            probabilities[byte] = np.uint64(out[i, byte]) << unit
        # Rows first to last are the edges of the prefix read so far.
        first = 0
        last = offsets[0]
        for position in range(bounds[i], bounds[i + 1]):
            low = first
            high = last
            while low < high:
                middle = (low + high) >> 1
                if edges[middle] < data[position]:
                    low = middle + 1
                else:
                    high = middle
            if low == last or edges[low] != data[position]:
                last = first
                break
            first = offsets[low]
            last = offsets[low + 1]
        for row in range(first, last):
            counts[row - first] = seen[row]
        blend(probabilities, edges[first:last], counts)
        quantize(probabilities, precision, out[i])
