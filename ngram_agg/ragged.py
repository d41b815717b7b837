"""What is compiled for rows in flat arrays, which `corpusmill.corpus.ragged` explains."""

import numpy as np

from corpusmill.corpus.ragged import Offsets, Rows, Values
from corpusmill.ngram_agg.compiled import compiled


def take_ragged(values: Values, offsets: Offsets, rows: Rows) -> Values:
    """The values of some rows, one row after the other."""
    taken = np.empty(int((offsets[rows + 1] - offsets[rows]).sum()), values.dtype)
    _take(values, offsets, rows, taken)
    return taken


@compiled
def _take(values: Values, offsets: Offsets, rows: Rows, taken: Values) -> None:
    to = 0
    for row in rows:
        for i in range(offsets[row], offsets[row + 1]):
            taken[to] = values[i]
            to += 1
