from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.corpus.errors import DataError, UsageError
from tests.compress.samples import DATA, HARD, ngram, static
from tests.compress.windows import WindowCode, apportion

MODELS = {"static": static(), "ngram": ngram()}


def one_by_one(seats, weights):
    shares = [0] * len(weights)
    for _ in range(seats):
        worth = [Fraction(w, 2 * s + 1) for w, s in zip(weights, shares, strict=True)]
        shares[worth.index(max(worth))] += 1
    return shares


@given(st.integers(0, 300), st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_seats_go_where_they_go_one_by_one(seats, weights):
    assert apportion(seats, weights) == one_by_one(seats, weights)


@given(st.lists(st.integers(1, 4), min_size=2, max_size=30))
def test_equal_weights_are_served_in_order(weights):
    for seats in range(2 * len(weights)):
        assert apportion(seats, weights) == one_by_one(seats, weights)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("window_bits", [16, 24, 64])
@settings(max_examples=15)
@given(data=DATA)
def test_what_was_encoded_is_decoded(name, window_bits, data):
    code = WindowCode(MODELS[name], window_bits)
    data = data[:60]
    codes = code.encode(data)
    assert code.decode(codes) == data
    assert all(0 <= each < 1 << window_bits for each in codes)
    # A window is never empty, and its code says where it ends.
    assert codes == [code.first_window(code.string(each))[0] for each in codes]


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15)
@given(window_bits=st.integers(15, 64), data=st.data())
def test_every_code_has_a_string_that_has_this_code(name, window_bits, data):
    code = WindowCode(MODELS[name], window_bits)
    number = data.draw(st.integers(0, (1 << window_bits) - 1))
    string = code.string(number)
    assert string
    assert code.encode(string) == [number]


def test_longer_windows_hold_more():
    sizes = [len(WindowCode(ngram(), bits).encode(HARD[5] * 40)) * bits for bits in (16, 32, 64)]
    assert sizes == sorted(sizes, reverse=True)


def test_codes_outside_the_window_are_refused():
    code = WindowCode(static(), 16)
    for number in (-1, 1 << 16):
        with pytest.raises(DataError, match=f"code {number} "):
            code.decode([0, number])


def test_windows_too_short_for_the_model_are_refused():
    with pytest.raises(UsageError, match=r"windows of 10 bits .* 2\^14"):
        WindowCode(static([bytes(1000)]), 10)
