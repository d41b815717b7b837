"""Rows of different lengths, against lists."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.corpus.ragged import offsets_of, places, row_sums


@given(st.lists(st.integers(0, 5)))
def test_offsets_places_and_sums_of_rows(sizes):
    offsets = offsets_of(np.array(sizes, np.uint16))
    assert offsets.dtype == np.int64
    assert offsets.tolist() == [0, *itertools.accumulate(sizes)]
    found = places(np.array(sizes, np.uint16))
    assert found.tolist() == [place for size in sizes for place in range(size)]
    assert row_sums(found, offsets).tolist() == [sum(range(size)) for size in sizes]
