"""The window code in compiled code, byte by byte (docs/codebooks.md, "The window code").

Numbers of codes have up to 128 bits and are two uint64 words, modulo 2^128. A node's run of codes
is kept in `registers`, uint64 [REGISTERS]; `sums` are uint32 [257], the frequencies of the bytes
below each one and all of them.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_models.byte_model import Words
from corpusmill.compress.byte_models.contexts import Contexts, place_of_sums
from corpusmill.compress.byte_strings import Bytes, Offsets
from corpusmill.compress.coders.apportionment import divide_seats
from corpusmill.corpus.errors import UsageError
from corpusmill.ngram_agg.compiled import compiled

Flags = npt.NDArray[np.bool_]
# A uint64.
Word = Any

# The codes that the node owns: the first one, and how many there are.
FIRST_HIGH = 0
FIRST_LOW = 1
COUNT_HIGH = 2
COUNT_LOW = 3
# Bytes of the window so far.
INSIDE = 4
# Windows since the model was started.
WINDOWS = 5
REGISTERS = 6

# Above so many codes they are divided by rounding cumulative frequencies.
WEBSTER_SEATS = np.uint64(1 << 32)


def no_codes(window_bits: int, precision: int) -> UsageError:
    """What is wrong where the empty string has too few codes for every byte to have one."""
    return UsageError(
        f"windows of {window_bits} bits have no code for some bytes: the model's frequencies"
        f" add up to 2^{precision}; use longer windows"
    )


@compiled
def begin_window(registers: Words, window_bits: int) -> None:
    """The empty string owns all codes."""
    registers[: INSIDE + 1] = 0
    # All 2^128 are 0.
    if window_bits < 64:
        registers[COUNT_LOW] = np.uint64(1) << np.uint64(window_bits)
    elif window_bits < 128:
        registers[COUNT_HIGH] = np.uint64(1) << np.uint64(window_bits - 64)


@compiled
def scaled(high: Word, low: Word, frequency: Word, precision: int) -> tuple[Word, Word]:
    """floor(n * frequency / 2^precision) modulo 2^128, n being the two words, 2^128 if they are 0.

    `frequency` is at most 2^precision, and that at most 2^24.
    """
    bits = np.uint64(precision)
    if high == np.uint64(0) and low == np.uint64(0):
        # A shift by 64 bits or more is undefined.
        top = frequency << (np.uint64(63) - bits)
        return top << np.uint64(1), np.uint64(0)
    rest = low & ((np.uint64(1) << bits) - np.uint64(1))
    low = low >> bits | high << (np.uint64(64) - bits)
    high = high >> bits
    half = np.uint64(0xFFFFFFFF)
    lower = (low & half) * frequency
    upper = (low >> np.uint64(32)) * frequency + (lower >> np.uint64(32))
    out_low = (upper << np.uint64(32)) | (lower & half)
    out_high = high * frequency + (upper >> np.uint64(32))
    sum_low = out_low + (rest * frequency >> bits)
    return out_high + np.uint64(sum_low < out_low), sum_low


@compiled
def take_seats(registers: Words) -> tuple[Word, Word]:
    """The codes that the node divides among its children; its own is left out of the run.

    After it `first` is where the children's runs begin.
    """
    high = registers[COUNT_HIGH]
    low = registers[COUNT_LOW]
    if registers[INSIDE]:
        high -= np.uint64(low == np.uint64(0))
        low -= np.uint64(1)
        registers[FIRST_LOW] += np.uint64(1)
        registers[FIRST_HIGH] += np.uint64(registers[FIRST_LOW] == np.uint64(0))
    return high, low


@compiled
def enter_child(
    registers: Words, start_high: Word, start_low: Word, end_high: Word, end_low: Word
) -> None:
    """Makes the child with the codes from `start` to `end` of the node's the node."""
    registers[COUNT_LOW] = end_low - start_low
    registers[COUNT_HIGH] = end_high - start_high - np.uint64(end_low < start_low)
    low = registers[FIRST_LOW] + start_low
    registers[FIRST_HIGH] += start_high + np.uint64(low < start_low)
    registers[FIRST_LOW] = low
    registers[INSIDE] += np.uint64(1)


