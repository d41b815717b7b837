"""Which strings save most ids: what `optimal` is fitted by, where there is text.

A string is worth the ids that it saves: how often it stands at a window's start, times how many ids
fewer the rest of the text then takes because this window ends one byte later. docs/codebooks.md
says why that is what counts, and how a set of strings is chosen by it.
"""

from typing import Any

import numpy as np

from corpusmill.compress.byte_strings import Bytes, ByteStrings, Offsets, read_only
from corpusmill.compress.codebooks.codebook import Codebook
from corpusmill.compress.codebooks.double_array import ROOT_BASE, base_of
from corpusmill.compress.codebooks.trie import Trie, Words
from corpusmill.ngram_agg.compiled import compiled

# One byte seldom saves more than one id, nor costs more.
_MOST_SAVED = 3
# What is known of a string before it was seen counts like so many times that it was seen.
_PRIOR = 16
# Savings are in units of 2^-16 ids, probabilities in units of 2^-34. So worths and prices are below
# 2^53, and gains that are held at 2^61 can be added up.
_SAVING_BITS = 16
_DROPPED_BITS = 63 - 34
_MOST_GAINED = 1 << 61


def most_worth(
    candidates: Trie, probabilities: Words, size: int, book: Codebook, text: ByteStrings, parse: str
) -> Trie:
    """The strings that save most ids, all single bytes among them and the prefixes of each.

    Args:
      candidates: strings to choose from.
      probabilities: of each of them at a window's start, uint64 in units of 2^-63.
      size: how many to take.
      book: the codebook that the text is cut with.
      text: documents.
      parse: how it is cut.
    """
    if len(candidates) == size:
        return candidates
    savings = _savings_of_bytes(book, text, parse)
    means = _mean_savings(candidates, savings, book, text, parse)
    worth = (probabilities >> np.uint64(_DROPPED_BITS)).astype(np.int64) * means
    taken = _best_closed(candidates.parents, worth, size)
    return candidates.only(taken)


def _savings_of_bytes(book: Codebook, text: ByteStrings, parse: str) -> Words:
    """How many ids less a document takes from each byte's end on than from its beginning, int8."""
    savings = np.empty(len(text.data), np.int8)
    longest = int(book.strings.lengths().max())
    slots = book.columns["slots"]
    data, bounds = read_only(text.data), read_only(text.offsets)
    _count_savings(slots, data, bounds, longest, parse == "flexible", savings)
    return savings


def _mean_savings(
    candidates: Trie, savings: Words, book: Codebook, text: ByteStrings, parse: str
) -> Words:
    """What the last byte of each string saves on average where the string starts a window.

    int64 in units of 2^-16. Strings that were seldom seen get much of the mean of all places in the
    text with the same last two bytes, and these much of the mean of all.
    """
    data, bounds = read_only(text.data), read_only(text.offsets)
    sums, counts = np.zeros(1 << 16, np.int64), np.zeros(1 << 16, np.int64)
    _add_by_ending(data, bounds, savings, sums, counts)
    mean = _mean(sums.sum(), counts.sum(), 0)
    strings = candidates.strings()
    last = strings.offsets[1:] - 1
    before = np.where(strings.lengths() > 1, strings.data[last - 1], ord(" ")).astype(np.int64)
    by_ending = _mean(sums, counts, mean)[before << 8 | strings.data[last]]
    starts, ends = book.windows(text, parse)
    found = Codebook.of(candidates, {}).columns
    slots, low_codes, high_codes = found["slots"], found["low_codes"], found["high_codes"]
    sums, counts = np.zeros(len(candidates), np.int64), np.zeros(len(candidates), np.int64)
    _add_by_string(slots, low_codes, high_codes, data, starts, ends, savings, sums, counts)
    return _mean(sums, counts, by_ending)


