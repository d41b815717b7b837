"""Rows of different lengths in flat arrays: row i has the values offsets[i] to offsets[i + 1]."""

from typing import Any

import numpy as np
import numpy.typing as npt

Offsets = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64]
"""Numbers of rows."""
Values = npt.NDArray[Any]


def offsets_of(sizes: npt.NDArray[Any]) -> Offsets:
    """int64 [rows + 1], of rows with so many values each."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def places(sizes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The place of each value in its row, from 0, of rows with so many values each."""
    offsets = offsets_of(sizes)
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)


def row_sums(values: Values, offsets: Offsets) -> npt.NDArray[np.int64]:
    """The sum of each row's values, 0 of a row without any: int64 [rows]."""
    return np.diff(offsets_of(values)[offsets])