@compiled
def is_few(high: Word, low: Word) -> bool:
    """Whether Webster's method divides so many codes; the words of 2^128 are 0."""
    return bool(high == np.uint64(0) and np.uint64(0) < low <= WEBSTER_SEATS)


@compiled
def encode_byte(sums: Words, precision: int, registers: Words, byte: int, shares: Words) -> bool:
    """Follows a byte down the trie.

    Returns:
      Whether it has codes. If not, the window ends before it, and `registers` are as they were.
    """
    if registers[INSIDE] and registers[COUNT_HIGH] == 0 and registers[COUNT_LOW] == 1:
        return False
    before_high = registers[FIRST_HIGH]
    before_low = registers[FIRST_LOW]
    high, low = take_seats(registers)
    if is_few(high, low):
        divide_seats(sums, precision, low, shares)
        if shares[byte] == np.uint64(0):
            registers[FIRST_HIGH] = before_high
            registers[FIRST_LOW] = before_low
            return False
        start = np.uint64(0)
        for lesser in range(byte):
            start += shares[lesser]
        enter_child(registers, np.uint64(0), start, np.uint64(0), start + shares[byte])
    else:
        start_high, start_low = scaled(high, low, np.uint64(sums[byte]), precision)
        end_high, end_low = scaled(high, low, np.uint64(sums[byte + 1]), precision)
        enter_child(registers, start_high, start_low, end_high, end_low)
    return True


@compiled
def decode_byte(
    sums: Words, precision: int, registers: Words, code_high: Word, code_low: Word, shares: Words
) -> int:
    """Follows a code, which isn't the node's own, down the trie; returns the byte."""
    high, low = take_seats(registers)
    wanted_low = code_low - registers[FIRST_LOW]
    wanted_high = code_high - registers[FIRST_HIGH] - np.uint64(code_low < registers[FIRST_LOW])
    if is_few(high, low):
        divide_seats(sums, precision, low, shares)
        start = np.uint64(0)
        byte = 0
        while start + shares[byte] <= wanted_low:
            start += shares[byte]
            byte += 1
        enter_child(registers, np.uint64(0), start, np.uint64(0), start + shares[byte])
        return byte
    byte = 0
    above = 256
    while above - byte > 1:
        middle = (byte + above) >> 1
        at_high, at_low = scaled(high, low, np.uint64(sums[middle]), precision)
        if at_high < wanted_high or (at_high == wanted_high and at_low <= wanted_low):
            byte = middle
        else:
            above = middle
    start_high, start_low = scaled(high, low, np.uint64(sums[byte]), precision)
    end_high, end_low = scaled(high, low, np.uint64(sums[byte + 1]), precision)
    enter_child(registers, start_high, start_low, end_high, end_low)
    return byte


@compiled
def is_own(registers: Words, code_high: Word, code_low: Word) -> bool:
    """Whether a code is the node's own."""
    return bool(registers[FIRST_HIGH] == code_high and registers[FIRST_LOW] == code_low)


