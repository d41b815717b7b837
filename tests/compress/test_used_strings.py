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
from tests.compress.oracles import characters_of, class_of, word_starts_of
from tests.compress.samples import HARD, TEXT

WORDS = ["the cat", " sat on", " the mat", "\n", "猫は好き", ", 12", "x", "\xa0"]
PRICES = {"none": None, "words": 4}
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
    fitting = used_strings.Fitting(
        ByteStrings.of([*TEXT, *texts]), 512, "greedy", boundaries, PRICES[boundaries]
    )
    strings = grown(fitting, 4).strings()
    # The text is another one than the strings were made of.
    fitting = used_strings.Fitting(
        ByteStrings.of(texts), 512, "greedy", boundaries, PRICES[boundaries]
    )
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
    assert gains.tolist() == [
        priced(string, 5 * expected[pair], boundaries)
        for string, pair in zip(new, order, strict=True)
    ]
    few, _ = fitting._pairs(strings, ids, offsets, 2)
    assert list(few) == list(new)[:4]


@pytest.mark.parametrize("boundaries", BOUNDARIES)
@pytest.mark.parametrize("passage", [5, 40, 1 << 14])
def test_a_string_is_worth_the_ids_that_it_saves(boundaries, passage):
    text = ByteStrings.of([*TEXT * 3, b" ".join(TEXT) * 4])
    fitting = used_strings.Fitting(text, 1 << 9, "greedy", boundaries, PRICES[boundaries], passage)
    strings = grown(fitting, 4).strings()
    book = fitting._book(strings)
    ids, offsets = book.encode_batch(text)
    found = fitting._worth(book, strings, ids, offsets)
    known = list(strings)
    uses, passages = Counter(), Counter()
    for first, last in itertools.pairwise(offsets):
        for part in passages_of([known[code] for code in ids[first:last]], passage):
            uses.update(part)
            passages.update(set(part))
    for code, string in enumerate(known):
        if len(string) == 1:
            assert found[code] == used_strings._KEPT
            continue
        # Without boundaries, cut into the longest strings but itself.
        rest, parts = string, 0
        while rest:
            rest = rest[max(len(s) for s in known if rest.startswith(s) and s != string) :]
            parts += 1
        seen = max(1, passages[string])
        saved = uses[string] * (parts - 1) * max(1, 10 * seen - 15) // seen
        assert found[code] == priced(string, saved, boundaries)
    assert max(passages.values()) > 3


def passages_of(strings, size):
    """The strings of a document, a list of them for each passage of so many bytes or a few more."""
    parts = [[]]
    for string in strings:
        if sum(map(len, parts[-1])) >= size:
            parts.append([])
        parts[-1].append(string)
    return parts


def priced(string, worth, boundaries):
    """A quarter for a string of several words; those without blanks join what is beside them."""
    places = characters_of(string)
    classes = [class_of(character) for _, character in places]
    words = 1
    for (_, before), kinds in zip(places, itertools.pairwise(classes), strict=False):
        words += before != " " and kinds[0] != kinds[1] and "without" not in "".join(kinds)
    for (_, blank), kind in zip(places[1:], classes[2:], strict=False):
        words += blank == " " and kind != "space"
    return worth // 4 if boundaries == "words" and words > 1 else worth


@pytest.mark.parametrize(
    ("string", "is_phrase"),
    [
        (" of the", True),
        ("the,", True),
        (" the", False),
        ("猫は", False),
        ("猫\uff0c", False),
        ("。x1", True),
    ],
)
def test_a_string_of_several_words_is_worth_a_quarter(string, is_phrase):
    fitting = used_strings.Fitting(ByteStrings.of([]), 512, "greedy", "words", 4)
    found = fitting._priced(ByteStrings.of([string]), np.array([403]))
    assert found.tolist() == [100 if is_phrase else 403]
    assert priced(string.encode(), 403, "words") == found[0]


@pytest.mark.parametrize("parse", PARSES)
@pytest.mark.parametrize("boundaries", BOUNDARIES)
def test_all_strings_but_fillers_may_be_used_in_the_text(parse, boundaries):
    data = TEXT * 3 + HARD
    trie = grown(
        used_strings.Fitting(ByteStrings.of(data), 1 << 10, parse, boundaries, PRICES[boundaries])
    )
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
        list(grown(used_strings.Fitting(text, 512, "greedy", "words", 4)).strings())
        for text in (part, alone)
    )
    assert found == wanted
