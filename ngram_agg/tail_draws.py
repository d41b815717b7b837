"""Tokens are drawn from the tails of contexts, each as often as it followed, by a hash.

A draw is a point of the tail's total, found among cumulative counts from a guide on.
"""

import numpy as np

from corpusmill.corpus.ragged import Rows
from corpusmill.ngram_agg.compiled import compiled, prefetch
from corpusmill.ngram_agg.hashing import mix
from corpusmill.ngram_agg.packing import Tokens, Words
from corpusmill.ngram_agg.target_options import MAX_HEAD

# The time goes to waiting for memory: what a position needs is asked for so many positions before,
# and so many draws wait at once.
_AHEAD = 16
_BATCH = 512


@compiled
def _scaled(word: np.uint64, size: np.uint64) -> np.uint64:
    """A word, evenly distributed over 64 bits, as a number below `size`."""
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    low = (word & mask) * (size & mask)
    middle = (word >> half) * (size & mask) + (low >> half)
    other = (word & mask) * (size >> half) + (middle & mask)
    return (word >> half) * (size >> half) + (middle >> half) + (other >> half)


@compiled
def make_guides(offsets: Rows, cumulative: Words, guides: Words) -> None:
    """Fills in where draws from tails begin their search.

    Args:
      offsets: int64 [contexts + 1]; context i has the entries offsets[i] to offsets[i + 1].
      cumulative: uint64 [entries], rising within a context to its total.
      guides: uint32 [entries], filled in: `TargetTable.tail_guides`.
    """
    for row in range(len(offsets) - 1):
        first = offsets[row]
        size = np.uint64(offsets[row + 1] - first)
        entry = first
        for stretch in range(size):
            # The lowest point of the stretch, as `_scaled` rounds it; a product below 2^64 has no
            # need of that function.
            total = cumulative[offsets[row + 1] - 1]
            lowest = total // size * np.uint64(stretch) + total % size * np.uint64(stretch) // size
            while cumulative[entry] <= lowest:
                entry += 1
            guides[first + stretch] = entry - first


@compiled
def draw_tails(
    rows: Rows,
    hashes: Words,
    observed: Tokens,
    draws: Words,
    offsets: Rows,
    tokens: Tokens,
    cumulative: Words,
    guides: Words,
    drawn: Tokens,
) -> None:
    """Fills in the tokens drawn for positions.

    Args:
      rows: int64 [positions], of each one's context; from `contexts` on, of an observed token.
      hashes: uint64 [positions], which decide.
      observed: ids [positions], which stand for a drawn one in rows from `contexts` on.
      draws: uint16 [rows], tokens drawn for a position, at most `MAX_HEAD`; 1 from `contexts` on.
      offsets: int64 [contexts + 1]; context i has the entries offsets[i] to offsets[i + 1].
      tokens: ids [entries].
      cumulative: uint64 [entries], how often this or an earlier one of a context's followed.
      guides: uint32 [entries], from `make_guides`.
      drawn: ids, filled in, one position's after the other's.
    """
    contexts = len(offsets) - 1
    # A batch of draws asks for the memory that each of them needs before the first one waits.
    words = np.empty(_BATCH + MAX_HEAD, np.uint64)
    firsts = np.empty(_BATCH + MAX_HEAD, np.int64)
    lasts = np.empty(_BATCH + MAX_HEAD, np.int64)
    places = np.empty(_BATCH + MAX_HEAD, np.int64)
    size = 0
    to = 0
    for i in range(len(rows)):
        if i + _AHEAD < len(rows):
            far = min(rows[i + _AHEAD], contexts)
            prefetch(draws, rows[i + _AHEAD])
            prefetch(offsets, far)
        row = rows[i]
        if row >= contexts:
            drawn[to] = observed[i]
            to += 1
        else:
            for draw in range(draws[row]):
                words[size] = mix(hashes[i] + np.uint64(draw))
                firsts[size] = offsets[row]
                lasts[size] = offsets[row + 1] - 1
                places[size] = to
                prefetch(cumulative, lasts[size])
                entries = np.uint64(offsets[row + 1] - offsets[row])
                prefetch(guides, offsets[row] + np.int64(_scaled(words[size], entries)))
                size += 1
                to += 1
        if size >= _BATCH or i + 1 == len(rows):
            for j in range(size):
                entries = np.uint64(lasts[j] + 1 - firsts[j])
                stretch = np.int64(_scaled(words[j], entries))
                firsts[j] += guides[firsts[j] + stretch]
                prefetch(cumulative, firsts[j])
                prefetch(tokens, firsts[j])
            for j in range(size):
                wanted = _scaled(words[j], cumulative[lasts[j]])
                entry = firsts[j]
                while cumulative[entry] <= wanted:
                    entry += 1
                drawn[places[j]] = tokens[entry]
            size = 0
