"""The equal-info windows of arXiv 2404.03626 in compiled code, byte by byte.

A node of the trie of byte strings has an interval of the numbers below
2^(window_bits + GUARD_BITS), kept in `registers` as in `coders.equal_info`; its bytes divide
it by rounding cumulative frequencies. The interval's code is the shortest string of bits of which
all continuations lie in it, the first of equals, filled up with zeros to `window_bits`. A node
whose code needs more bits doesn't fit.
"""

from typing import Any

import numpy as np

from corpusmill.compress.byte_models.byte_model import Words
from corpusmill.compress.byte_strings import Bytes, Offsets
from corpusmill.compress.coders.equal_info import (
    COUNT_HIGH,
    COUNT_LOW,
    FIRST_HIGH,
    FIRST_LOW,
    INSIDE,
    Flags,
    begin_window,
    enter_child,
    scaled,
)
from corpusmill.ngram_agg.compiled import compiled

# So much finer than codes intervals are.
GUARD_BITS = 32
MAX_WINDOW_BITS = 64

# Behind what `compress.coders.equal_info` has of a window, and in place of its `WINDOWS`: whether
# the window is gone through for the second time, and what was found the first time: its code, or
# how long it is.
AGAIN = 5
FOUND = 6
REGISTERS = 7

_UNFIT = np.uint64(0)


@compiled
def begin_pass(registers: Words, window_bits: int, again: bool) -> None:
    """Goes back to the empty string."""
    begin_window(registers, window_bits + GUARD_BITS)
    registers[AGAIN] = np.uint64(again)
    if not again:
        registers[FOUND] = 0


@compiled
def code_of(registers: Words) -> tuple[bool, Any]:
    """Whether the node fits, and its code."""
    high = registers[COUNT_HIGH]
    low = registers[COUNT_LOW]
    size = 0
    while high or low > np.uint64(1):
        low = low >> np.uint64(1) | high << np.uint64(63)
        high >>= np.uint64(1)
        size += 1
    # An interval of n numbers has an aligned block of at least n / 4 of them.
    for block in range(size, max(size - 3, GUARD_BITS - 1), -1):
        rest_high = (np.uint64(1) << np.uint64(block - 64)) - np.uint64(1) if block > 64 else _UNFIT
        rest_low = (np.uint64(1) << np.uint64(block)) - np.uint64(1) if block < 64 else ~_UNFIT
        # Rounded up to the next block.
        start_low = registers[FIRST_LOW] + rest_low
        start_high = registers[FIRST_HIGH] + rest_high + np.uint64(start_low < rest_low)
        start_low &= ~rest_low
        start_high &= ~rest_high
        # How far its last number is from the first one of the interval; then against its size.
        end_low = (start_low | rest_low) - registers[FIRST_LOW]
        end_high = (start_high | rest_high) - registers[FIRST_HIGH]
        end_high -= np.uint64((start_low | rest_low) < registers[FIRST_LOW])
        if end_high < registers[COUNT_HIGH] or (
            end_high == registers[COUNT_HIGH] and end_low < registers[COUNT_LOW]
        ):
            return True, start_low >> np.uint64(GUARD_BITS) | start_high << np.uint64(GUARD_BITS)
    return False, _UNFIT