@compiled
def bits_needed(registers: Words, code_high: Word, code_low: Word, window_bits: int) -> int:
    """How many leading bits of a code say that it is one of the node's.

    All codes that begin with these bits are.
    """
    # Distances from the code to the ends of the node's run.
    below_low = code_low - registers[FIRST_LOW]
    below_high = code_high - registers[FIRST_HIGH] - np.uint64(code_low < registers[FIRST_LOW])
    last_low = registers[COUNT_LOW] - np.uint64(1)
    last_high = registers[COUNT_HIGH] - np.uint64(registers[COUNT_LOW] == np.uint64(0))
    above_low = last_low - below_low
    above_high = last_high - below_high - np.uint64(last_low < below_low)
    rest_high = np.uint64(0)
    rest_low = np.uint64(0)
    # While the codes with the same bits above `bit` are all in the run, fewer bits are needed.
    for bit in range(window_bits):
        if bit < 64:
            rest_low |= np.uint64(1) << np.uint64(bit)
        else:
            rest_high |= np.uint64(1) << np.uint64(bit - 64)
        head_high = code_high & rest_high
        head_low = code_low & rest_low
        tail_high = rest_high - head_high
        tail_low = rest_low - head_low
        if (
            head_high > below_high
            or (head_high == below_high and head_low > below_low)
            or tail_high > above_high
            or (tail_high == above_high and tail_low > above_low)
        ):
            return window_bits - bit
    return 0


@compiled
def end_window(registers: Words, window_bits: int, reset: int) -> bool:
    """Begins the next window; returns whether the model has to start afresh."""
    begin_window(registers, window_bits)
    registers[WINDOWS] += np.uint64(1)
    if registers[WINDOWS] == np.uint64(reset):
        registers[WINDOWS] = 0
        return True
    return False


@compiled
def encode_windows(
    contexts: Contexts,
    data: Bytes,
    at: int,
    start: int,
    end: int,
    window_bits: int,
    reset: int,
    registers: Words,
    codes: Words,
) -> tuple[int, int, int]:
    """Encodes a document until it ends or `codes` is full.

    Args:
      contexts: of the model.
      data: text.
      at: what is to be read next.
      start: where the model was started.
      end: of the document.
      window_bits: of a code.
      reset: windows after which the model starts afresh; 0 for never.
      registers: of the window that was begun.
      codes: uint64 of shape [codes, 2], filled.

    Returns:
      `at` and `start` to go on with, and how many codes there are.
    """
    shares = np.empty(256, np.uint64)
    count = 0
    while count < len(codes) and (at < end or registers[INSIDE]):
        if at < end:
            place = place_of_sums(contexts, data, start, at)
            if encode_byte(contexts.sums[place], contexts.precision, registers, data[at], shares):
                at += 1
                continue
        codes[count, 0] = registers[FIRST_HIGH]
        codes[count, 1] = registers[FIRST_LOW]
        count += 1
        if end_window(registers, window_bits, reset):
            start = at
    return at, start, count


@compiled
def decode_windows(
    contexts: Contexts,
    codes: Words,
    next_code: int,
    left_bits: int,
    at: int,
    start: int,
    window_bits: int,
    reset: int,
    registers: Words,
    text: Bytes,
    known: Words,
) -> tuple[int, int, int]:
    """Decodes codes until they end or `text` is full.

    Args:
      contexts: of the model.
      codes: uint64 of shape [codes, 2].
      next_code: which one is being decoded.
      left_bits: how many bits of the last code there are; it is decoded as far as they go.
      at: where the next byte is written.
      start: where the model was started.
      window_bits: of a code.
      reset: windows after which the model starts afresh; 0 for never.
      registers: of the window that was begun.
      text: filled.
      known: int64, how many bits of the document's codes tell each byte; filled if not empty.

    Returns:
      `next_code`, `at` and `start` to go on with.
    """
    shares = np.empty(256, np.uint64)
    while next_code < len(codes) and at < len(text):
        code_high = codes[next_code, 0]
        code_low = codes[next_code, 1]
        is_last = next_code == len(codes) - 1
        if is_last and left_bits == 0:
            next_code += 1
            break
        place = place_of_sums(contexts, text, start, at)
        byte = decode_byte(
            contexts.sums[place], contexts.precision, registers, code_high, code_low, shares
        )
        if len(known) or is_last:
            needed = bits_needed(registers, code_high, code_low, window_bits)
            if is_last and needed > left_bits:
                next_code += 1
                break
            if len(known):
                known[at] = next_code * window_bits + needed
        text[at] = byte
        at += 1
        if is_own(registers, code_high, code_low):
            next_code += 1
            if end_window(registers, window_bits, reset):
                start = at
    return next_code, at, start


