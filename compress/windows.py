"""The window code, step by step: slow, and what `compress.codebook` is held against.

A window is a run of bytes coded into `window_bits` bits, with the model started afresh. Nodes of
the trie of byte strings own consecutive codes: the empty string all of them, and every other node
the codes that its parent gave it. A node's first code is its own ("stop here"); the others are
divided among its children, in byte order, by Webster's apportionment of the model's frequencies.
The empty string keeps no code for itself, because no window is empty. A window is the longest
path of nodes with codes, and its code the last node's own. docs/codebooks.md proves that codes and
strings are a bijection.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from compress.byte_models.base import ByteModel
from compress.byte_strings import ByteStrings
from corpus.errors import DataError, UsageError


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

    Raises:
      UsageError: some single byte would get no code.
    """

    model: ByteModel
    window_bits: int

    def __post_init__(self) -> None:
        if not all(count for _, count in self._children(b"", 0, 1 << self.window_bits)):
            raise UsageError(
                f"windows of {self.window_bits} bits have no code for some bytes: the model's"
                f" frequencies add up to 2^{self.model.precision}; use longer windows"
            )

    def encode(self, data: bytes) -> list[int]:
        """The codes of the windows of a document."""
        codes = []
        while data:
            code, length = self.first_window(data)
            codes.append(code)
            data = data[length:]
        return codes

    def decode(self, codes: Iterable[int]) -> bytes:
        """The document that has these codes.

        Raises:
          DataError: a code is outside the window.
        """
        return b"".join(map(self.string, codes))

    def first_window(self, data: bytes) -> tuple[int, int]:
        """Code and length of the window that a text, not the empty one, begins with."""
        first, count = 0, 1 << self.window_bits
        for position, byte in enumerate(data):
            start, share = self._children(data[:position], first, count)[byte]
            if not share:
                return first, position
            first, count = start, share
        return first, len(data)

    def string(self, code: int) -> bytes:
        """The window that has this code."""
        if not 0 <= code < 1 << self.window_bits:
            raise DataError(f"code {code} is not below 2^{self.window_bits}")
        prefix, first, count = b"", 0, 1 << self.window_bits
        while not prefix or code != first:
            for byte, (start, share) in enumerate(self._children(prefix, first, count)):
                if start <= code < start + share:
                    prefix, first, count = prefix + bytes([byte]), start, share
                    break
        return prefix

    def _children(self, prefix: bytes, first: int, count: int) -> list[tuple[int, int]]:
        """First code and number of codes of each child of a node that owns these."""
        own = 1 if prefix else 0
        frequencies = self.model.frequencies(ByteStrings.of([prefix]))[0].tolist()
        children = []
        first += own
        for share in apportion(count - own, frequencies):
            children.append((first, share))
            first += share
        return children
