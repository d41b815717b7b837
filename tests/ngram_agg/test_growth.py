import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.ngram_agg.growth import Growth

SIZES = [1000 * 2**i for i in range(5)]


@given(st.floats(0.1, 1), st.floats(1, 50))
def test_a_power_law_goes_on(exponent, factor):
    growth = Growth(SIZES, [factor * size**exponent for size in SIZES])
    for each in growth.at(10**7):
        assert each == pytest.approx(factor * 10 ** (7 * exponent), rel=1e-6)


@pytest.mark.parametrize("values", [200_000, 5_000_000])
@pytest.mark.parametrize("exponent", [0.9, 1.3])
def test_a_falling_exponent_lies_between(values, exponent):
    # The expected number of distinct values among n draws from a Zipf distribution.
    shares = np.arange(1.0, values + 1) ** -exponent
    shares /= shares.sum()

    def distinct(draws):
        return float(np.sum(-np.expm1(draws * np.log1p(-shares))))

    low, high = Growth(SIZES, list(map(distinct, SIZES))).at(16 * SIZES[-1])
    truth = distinct(16 * SIZES[-1])
    assert low <= 1.1 * truth
    assert truth <= high <= 1.4 * truth
    assert low > truth / 1.4


@given(st.lists(st.integers(0, 10**6), min_size=5, max_size=5), st.floats(1, 1e6))
def test_estimates_never_fall_nor_outgrow_the_corpus(values, factor):
    low, high = Growth(SIZES, values).at(SIZES[-1] * factor)
    last = max(values[-1], 1)
    assert last * (1 - 1e-9) <= low <= high * (1 + 1e-9)
    assert high <= last * factor * (1 + 1e-9)
