"""The byte model that looks at the last few bytes, by the n-gram job's counts."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from compress.byte_models.base import (
    PRECISION,
    Frequencies,
    Words,
    blend,
    check_precision,
    quantize,
    uniform,
)
from compress.byte_strings import Bytes, ByteStrings, Offsets, read_only
from ngram_agg.compiled import compiled
from ngram_agg.full_tables import FullTable
from ngram_agg.hash_index import EMPTY, ROW
from ngram_agg.hashing import mix

_COLUMNS = ("high", "low", "offsets", "tokens", "cumulative", "slots")


@dataclass(frozen=True)
class NgramModel:
    """Witten and Bell's mixture of the contexts of 0 to `context_bytes` bytes.

    The context of a prefix is its last bytes; a prefix that is shorter has only the shorter ones,
    which were counted anywhere in the text, as windows start anywhere.

    Attributes:
      table: next bytes of all contexts, the empty one included, of a vocabulary of 256 bytes and
        the end of documents.
      precision: frequencies add up to 2^precision.
    """

    table: FullTable
    precision: int = PRECISION
    kind = "ngram"

    def __post_init__(self) -> None:
        check_precision(self.precision)

    @property
    def context_bytes(self) -> int:
        return self.table.packing.max_order

    @cached_property
    def content_hash(self) -> str:
        digest = hashlib.sha256(f"ngram {self.precision} {self.context_bytes}\n".encode())
        for name in _COLUMNS:
            column = self.table.columns[name]
            digest.update(f"{name} {column.dtype.str} {len(column)}\n".encode())
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()

    def frequencies(self, prefixes: ByteStrings) -> Frequencies:
        """As `ByteModel.frequencies`."""
        columns = {name: read_only(column) for name, column in self.table.columns.items()}
        out = np.empty((len(prefixes), 256), np.uint32)
        _frequencies(
            read_only(prefixes.data),
            read_only(prefixes.offsets),
            columns["high"],
            columns["low"],
            columns["offsets"],
            columns["tokens"],
            columns["cumulative"],
            columns["slots"],
            self._added_words,
            self.precision,
            out,
        )
        return out

    @cached_property
    def _added_words(self) -> Words:
        """What each byte at each place from the end adds to the two words of a context's key.

        uint64 of shape [context_bytes + 1, 257, 2]; a place without a byte holds the end of
        documents, whose words stand under 256.
        """
        packing = self.table.packing
        words = np.zeros((packing.length, 257, 2), np.uint64)
        for place in range(packing.max_order):
            shift = (packing.length - 1 - place) * packing.token_bits
            for token in range(257):
                key = token << shift
                words[place, token] = key >> 64, key & (1 << 64) - 1
        return words


@compiled
def _frequencies(
    data: Bytes,
    bounds: Offsets,
    high: Words,
    low: Words,
    offsets: Offsets,
    tokens: Words,
    cumulative: Words,
    slots: Words,
    added: Words,
    precision: int,
    out: Frequencies,
) -> None:
    longest = len(added) - 1
    mask = np.uint64(len(slots) - 1)
    probabilities = np.empty(256, np.uint64)
    counts = np.empty(257, np.uint64)
    filling = np.zeros((longest + 1, 2), np.uint64)
    for place in range(longest - 1, -1, -1):
        filling[place] = filling[place + 1] + added[place, 256]
    for i in range(len(bounds) - 1):
        uniform(probabilities)
        key_high = np.uint64(0)
        key_low = np.uint64(0)
        for order in range(min(longest, bounds[i + 1] - bounds[i]) + 1):
            if order:
                word = added[order - 1, data[bounds[i + 1] - order]]
                key_high += word[0]
                key_low += word[1]
            wanted_high = key_high + filling[order, 0]
            wanted_low = key_low + filling[order, 1]
            hashed = mix(mix(wanted_high) ^ wanted_low)
            slot = hashed & mask
            row = np.int64(-1)
            while slots[slot] != EMPTY:
                if (slots[slot] ^ hashed) <= ROW:
                    candidate = np.int64(slots[slot] & ROW)
                    if low[candidate] == wanted_low and high[candidate] == wanted_high:
                        row = candidate
                        break
                slot = (slot + np.uint64(1)) & mask
            # A context that wasn't kept is the end of no other that was.
            if row < 0:
                break
            first = offsets[row]
            before = np.uint64(0)
            for entry in range(first, offsets[row + 1]):
                counts[entry - first] = cumulative[entry] - before
                before = cumulative[entry]
            blend(probabilities, tokens[first : offsets[row + 1]], counts)
        quantize(probabilities, precision, out[i])
