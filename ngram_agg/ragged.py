"""Rows of different lengths in flat arrays: row i has the values offsets[i] to offsets[i + 1]."""

from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.ngram_agg.compiled import compiled

Offsets = npt.NDArray[np.int64]
Values = npt.NDArray[Any]


def offsets_of(sizes: npt.NDArray[Any]) -> Offsets:
    """int64 [rows + 1], of rows with so many values each."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def row_sums(values: Values, offsets: Offsets) -> npt.NDArray[np.int64]:
    """The sum of each row's values, 0 of a row without any: int64 [rows]."""
    return np.diff(offsets_of(values)[offsets])


def take_ragged(values: Values, offsets: Offsets, rows: npt.NDArray[np.int64]) -> Values:
    """The values of some rows, one row after the other."""
    taken = np.empty(int((offsets[rows + 1] - offsets[rows]).sum()), values.dtype)
    _take(values, offsets, rows, taken)
    return taken


@compiled
def _take(values: Values, offsets: Offsets, rows: npt.NDArray[np.int64], taken: Values) -> None:
    to = 0
    for row in rows:
        for i in range(offsets[row], offsets[row + 1]):
            taken[to] = values[i]
            to += 1
