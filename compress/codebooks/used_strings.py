"""Strings chosen by the ids that they save in the parse that is used: the allocation `used`.

Like byte-pair encoding it joins strings that often stand side by side. But many are joined at a
time, the text is cut anew with every set of strings, and strings that save little are dropped again
whatever was made of them. docs/codebooks.md describes it.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from corpusmill.compress.byte_strings import Bytes, ByteStrings, Ids, Offsets, read_only
from corpusmill.compress.codebooks.codebook import Codebook
from corpusmill.compress.codebooks.double_array import ROOT_BASE, base_of
from corpusmill.compress.codebooks.trie import Trie, Words
from corpusmill.compress.codebooks.word_starts import character_starts, word_starts
from corpusmill.corpus.ragged import offsets_of
from corpusmill.ngram_agg.compiled import compiled

# Bytes of a string. Longer ones are common in copied text only.
MAX_STRING = 128
# Rounds in which there are more strings each time, and rounds in which ever fewer are exchanged.
_GROWING, _SETTLING = 8, 12
ROUNDS = _GROWING + _SETTLING + 1
# Pairs that overlap are counted both, and only one of them can be used.
_OVERLAP = 2
# Worths are in tenths of an id that is saved. What is discounted is 1.5 passages.
_SAVED, _DISCOUNT = 10, 15
# Worth of a single byte, without which not all bytes could be encoded.
_KEPT = 1 << 62


@dataclass(frozen=True)
class Fitting:
    """What strings are fitted on, and for what.

    Attributes:
      text: documents, in memory; fitting takes some 20 times as much as they do.
      size: how many strings there are to be, at least 512.
      parse: `greedy` or `flexible`, how text is going to be cut.
      boundaries: `none`, or `words` for strings that go beyond a word from its start to another's
        end only.
      phrase_price: a string of several words counts one so manyth of what it saves; None where
        there are no words.
      passage: bytes of a passage, or a few more. A string that is used in p of them is worth
        (p - 1.5) / p of what it saves, but a tenth at least: it will be used less in other text.
    """

    text: ByteStrings
    size: int
    parse: str
    boundaries: str
    phrase_price: int | None
    passage: int = 1 << 14

    def next_round(self, number: int, trie: Trie | None) -> Trie:
        """The strings of a round: those of the round before without the worst, and new ones.

        Args:
          number: of the round, from 0 on, below `ROUNDS`. The last one adds nothing.
          trie: what the round before gave; None in the first one.
        """
        strings = _single_bytes() if trie is None else trie.strings()
        book = self._book(strings)
        ids, offsets = book.encode_batch(self.text)
        worth = self._worth(book, strings, ids, offsets)
        if number == ROUNDS - 1:
            return Trie.of(self._filled(strings.take(_best(worth, self.size))))
        most = self._most(number)
        new, gains = self._pairs(strings, ids, offsets, most)
        return Trie.of(_merged(strings, worth, new, gains, most))

    def _most(self, number: int) -> int:
        """How many strings are kept after a round."""
        if number < _GROWING:
            # Rounded: what is a whole number may come out a little smaller on some machine.
            return round(256 * math.pow(self.size / 256, (number + 1) / _GROWING))
        return self.size + self.size * (ROUNDS - 1 - number) // (_SETTLING + 1)

    def _book(self, strings: ByteStrings) -> Codebook:
        made_of = {"parse": self.parse, "boundaries": self.boundaries}
        return Codebook.of(Trie.of(strings), made_of)

    @cached_property
    def _starts(self) -> Bytes:
        """1 where a character starts, 2 where a word does as well, if that makes a difference."""
        starts = character_starts(self.text)
        if self.boundaries == "words":
            starts += word_starts(self.text)
        return starts

    def _pairs(
        self, strings: ByteStrings, ids: Ids, offsets: Offsets, most: int
    ) -> tuple[ByteStrings, Words]:
        """Strings of two neighbours in the text, most frequent first, and what each may save."""
        keys = np.empty(max(0, len(ids) - 1), np.uint64)
        lengths = strings.lengths()
        first = self.text.offsets[0]
        keys = keys[: _pair_keys(ids, offsets, lengths, first, self._starts, keys)]
        keys.sort()
        counts = np.empty(len(keys), np.int64)
        found = _count_runs(keys, counts)
        keys, counts = keys[:found], counts[:found]
        # Of equals the first pairs in the order of strings.
        chosen = np.argsort(-counts, kind="stable")[: 2 * most]
        left, right = np.divmod(keys[chosen].astype(np.int64), len(strings))
        both = np.stack([left, right], 1).ravel()
        joined = strings.take(both)
        new = ByteStrings(joined.data, joined.offsets[::2])
        return new, self._priced(new, counts[chosen] * _SAVED // _OVERLAP)

    def _worth(self, book: Codebook, strings: ByteStrings, ids: Ids, offsets: Offsets) -> Words:
        """What each string saves, int64: its uses, times how many ids it takes without it.

        Ids count `_SAVED`, less where the string is used in few passages.
        """
        parts, uses, passages, seen = (np.zeros(len(strings), np.int64) for _ in range(4))
        slots, ends = book.columns["slots"], book.columns.get("ends")
        _count_parts(slots, ends, read_only(strings.data), read_only(strings.offsets), parts)
        lengths = strings.lengths()
        _count_uses(ids, offsets, lengths, self.passage, uses, passages, seen)
        rate = np.maximum(1, _SAVED * passages - _DISCOUNT)
        worth = self._priced(strings, uses * (parts - 1) * rate // np.maximum(1, passages))
        return np.where(parts > 1, worth, _KEPT * (lengths == 1))

    def _priced(self, strings: ByteStrings, worth: Words) -> Words:
        """Worths without what strings of several words cost."""
        if self.phrase_price is None:
            return worth
        is_start = word_starts(strings, is_strict=False)
        starts = offsets_of(is_start)
        begins, ends = strings.offsets[:-1], strings.offsets[1:]
        is_phrase = starts[ends] > starts[begins + 1]
        return np.where(is_phrase, worth // self.phrase_price, worth)

    def _filled(self, strings: ByteStrings) -> ByteStrings:
        """With strings that nobody needs, where text has too few: the first ones of two bytes."""
        known = set(strings)
        short = (bytes(each) for n in (2, 3) for each in itertools.product(range(256), repeat=n))
        fillers = itertools.islice(
            (each for each in short if each not in known), self.size - len(known)
        )
        return ByteStrings.of(sorted([*known, *fillers]))


def _single_bytes() -> ByteStrings:
    return ByteStrings(np.arange(256, dtype=np.uint8), np.arange(257))


def _best(worth: Words, size: int) -> Words:
    """The places of all single bytes and the strings worth most, the first of equals, rising."""
    return np.sort(np.argsort(-worth, kind="stable")[:size])


def _merged(
    strings: ByteStrings, worth: Words, new: ByteStrings, gains: Words, most: int
) -> ByteStrings:
    """The best of old and new strings, all single bytes among them."""
    known = dict(zip(strings, worth.tolist(), strict=True))
    for string, gain in zip(new, gains.tolist(), strict=True):
        if len(string) <= MAX_STRING:
            known.setdefault(string, gain)
    rising = sorted(known)
    merged = ByteStrings.of(rising)
    return merged.take(_best(np.array([known[string] for string in rising]), most))


@compiled
def _pair_keys(
    ids: Ids, offsets: Offsets, lengths: Offsets, first: int, starts: Bytes, keys: Words
) -> int:
    """Left times strings plus right, for neighbours that may be one string; returns how many."""
    found = 0
    begin = first
    for document in range(len(offsets) - 1):
        for place in range(offsets[document], offsets[document + 1]):
            left = ids[place]
            middle = begin + lengths[left]
            if place + 1 < offsets[document + 1]:
                right = ids[place + 1]
                end = middle + lengths[right]
                # What starts inside has to start at both ends.
                inside = np.uint8(0)
                for at in range(begin + 1, end):
                    inside = max(inside, starts[at])
                if inside <= min(starts[begin], starts[end]):
                    keys[found] = np.uint64(left) * np.uint64(len(lengths)) + np.uint64(right)
                    found += 1
            begin = middle
    return found


@compiled
def _count_runs(keys: Words, counts: Offsets) -> int:
    """Moves the keys that are there twice or more to the front, with their counts."""
    found = 0
    begin = 0
    while begin < len(keys):
        end = begin + 1
        while end < len(keys) and keys[end] == keys[begin]:
            end += 1
        if end - begin > 1:
            keys[found] = keys[begin]
            counts[found] = end - begin
            found += 1
        begin = end
    return found


@compiled
def _count_uses(
    ids: Ids,
    offsets: Offsets,
    lengths: Offsets,
    most: int,
    uses: Words,
    passages: Words,
    seen: Words,
) -> None:
    """How often each string is used, and in how many passages; `seen` is the last one's number."""
    passage = 0
    for document in range(len(offsets) - 1):
        passage += 1
        size = 0
        for place in range(offsets[document], offsets[document + 1]):
            if size >= most:
                passage += 1
                size = 0
            string = ids[place]
            uses[string] += 1
            passages[string] += seen[string] != passage
            seen[string] = passage
            size += lengths[string]


@compiled
def _count_parts(
    slots: Words, ends: Words | None, data: Bytes, offsets: Offsets, parts: Words
) -> None:
    """How many of the other strings each string takes, the longest at each place."""
    for string in range(len(offsets) - 1):
        at, end = offsets[string], offsets[string + 1]
        parts[string] = 0
        while at < end:
            stop = at + 1
            base = np.int64(ROOT_BASE)
            for place in range(at, end):
                byte = np.int64(data[place])
                slot = base + byte
                word = np.int64(slots[slot])
                if word & 255 != byte:
                    break
                if (ends is None or ends[slot]) and place + 1 - at < end - offsets[string]:
                    stop = place + 1
                base = base_of(word)
            at = stop
            parts[string] += 1