@compiled
def encode_lanes(
    sums: Words,
    precision: int,
    data: Bytes,
    at: Offsets,
    end: Offsets,
    active: Offsets,
    window_bits: int,
    reset: int,
    registers: Words,
) -> tuple[Flags, Flags, Flags, Words]:
    """One byte's step in each active lane.

    Args:
      sums: uint32 [lanes, 257].
      precision: of the frequencies.
      data: text.
      at: what is to be read next in each lane; changed.
      end: of the document in each lane.
      active: the lanes that have a document; it isn't at its end.
      window_bits: of a code.
      reset: windows after which the model starts afresh; 0 for never.
      registers: of each lane.

    Returns:
      For each active lane: whether it has read its byte, whether a window has ended, whether the
      model has to start afresh, and the ended window's code.
    """
    shares = np.empty(256, np.uint64)
    took = np.zeros(len(active), np.bool_)
    ended = np.zeros(len(active), np.bool_)
    due = np.zeros(len(active), np.bool_)
    codes = np.zeros((len(active), 2), np.uint64)
    for i in range(len(active)):
        lane = active[i]
        took[i] = encode_byte(sums[lane], precision, registers[lane], data[at[lane]], shares)
        at[lane] += took[i]
        ended[i] = not took[i] or at[lane] == end[lane]
        if ended[i]:
            codes[i, 0] = registers[lane, FIRST_HIGH]
            codes[i, 1] = registers[lane, FIRST_LOW]
            due[i] = end_window(registers[lane], window_bits, reset)
    return took, ended, due, codes


@compiled
def decode_lanes(
    sums: Words,
    precision: int,
    codes: Words,
    first: Offsets,
    count: Offsets,
    left_bits: Offsets,
    place: Offsets,
    active: Offsets,
    window_bits: int,
    reset: int,
    registers: Words,
) -> tuple[Flags, Flags, Flags, Bytes, Words]:
    """One byte's step in each active lane.

    Args:
      sums: uint32 [lanes, 257].
      precision: of the frequencies.
      codes: uint64 of shape [codes, 2].
      first: of the document's codes in each lane.
      count: how many there are.
      left_bits: how many bits of the last one there are; 0 if all.
      place: which of them is being decoded; changed.
      active: the lanes that have a document.
      window_bits: of a code.
      reset: windows after which the model starts afresh; 0 for never.
      registers: of each lane.

    Returns:
      For each active lane: whether there is a byte, whether the model has to start afresh, whether
      the document has ended, the byte, and how many bits of the document's codes tell it.
    """
    shares = np.empty(256, np.uint64)
    wrote = np.ones(len(active), np.bool_)
    due = np.zeros(len(active), np.bool_)
    is_done = np.zeros(len(active), np.bool_)
    text = np.empty(len(active), np.uint8)
    known = np.empty(len(active), np.int64)
    for i in range(len(active)):
        lane = active[i]
        code_high = codes[first[lane] + place[lane], 0]
        code_low = codes[first[lane] + place[lane], 1]
        text[i] = decode_byte(sums[lane], precision, registers[lane], code_high, code_low, shares)
        needed = bits_needed(registers[lane], code_high, code_low, window_bits)
        known[i] = place[lane] * window_bits + needed
        if left_bits[lane] and place[lane] == count[lane] - 1 and needed > left_bits[lane]:
            wrote[i] = False
            is_done[i] = True
        elif is_own(registers[lane], code_high, code_low):
            place[lane] += 1
            is_done[i] = place[lane] == count[lane]
            due[i] = end_window(registers[lane], window_bits, reset)
    return wrote, due, is_done, text, known
