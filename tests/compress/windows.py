"""The window code, step by step: slow, and what the compiled coder and codebooks are held against.

A window is a run of bytes coded into `window_bits` bits, with the model started afresh. Nodes of
the trie of byte strings own consecutive codes: the empty string all of them, and every other node
the codes that its parent gave it. A node's first code is its own ("stop here"); the others are
divided among its children, in byte order, by Webster's apportionment of the model's frequencies,
or, where there are more than 2^32, by rounding cumulative frequencies. The empty string keeps no
code for itself, because no window is empty. A window is the longest path of nodes with codes, and
its code the last node's own. docs/codebooks.md proves that codes and strings are a bijection.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from corpusmill.compress.byte_models.byte_model import ByteModel
from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.compress.codecs.equal_info import check_windows
from corpusmill.corpus.errors import DataError

# Up to so many codes are divided by Webster's method.
WEBSTER_SEATS = 1 << 32


def apportion(seats: int, weights: list[int]) -> list[int]:
    """Divides seats in proportion to weights by Webster's method.

    Seats go one by one to the largest weight / (2 * seats it has + 1), the first of equals. Here
    all that would be above the divisor total / seats are given at once, and what that misses or
    exceeds is put right one by one; the result is the same (docs/codebooks.md).

    >>> apportion(7, [53, 24, 23])
    [3, 2, 2]
    """
    total = sum(weights)
    # Quotients rounded to the nearest, halves down.
    shares = [(2 * seats * weight + total - 1) // (2 * total) for weight in weights]
    while sum(shares) < seats:
        shares[_first_best(weights, [2 * share + 1 for share in shares])] += 1
    while sum(shares) > seats:
        shares[_last_worst(weights, [2 * share - 1 for share in shares])] -= 1
    return shares


def divide(seats: int, weights: list[int]) -> list[int]:
    """Divides a node's codes among its children.

    Above `WEBSTER_SEATS` every share is off by less than one code, of at least 2^32 / 2^24, from
    what is exactly proportional. Below, that would cost too much compression.
    """
    if seats <= WEBSTER_SEATS:
        return apportion(seats, weights)
    sums = list(itertools.accumulate(weights, initial=0))
    starts = [each * seats // sums[-1] for each in sums]
    return [end - start for start, end in itertools.pairwise(starts)]


def _first_best(weights: list[int], divisors: list[int]) -> int:
    best = 0
    for i in range(1, len(weights)):
        if weights[i] * divisors[best] > weights[best] * divisors[i]:
            best = i
    return best


def _last_worst(weights: list[int], divisors: list[int]) -> int:
    """Of those that have a seat."""
    having = [i for i in range(len(weights)) if divisors[i] > 0]
    worst = having[0]
    for i in having[1:]:
        if weights[i] * divisors[worst] <= weights[worst] * divisors[i]:
            worst = i
    return worst


@dataclass(frozen=True)
class WindowCode:
    """The code of windows of `window_bits` bits under a byte model.

    Attributes:
      model: says how frequent bytes are after the text since it was last started.
      window_bits: of a code.
      reset: windows after which the model starts afresh; None for never.

    Raises:
      UsageError: some single byte would get no code.
    """

    model: ByteModel
    window_bits: int
    reset: int | None = 1

    def __post_init__(self) -> None:
        check_windows(self.model, self.window_bits, self.reset)

    def encode(self, data: bytes) -> list[int]:
        """The codes of the windows of a document."""
        codes: list[int] = []
        before = b""
        while data:
            code, length = self.first_window(data, before)
            codes.append(code)
            before = self._context(before + data[:length], len(codes))
            data = data[length:]
        return codes

    def decode(self, codes: Iterable[int]) -> bytes:
        """The document that has these codes.

        Raises:
          DataError: a code is outside the window.
        """
        strings: list[bytes] = []
        before = b""
        for code in codes:
            strings.append(self.string(code, before))
            before = self._context(before + strings[-1], len(strings))
        return b"".join(strings)

    def first_window(self, data: bytes, before: bytes = b"") -> tuple[int, int]:
        """Code and length of the window that a text, not the empty one, begins with.

        Args:
          data: the text.
          before: what the model has read since it was started.
        """
        first, count = 0, 1 << self.window_bits
        for position, byte in enumerate(data):
            start, share = self._children(before, data[:position], first, count)[byte]
            if not share:
                return first, position
            first, count = start, share
        return first, len(data)

    def string(self, code: int, before: bytes = b"") -> bytes:
        """The window that has this code, where the model has read `before`."""
        if not 0 <= code < 1 << self.window_bits:
            raise DataError(f"code {code} is not below 2^{self.window_bits}")
        prefix, first, count = b"", 0, 1 << self.window_bits
        while not prefix or code != first:
            for byte, (start, share) in enumerate(self._children(before, prefix, first, count)):
                if start <= code < start + share:
                    prefix, first, count = prefix + bytes([byte]), start, share
                    break
        return prefix

    def _context(self, read: bytes, windows: int) -> bytes:
        """What of the text read, that of so many windows in all, the model still knows."""
        return b"" if self.reset is not None and windows % self.reset == 0 else read

    def _children(
        self, before: bytes, prefix: bytes, first: int, count: int
    ) -> list[tuple[int, int]]:
        """First code and number of codes of each child of a node that owns these."""
        own = 1 if prefix else 0
        frequencies = self.model.frequencies(ByteStrings.of([before + prefix]))[0].tolist()
        children = []
        first += own
        for share in divide(count - own, frequencies):
            children.append((first, share))
            first += share
        return children
