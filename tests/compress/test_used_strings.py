"""Strings that save most ids, against slow definitions."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.compress.codebooks import used_strings
from corpusmill.compress.codebooks.codebook import BOUNDARIES, PARSES
from corpusmill.compress.codebooks.trie import Trie
from tests.compress.oracles import characters_of, word_starts_of
from tests.compress.samples import HARD, TEXT

WORDS = ["the cat", " sat on", " the mat", "\n", "猫は好き", ", 12", "x", "\xa0"]
TEXTS = st.lists(
    st.one_of(st.lists(st.sampled_from(WORDS), max_size=8).map("".join).map(str.encode)),
    min_size=1,
    max_size=4,
)


def grown(fitting, rounds=used_strings.ROUNDS):
    trie = None
    for number in range(rounds):
        trie = fitting.next_round(number, trie)
    return trie


def may_be(data, starts, begin, end, boundaries):
    """Whether the bytes from begin to end may become a string, as docs/codebooks.md says."""
    characters = {place for place, _ in characters_of(data)} | {len(data)}
    levels = [characters]
    if boundaries == "words":
        levels.append({place for place, is_start in enumerate(starts) if is_start})
    return all(
        not any(place in level for place in range(begin + 1, end)) or {begin, end} <= level
        for level in levels
    )


@pytest.mark.parametrize("boundaries", BOUNDARIES)
@settings(max_examples=25, deadline=None)
@given(TEXTS)
def test_pairs_are_counted_where_they_may_be_strings(boundaries, texts):
    fitting = used_strings.Fitting(ByteStrings.of([*TEXT, *texts]), 512, "greedy", boundaries)
    strings = grown(fitting, 4).strings()
    # The text is another one than the strings were made of.
    fitting = used_strings.Fitting(ByteStrings.of(texts), 512, "greedy", boundaries)
    ids, offsets = fitting._book(strings).encode_batch(fitting.text)
    wanted = Counter()
    for text, first, last in zip(texts, offsets[:-1], offsets[1:], strict=True):
        begin, starts = 0, word_starts_of(text)
        for left, right in itertools.pairwise(ids[first:last].tolist()):
            end = begin + len(strings[left]) + len(strings[right])
            if may_be(text, starts, begin, end, boundaries):
                wanted[left, right] += 1
            begin += len(strings[left])
    expected = {pair: count for pair, count in wanted.items() if count > 1}
    new, gains = fitting._pairs(strings, ids, offsets, 10_000)
    order = sorted(expected, key=lambda pair: (-expected[pair], pair))
    assert list(new) == [strings[left] + strings[right] for left, right in order]
    assert gains.tolist() == [expected[pair] // 2 for pair in order]
    few, _ = fitting._pairs(strings, ids, offsets, 2)
    assert list(few) == list(new)[:4]


@pytest.mark.parametrize("boundaries", BOUNDARIES)
def test_a_string_is_worth_the_ids_that_it_saves(boundaries):
    text = ByteStrings.of(TEXT * 3)
    fitting = used_strings.Fitting(text, 1 << 9, "greedy", boundaries)
    strings = grown(fitting, 12).strings()
    book = fitting._book(strings)
    ids, _ = book.encode_batch(text)
    found = used_strings._worth(book, strings, ids)
    uses = np.bincount(ids, minlength=len(strings))
    known = list(strings)
    for code, string in enumerate(known):
        if len(string) == 1:
            assert found[code] == used_strings._KEPT
            continue
        # Without boundaries, cut into the longest strings but itself.
        rest, parts = string, 0
        while rest:
            rest = rest[max(len(s) for s in known if rest.startswith(s) and s != string) :]
            parts += 1
        assert found[code] == uses[code] * (parts - 1)


@pytest.mark.parametrize("parse", PARSES)
@pytest.mark.parametrize("boundaries", BOUNDARIES)
def test_all_strings_but_fillers_may_be_used_in_the_text(parse, boundaries):
    data = TEXT * 3 + HARD
    trie = grown(used_strings.Fitting(ByteStrings.of(data), 1 << 10, parse, boundaries))
    strings = list(trie.strings())
    assert strings == sorted(set(strings))
    assert len(strings) == 1 << 10
    assert {bytes([byte]) for byte in range(256)} <= set(strings)
    longer = [string for string in strings if len(string) > 2]
    assert longer
    for string in longer:
        assert len(string) <= used_strings.MAX_STRING
        assert any(
            text.startswith(string, begin)
            and may_be(text, word_starts_of(text), begin, begin + len(string), boundaries)
            for text in set(data)
            for begin in range(len(text))
        ), string


def test_tries_have_their_strings():
    strings = sorted({bytes([byte]) for byte in range(256)} | {b"abcd", b"abce", b"b\0", b"zz"})
    trie = Trie.of(ByteStrings.of(strings))
    assert list(trie.strings()) == strings
    assert len(trie) == 256 + 4 + 1 + 1
    assert trie.codes()[trie.ends].tolist() == list(range(len(strings)))
    keep = np.ones(len(trie), bool)
    assert list(trie.only(keep).strings()) == strings


def test_parts_of_a_batch_are_fitted_on_alone():
    whole = ByteStrings.of([b"not this", *TEXT * 2])
    part = whole.part(1, len(whole))
    alone = ByteStrings.of(TEXT * 2)
    found, wanted = (
        list(grown(used_strings.Fitting(text, 512, "greedy", "words")).strings())
        for text in (part, alone)
    )
    assert found == wanted
