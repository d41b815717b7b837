import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.compress import decode_stream, encode_stream
from corpusmill.compress.codebooks.codebook import PARSES
from corpusmill.corpus.errors import DataError
from tests.codebooks import ENGLISH, HARD_TEXTS, small_book, small_used_book

DATA = st.one_of(
    st.binary(max_size=200),
    st.text("the catsdogmn", max_size=200).map(str.encode),
    st.sampled_from([text.encode() for text in HARD_TEXTS]),
)


def cut(data, places):
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


@pytest.mark.parametrize("make", [small_book, small_used_book])
@pytest.mark.parametrize("parse", PARSES)
@given(DATA, st.lists(st.integers(0, 10_000), max_size=8))
def test_the_ids_are_those_of_the_whole_wherever_it_is_cut(make, parse, data, places):
    book = make()
    found = np.concatenate(list(encode_stream(book, cut(data, places), parse)))
    assert found.tolist() == book.encode(data, parse).tolist()


@pytest.mark.parametrize("make", [small_book, small_used_book])
@pytest.mark.parametrize("parse", PARSES)
def test_a_byte_at_a_time(make, parse):
    book, data = make(), (ENGLISH * 5 + HARD_TEXTS[3] + "  猫 x\r\n").encode() + b"\xe7\x8c \xff"
    assert book.strings.lengths().max() > 10
    found = np.concatenate(list(encode_stream(book, cut(data, range(len(data))), parse)))
    assert found.tolist() == book.encode(data, parse).tolist()


@pytest.mark.parametrize("window_bits", [12, 17])
@given(DATA, st.lists(st.integers(0, 10_000), max_size=8))
def test_ids_may_be_cut_anywhere_too(window_bits, data, places):
    book = small_book(window_bits)
    raw = book.encode(data).astype(book.dtype.newbyteorder("<")).tobytes()
    assert b"".join(decode_stream(book, cut(raw, places))) == data


@pytest.mark.parametrize("parse", PARSES)
def test_an_endless_stream_is_held_back_by_a_few_strings_only(parse):
    book, chunk = small_book(), (ENGLISH * 20).encode()
    longest = int(book.strings.lengths().max())
    given_out = 0
    for number, ids in enumerate(encode_stream(book, itertools.repeat(chunk), parse), 1):
        given_out += len(book.decode(ids))
        assert number * len(chunk) - given_out < 3 * longest
        if number == 50:
            break


def test_ids_that_stand_for_nothing():
    book = small_book()
    good, bad = np.array([1, 2], "<u2").tobytes(), np.array([4096], "<u2").tobytes()
    with pytest.raises(DataError, match="id 4096 at place 4 is outside the codebook of 4,096"):
        list(decode_stream(book, [good, good + bad]))
    with pytest.raises(DataError, match="1 bytes are left, an id of this codebook has 2"):
        list(decode_stream(book, [good, b"x"]))
