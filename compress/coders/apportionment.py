"""Webster's apportionment in compiled code."""

from typing import Any

import numpy as np

from corpusmill.compress.byte_models.byte_model import Words
from corpusmill.ngram_agg.compiled import compiled

_ONE = np.uint64(1)
_ROUNDS = 4
_FEW = 1


@compiled
def divide_seats(sums: Words, precision: int, seats: Any, shares: Words) -> None:
    """Divides at most 2^32 seats among the bytes in proportion to their frequencies.

    Args:
      sums: uint32 [257], the frequencies of the bytes below each one, and all of them, 2^precision.
      precision: at most 24.
      seats: uint64.
      shares: uint64 [256], filled.
    """
    round_up = (_ONE << np.uint64(precision)) - _ONE
    divisor_bits = np.uint64(precision + 1)
    # Quotients of any divisor, rounded, are a beginning of the ranking (docs/codebooks.md). So the
    # divisor 2^precision / scale is moved to where few seats are missing or too many.
    scale = np.int64(seats)
    given = np.uint64(0)
    for _ in range(_ROUNDS):
        given = np.uint64(0)
        for byte in range(256):
            frequency = np.uint64(sums[byte + 1] - sums[byte])
            shares[byte] = (((np.uint64(scale) * frequency) << _ONE) + round_up) >> divisor_bits
            given += shares[byte]
        missing = np.int64(seats) - np.int64(given)
        if -_FEW <= missing <= _FEW or scale + missing < 1:
            break
        scale += missing
    # Frequencies that are equal are many, so all bytes of a rank are served in one go.
    while given < seats:
        weight = np.uint64(0)
        divisor = _ONE
        for byte in range(256):
            frequency = np.uint64(sums[byte + 1] - sums[byte])
            odd = (shares[byte] << _ONE) + _ONE
            if frequency * divisor > weight * odd:
                weight = frequency
                divisor = odd
        for byte in range(256):
            frequency = np.uint64(sums[byte + 1] - sums[byte])
            odd = (shares[byte] << _ONE) + _ONE
            if given < seats and frequency * divisor == weight * odd:
                shares[byte] += _ONE
                given += _ONE
    while given > seats:
        weight = _ONE << np.uint64(32)
        divisor = _ONE
        for byte in range(256):
            frequency = np.uint64(sums[byte + 1] - sums[byte])
            odd = (shares[byte] << _ONE) - _ONE
            if shares[byte] and frequency * divisor < weight * odd:
                weight = frequency
                divisor = odd
        for byte in range(255, -1, -1):
            frequency = np.uint64(sums[byte + 1] - sums[byte])
            odd = (shares[byte] << _ONE) - _ONE
            if given > seats and shares[byte] and frequency * divisor == weight * odd:
                shares[byte] -= _ONE
                given -= _ONE
