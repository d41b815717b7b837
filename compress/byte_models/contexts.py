"""What counted models know, as arrays that compiled coders can ask byte by byte.

The frequencies after a text depend only on the longest context that was kept, since it decides all
shorter ones. So those of contexts seen before are remembered, in a table that is overwritten in
places: it saves time and changes nothing.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_models.byte_model import Words, blend, quantize, uniform
from corpusmill.compress.byte_strings import Bytes, Offsets, read_only
from corpusmill.compress.byte_tokens import bytes_packing
from corpusmill.ngram_agg.compiled import compiled
from corpusmill.ngram_agg.full_tables import FullTable
from corpusmill.ngram_agg.hash_index import EMPTY, ROW, build_index
from corpusmill.ngram_agg.hashing import hash_key
from corpusmill.ngram_agg.packing import Packing

# 8 MiB of frequencies.
REMEMBERED = 1 << 13
_NOTHING = -1


class Contexts(NamedTuple):
    """Contexts of the last bytes of a text, and what followed them.

    Attributes:
      high, low, slots, offsets, tokens, cumulative: columns of a `FullTable`; read-only.
      added: what each byte at each place from the end adds to the two words of a context's key:
        uint64 of shape [context_bytes + 1, 257, 2]; a place without a byte holds the end of
        documents, whose words stand under 256.
      precision: frequencies add up to 2^precision.
      rows: work space for one thread: int64 [context_bytes + 1], the contexts of the text.
      probabilities: work space: uint64 [256].
      counts: work space: uint64 [257].
      remembered: int64, which context's frequencies are remembered in each place.
      sums: uint32 of shape [places, 257]: frequencies of the bytes below each one, and all.
    """

    high: Words
    low: Words
    slots: Words
    offsets: Offsets
    tokens: Words
    cumulative: Words
    added: Words
    precision: int
    rows: npt.NDArray[np.int64]
    probabilities: Words
    counts: Words
    remembered: npt.NDArray[np.int64]
    sums: npt.NDArray[np.uint32]


def table_contexts(
    table: FullTable, added: Words, precision: int, remembered: int = REMEMBERED
) -> Contexts:
    """The contexts of a table, with work space for one thread.

    Args:
      table: with the empty context.
      added: see `Contexts`.
      precision: see `Contexts`.
      remembered: how many contexts' frequencies are remembered, a power of two.
    """
    return Contexts(
        **{name: read_only(column) for name, column in table.columns.items()},
        added=added,
        precision=precision,
        rows=np.empty(len(added), np.int64),
        probabilities=np.empty(256, np.uint64),
        counts=np.empty(257, np.uint64),
        remembered=np.full(remembered, _NOTHING),
        sums=np.empty((remembered, 257), np.uint32),
    )


def only_context(counts: Words) -> FullTable:
    """The table that has the empty context alone.

    Args:
      counts: uint64 [256], how often each byte occurs.
    """
    seen = np.flatnonzero(counts)
    packing = bytes_packing(0)
    key = np.zeros(1, np.uint64)
    columns: dict[str, npt.NDArray[Any]] = {
        "high": np.zeros(1, packing.high_dtype),
        "low": key,
        "slots": build_index(key, key),
        "offsets": np.array([0, len(seen)]),
        "tokens": seen.astype(packing.token_dtype),
        "cumulative": np.cumsum(counts[seen]),
    }
    return FullTable(packing, columns)


def key_words(packing: Packing) -> Words:
    """See `Contexts.added`."""
    words = np.zeros((packing.length, 257, 2), np.uint64)
    for place in range(packing.max_order):
        shift = (packing.length - 1 - place) * packing.token_bits
        for token in range(257):
            key = token << shift
            words[place, token] = key >> 64, key & (1 << 64) - 1
    return words


@compiled
def find_contexts(contexts: Contexts, data: Bytes, start: int, end: int) -> int:
    """Fills `contexts.rows` with the contexts of data[start:end], the shortest first.

    Returns:
      How many there are: up to the first one that wasn't kept, which is the end of no other that
      was.
    """
    high, low, slots, added = contexts.high, contexts.low, contexts.slots, contexts.added
    longest = len(added) - 1
    mask = np.uint64(len(slots) - 1)
    filling_high = np.uint64(0)
    filling_low = np.uint64(0)
    for place in range(longest):
        filling_high += added[place, 256, 0]
        filling_low += added[place, 256, 1]
    key_high = np.uint64(0)
    key_low = np.uint64(0)
    for order in range(min(longest, end - start) + 1):
        if order:
            byte = data[end - order]
            key_high += added[order - 1, byte, 0]
            key_low += added[order - 1, byte, 1]
            filling_high -= added[order - 1, 256, 0]
            filling_low -= added[order - 1, 256, 1]
        wanted_high = key_high + filling_high
        wanted_low = key_low + filling_low
        hashed = hash_key(wanted_high, wanted_low)
        slot = hashed & mask
        row = np.int64(-1)
        while slots[slot] != EMPTY:
            if (slots[slot] ^ hashed) <= ROW:
                candidate = np.int64(slots[slot] & ROW)
                if low[candidate] == wanted_low and high[candidate] == wanted_high:
                    row = candidate
                    break
            slot = (slot + np.uint64(1)) & mask
        if row < 0:
            return order
        contexts.rows[order] = row
    return min(longest, end - start) + 1


@compiled
def mix_contexts(contexts: Contexts, found: int, frequencies: Words) -> None:
    """The frequencies, uint32 [256], after a text with the first `found` of `contexts.rows`."""
    uniform(contexts.probabilities)
    for order in range(found):
        first = contexts.offsets[contexts.rows[order]]
        last = contexts.offsets[contexts.rows[order] + 1]
        before = np.uint64(0)
        for entry in range(first, last):
            contexts.counts[entry - first] = contexts.cumulative[entry] - before
            before = contexts.cumulative[entry]
        blend(contexts.probabilities, contexts.tokens[first:last], contexts.counts)
    quantize(contexts.probabilities, contexts.precision, frequencies)


@compiled
def place_of_sums(contexts: Contexts, data: Bytes, start: int, end: int) -> int:
    """The place in `contexts.sums` of the frequencies after data[start:end]."""
    found = find_contexts(contexts, data, start, end)
    row = contexts.rows[found - 1] if found else np.int64(-2)
    place = row & (len(contexts.remembered) - 1)
    if contexts.remembered[place] != row:
        sums = contexts.sums[place]
        mix_contexts(contexts, found, sums[1:])
        sums[0] = 0
        for byte in range(256):
            sums[byte + 1] += sums[byte]
        contexts.remembered[place] = row
    return int(place)
