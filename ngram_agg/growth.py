"""How sizes grow with a corpus, extrapolated from measurements of a part of it.

The number of distinct n-grams grows like a power of the corpus' size whose exponent falls slowly
(Heaps' law is the special case in which it doesn't). Measured at several sizes, the exponent and
how fast it falls are known there; beyond, the truth lies between two curves: the exponent stays as
it was last, or it goes on falling, twice as fast as it did, to 0 at worst.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# It falls faster and faster, but not by more than this for n-grams of real text at 16 times the
# size measured: python -m benchmarks.plan.
_FASTER = 2.0


class Range(NamedTuple):
    """A lower and an upper estimate."""

    low: float
    high: float

    def times(self, factor: float) -> "Range":
        return Range(self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Growth:
    """A quantity measured at several sizes of a corpus.

    Attributes:
      sizes: rising, three or more.
      values: of the quantity; less than 1 counts as 1.
    """

    sizes: Sequence[float]
    values: Sequence[float]

    def at(self, size: float, *, steepest: float = 1.0) -> Range:
        """The quantity where the corpus is at least as large as the largest size measured.

        Args:
          size: of the corpus.
          steepest: the exponent is never taken to be more; a part of a corpus has no more n-grams
            than tokens.
        """
        x = np.log(self.sizes)
        y = np.log(np.maximum(self.values, 1))
        further = np.log(size) - x[-1]
        last = float(np.clip((y[-1] - y[-2]) / (x[-1] - x[-2]), 0, steepest))
        high = y[-1] + last * further
        bend = min(0.0, _FASTER * 2 * np.polyfit(x, y, 2)[0])
        # The exponent found last is that in the middle of the last two sizes.
        slope = max(0.0, last + bend * (x[-1] - x[-2]) / 2)
        # Until it has fallen to 0.
        falling = min(further, -slope / bend) if bend else further
        low = y[-1] + slope * falling + bend * falling**2 / 2
        return Range(float(np.exp(low)), float(np.exp(high)))
