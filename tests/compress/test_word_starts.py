"""Where words and characters start, against slow definitions."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.compress.codebooks.word_starts import (
    CONTEXT_BYTES,
    character_starts,
    with_word_starts,
    word_starts,
)
from tests.compress.oracles import characters_of, word_starts_of

CHARACTERS = "ab1 \n\t_'.\x85\xa0\u0301\u3000猫かé½²🐈\U00030000\U0010ffff"
DATA = st.one_of(
    st.binary(max_size=30),
    st.text(CHARACTERS, max_size=30).map(str.encode),
    st.text(max_size=20).map(str.encode),
    st.lists(st.sampled_from([b"\xe7", b"\x8c", b"\xab", b" ", b"a", b"\xf0\x9f"])).map(b"".join),
    # Long enough for what is done many bytes at a time.
    st.lists(st.one_of(st.text("ab1 \n.", max_size=80), st.text("é猫 ", max_size=2)), max_size=6)
    .map("".join)
    .map(str.encode),
)


@given(DATA)
# Too long, a surrogate, and too large.
@example(b"\xc0\x80 \xe0\x80\x80 \xf0\x80\x80\x80 \xed\xa0\x80 \xf4\x90\x80\x80 \xf5\x80\x80\x80")
def test_they_are_those_of_the_definition(data):
    documents = ByteStrings.of([data])
    assert word_starts(documents).tolist() == word_starts_of(data)
    begins = {place for place, _ in characters_of(data)} | {len(data)}
    expected = [int(place in begins) for place in range(len(data) + 1)]
    assert character_starts(documents).tolist() == expected


@given(st.lists(DATA, min_size=1, max_size=5))
def test_documents_are_marked_each_for_itself(texts):
    documents = ByteStrings.of(texts)
    found = word_starts(documents)
    for i, text in enumerate(texts):
        begin, end = documents.offsets[i : i + 2]
        if text:
            assert found[begin : end + 1].tolist() == word_starts_of(text)


@given(st.lists(DATA, max_size=5))
def test_marked_text_says_where_words_start_and_end(texts):
    documents = ByteStrings.of([b"ab", *texts, b" c"])
    starts = word_starts(documents).astype(np.uint16)
    expected = documents.data + (starts[:-1] << 8) + (starts[1:] << 9)
    assert with_word_starts(documents)[:-1].tolist() == expected.tolist()


@given(DATA, st.integers(0, 60))
def test_a_few_bytes_around_a_place_decide(data, place):
    place %= len(data) + 1
    first = max(0, place - CONTEXT_BYTES)
    part = data[first : place + CONTEXT_BYTES]
    if 0 < place < len(data):
        assert word_starts_of(part)[place - first] == word_starts_of(data)[place]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the cat  sat", ["the", " cat", " ", " sat"]),
        ("if x:\n    y=1", ["if", " x", ":", "\n   ", " y", "=", "1"]),
        ("don't, thé 12ab", ["don", "'", "t", ",", " thé", " 12", "ab"]),
        ("猫は好き。 x", ["猫", "は", "好", "き", "。", " x"]),
        ("a \n b ", ["a", " \n", " b", " "]),
        ("한국어 ไทย 猫x", ["한국어", " ไ", "ท", "ย", " 猫", "x"]),
    ],
)
def test_words(text, words):
    starts = np.flatnonzero(word_starts(ByteStrings.of([text])))
    data = text.encode()
    cuts = itertools.pairwise(starts)
    assert [data[begin:end].decode() for begin, end in cuts] == words
