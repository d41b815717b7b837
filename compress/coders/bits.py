"""Codes of any number of bits as ids, and back.

The codes of a document stand one after the other, the highest bit of each first, and the stream is
cut into ids of `token_bits` bits, the highest bit first; zeros fill up the last one.
"""

import math

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_strings import Ids
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.ngram_agg.compiled import compiled

TOKEN_BITS = (8, 16)

Codes = npt.NDArray[np.uint64]


def check_sizes(code_bits: int, token_bits: int) -> None:
    """Raises UsageError where the number of codes would not follow from the number of ids."""
    if code_bits < token_bits:
        raise UsageError(
            f"windows of {code_bits} bits cannot be told apart in ids of {token_bits} bits; use"
            f" windows of at least {token_bits} bits"
            + (" or ids of 8 bits" if code_bits >= min(TOKEN_BITS) else "")
        )


def ids_to_boundary(code_bits: int, token_bits: int) -> int:
    """After so many ids a code ends where an id ends, again and again."""
    return math.lcm(code_bits, token_bits) // token_bits


def pack(codes: Codes, code_bits: int, token_bits: int) -> Ids:
    """The ids of a document's codes.

    Args:
      codes: uint64 of shape [codes, 2], the upper and the lower 64 bits of each.
      code_bits: at most 128.
      token_bits: at most `code_bits`.
    """
    ids = np.zeros(-(-len(codes) * code_bits // token_bits), np.uint16)
    _pack(codes, code_bits, token_bits, ids)
    return ids


def unpack(ids: Ids, code_bits: int, token_bits: int) -> tuple[Codes, int]:
    """The codes of a document, and the one that its ids break off in.

    n codes make m = ceil(n code_bits / token_bits) ids. As code_bits >= token_bits, m grows with
    n, and n = floor(m token_bits / code_bits): what is left is less than an id, or it is the
    beginning of another code.

    Returns:
      uint64 of shape [n + 1, 2], the last one filled up with zeros; and how many of its bits there
      are.

    Raises:
      DataError: an id has too many bits.
    """
    if len(ids) and ids.max() >> token_bits:
        raise DataError(f"id {ids.max()} is outside the vocabulary of {1 << token_bits:,}")
    whole, left = divmod(len(ids) * token_bits, code_bits)
    codes = np.zeros((whole + 1, 2), np.uint64)
    _unpack(ids, code_bits, token_bits, codes)
    return codes, left


@compiled
def _pack(codes: Codes, code_bits: int, token_bits: int, ids: Ids) -> None:
    held = np.uint64(0)
    bits = 0
    place = 0
    for i in range(len(codes)):
        for bit in range(code_bits - 1, -1, -1):
            word = (
                codes[i, 0] >> np.uint64(bit - 64) if bit >= 64 else codes[i, 1] >> np.uint64(bit)
            )
            held = held << np.uint64(1) | (word & np.uint64(1))
            bits += 1
            if bits == token_bits:
                ids[place] = held
                place += 1
                held = np.uint64(0)
                bits = 0
    if bits:
        ids[place] = held << np.uint64(token_bits - bits)


@compiled
def _unpack(ids: Ids, code_bits: int, token_bits: int, codes: Codes) -> None:
    code = 0
    bit = code_bits
    for i in range(len(ids)):
        for place in range(token_bits - 1, -1, -1):
            if bit == 0:
                code += 1
                bit = code_bits
            bit -= 1
            value = np.uint64(ids[i]) >> np.uint64(place) & np.uint64(1)
            if bit >= 64:
                codes[code, 0] |= value << np.uint64(bit - 64)
            else:
                codes[code, 1] |= value << np.uint64(bit)