@compiled
def encode_lanes(
    sums: Words,
    precision: int,
    data: Bytes,
    at: Offsets,
    start: Offsets,
    end: Offsets,
    active: Offsets,
    window_bits: int,
    delay: bool,
    registers: Words,
) -> tuple[Flags, Flags, Flags, Words]:
    """One byte's step in each active lane.

    Args:
      sums: uint32 [lanes, 257].
      precision: of the frequencies.
      data: text.
      at: what is to be read next in each lane; changed.
      start: where the window in each lane begins; changed.
      end: of the document in each lane.
      active: the lanes that have a document; it isn't at its end.
      window_bits: of a code.
      delay: whether a window is cut to its shortest beginning that has its code.
      registers: of each lane.

    Returns:
      For each active lane: whether it has read its byte, whether the model has to start afresh,
      whether a window has ended, and its code.
    """
    took = np.zeros(len(active), np.bool_)
    due = np.zeros(len(active), np.bool_)
    ended = np.zeros(len(active), np.bool_)
    codes = np.zeros(len(active), np.uint64)
    for i in range(len(active)):
        lane = active[i]
        node = registers[lane]
        before = node.copy()
        _, code = code_of(node)
        byte = np.int64(data[at[lane]])
        _enter(sums[lane], precision, node, byte)
        fits, child_code = code_of(node)
        if fits:
            took[i] = True
            at[lane] += 1
            code = child_code
        else:
            node[:] = before
        is_over = not fits or at[lane] == end[lane]
        if node[AGAIN]:
            ended[i] = code == node[FOUND]
        elif is_over and delay:
            node[FOUND] = code
            at[lane] = start[lane]
            begin_pass(node, window_bits, True)
            due[i] = True
            took[i] = False
        else:
            ended[i] = is_over
        if ended[i]:
            codes[i] = code
            start[lane] = at[lane]
            begin_pass(node, window_bits, False)
            due[i] = True
    return took, due, ended, codes


@compiled
def decode_lanes(
    sums: Words,
    precision: int,
    codes: Words,
    place: Offsets,
    active: Offsets,
    window_bits: int,
    delay: bool,
    registers: Words,
) -> tuple[Flags, Flags, Flags, Bytes]:
    """One byte's step in each active lane: first to find how long the window is, then to write it.

    Args:
      sums: uint32 [lanes, 257].
      precision: of the frequencies.
      codes: uint64, of windows.
      place: which of them is being decoded in each lane.
      active: the lanes that have a document.
      window_bits: of a code.
      delay: whether a window is the shortest string that has its code, not the longest.
      registers: of each lane.

    Returns:
      For each active lane: whether there is a byte, whether the model has to start afresh, whether
      the window has ended, and the byte (of a first pass, too, for the model). A window that has
      ended without a byte has a code that no string has.
    """
    wrote = np.zeros(len(active), np.bool_)
    due = np.zeros(len(active), np.bool_)
    ended = np.zeros(len(active), np.bool_)
    text = np.empty(len(active), np.uint8)
    for i in range(len(active)):
        lane = active[i]
        node = registers[lane]
        code = codes[place[lane]]
        byte = _byte_at(sums[lane], precision, node, code)
        text[i] = byte
        _enter(sums[lane], precision, node, byte)
        if node[AGAIN]:
            wrote[i] = True
            ended[i] = node[INSIDE] == node[FOUND]
        else:
            fits, child_code = code_of(node)
            if fits and child_code == code:
                node[FOUND] = node[INSIDE]
            if not fits or (delay and node[FOUND]):
                due[i] = True
                ended[i] = node[FOUND] == 0
                begin_pass(node, window_bits, True)
        if ended[i]:
            begin_pass(node, window_bits, False)
            due[i] = True
    return wrote, due, ended, text


@compiled
def _enter(sums: Words, precision: int, node: Words, byte: Any) -> None:
    start_high, start_low = scaled(
        node[COUNT_HIGH], node[COUNT_LOW], np.uint64(sums[byte]), precision
    )
    end_high, end_low = scaled(
        node[COUNT_HIGH], node[COUNT_LOW], np.uint64(sums[byte + 1]), precision
    )
    enter_child(node, start_high, start_low, end_high, end_low)


@compiled
def _byte_at(sums: Words, precision: int, node: Words, code: Any) -> int:
    """The byte in whose interval the code lies, zeros behind it."""
    code_low = code << np.uint64(GUARD_BITS)
    wanted_low = code_low - node[FIRST_LOW]
    wanted_high = (code >> np.uint64(64 - GUARD_BITS)) - node[FIRST_HIGH]
    wanted_high -= np.uint64(code_low < node[FIRST_LOW])
    byte = 0
    above = 256
    while above - byte > 1:
        middle = (byte + above) >> 1
        high, low = scaled(node[COUNT_HIGH], node[COUNT_LOW], np.uint64(sums[middle]), precision)
        if high < wanted_high or (high == wanted_high and low <= wanted_low):
            byte = middle
        else:
            above = middle
    return byte