def _mean(sums: Any, counts: Any, before: Any) -> Words:
    """Means that begin as `before`, in units of 2^-16."""
    return np.asarray(((sums << _SAVING_BITS) + _PRIOR * before) // (counts + _PRIOR))


def _best_closed(parents: Words, worth: Words, size: int) -> Words:
    """Which strings to take, bool: the best ones of those sets that have their strings' prefixes.

    A price for each string makes it easy to say which set is best, and the right price makes it so
    many strings; where no price does, the last ones are the first in order.
    """
    low, high = int(worth.min()) - 1, int(worth.max())
    gains = np.empty(len(worth), np.int64)
    cheap, dear = np.empty(len(worth), bool), np.empty(len(worth), bool)
    # At `low` all are taken, at `high` single bytes only.
    while high - low > 1:
        price = (low + high) // 2
        if _take(parents, worth, price, gains, dear) > size:
            low = price
        else:
            high = price
    missing = size - _take(parents, worth, high, gains, dear)
    _take(parents, worth, low, gains, cheap)
    dear[np.flatnonzero(cheap & ~dear)[:missing]] = True
    return dear


@compiled
def _take(parents: Words, worth: Words, price: int, gains: Words, taken: Words) -> int:
    """Takes the strings that are worth their price together with what they make possible."""
    gains[:] = 0
    for code in range(len(parents) - 1, -1, -1):
        gains[code] += worth[code] - price
        if gains[code] > 0 and parents[code] >= 0:
            gains[parents[code]] = min(gains[parents[code]] + gains[code], _MOST_GAINED)
    count = 0
    for code in range(len(parents)):
        parent = parents[code]
        taken[code] = parent < 0 or (taken[parent] and gains[code] > 0)
        count += taken[code]
    return count


@compiled
def _count_savings(
    slots: Words, data: Bytes, bounds: Offsets, longest: int, flexible: bool, savings: Words
) -> None:
    """Cuts documents from every position on, from the last one to the first.

    Args:
      slots: of the codebook's double array.
      data: documents.
      bounds: where they begin and end.
      longest: the length of the longest string.
      flexible: how they are cut; see `corpusmill.compress.codebooks.walks`.
      savings: filled.
    """
    size = 1
    while size <= longest:
        size *= 2
    # Of the next positions: how long the longest string there is, and how many ids follow.
    reach = np.zeros(size, np.int64)
    ids = np.zeros(size, np.int64)
    for document in range(len(bounds) - 1):
        end = bounds[document + 1]
        reach[end & (size - 1)] = 0
        ids[end & (size - 1)] = 0
        for start in range(end - 1, bounds[document] - 1, -1):
            base = np.int64(ROOT_BASE)
            position = start
            while position < end:
                byte = np.int64(data[position])
                word = np.int64(slots[base + byte])
                if word & 255 != byte:
                    break
                position += 1
                base = base_of(word)
            length = position - start
            reach[start & (size - 1)] = length
            step = length
            if flexible:
                for first in range(length - 1, 0, -1):
                    total = first + reach[(start + first) & (size - 1)]
                    if total > step + reach[(start + step) & (size - 1)]:
                        step = first
            found = ids[(start + step) & (size - 1)] + 1
            ids[start & (size - 1)] = found
            saved = found - ids[(start + 1) & (size - 1)]
            savings[start] = min(max(saved, -_MOST_SAVED), _MOST_SAVED)


@compiled
def _add_by_ending(
    data: Bytes, bounds: Offsets, savings: Words, sums: Words, counts: Words
) -> None:
    for document in range(len(bounds) - 1):
        for place in range(bounds[document] + 1, bounds[document + 1]):
            ending = np.int64(data[place - 1]) << 8 | np.int64(data[place])
            sums[ending] += savings[place]
            counts[ending] += 1


@compiled
def _add_by_string(
    slots: Words,
    low_codes: Words,
    high_codes: Words,
    data: Bytes,
    starts: Offsets,
    ends: Offsets,
    savings: Words,
    sums: Words,
    counts: Words,
) -> None:
    """Adds what the last byte of each string saves, over all windows that begin with the string."""
    high_mask = -1 if len(high_codes) > 1 else 0
    for i in range(len(starts)):
        base = np.int64(ROOT_BASE)
        for place in range(starts[i], ends[i]):
            byte = np.int64(data[place])
            slot = base + byte
            word = np.int64(slots[slot])
            if word & 255 != byte:
                break
            code = np.int64(high_codes[slot & high_mask]) << 16 | np.int64(low_codes[slot])
            sums[code] += savings[place]
            counts[code] += 1
            base = base_of(word)
