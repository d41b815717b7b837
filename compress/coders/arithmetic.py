"""Arithmetic coding of whole documents, which say themselves where they end.

Beside the model's 256 frequencies, which add up to F = 2^precision, stands a 257th symbol of
frequency 1, "stop here". An interval [low, low + range) of a number's binary digits is narrowed
symbol by symbol; `range` has 48 to 56 bits, and `low` as many digits as it takes, of which the last
56 are kept in a register and those before them are bytes already written, where a carry can still
change them:

    step = range // (F + 1)
    low += step * (sum of the frequencies below the symbol's; of the stop symbol it is F)
    range = step * frequency
    while range < 2^48: low, range = 256 * low, 256 * range

After the stop symbol as few more digits are written as make every number that begins with all of
them one of the interval (Witten, Neal & Cleary 1987; Martin 1979).
"""

from typing import Any

import numpy as np

from corpusmill.compress.byte_models.byte_model import Words
from corpusmill.compress.byte_models.contexts import Contexts, place_of_sums
from corpusmill.compress.byte_strings import Bytes, Offsets
from corpusmill.ngram_agg.compiled import compiled

# Registers, uint64 [REGISTERS]. `RANGE` is the interval's. `LOW` is where it begins (encoder's);
# `INSIDE` is how far above that the coded number is, and `DIGITS` are the 56 digits of the number
# in the register (decoder's). `SHIFTED` bytes have left the register.
RANGE = 0
LOW = 1
INSIDE = 1
DIGITS = 2
SHIFTED = 3
REGISTERS = 4

STOP = 256
# What `decode_symbol` says where no symbol is possible.
DAMAGED = 257

_WIDTH = 56
_MASK = np.uint64((1 << _WIDTH) - 1)
_LEAST_RANGE = np.uint64(1 << 48)
_TOP = np.uint64(48)
_BYTE = np.uint64(8)


@compiled
def begin_encoding(registers: Words) -> None:
    registers[:] = 0
    registers[RANGE] = np.uint64(1) << np.uint64(_WIDTH)


@compiled
def encode_symbols(
    below: Words, frequencies: Words, precision: int, registers: Words, out: Bytes
) -> None:
    """Narrows the interval.

    Args:
      below: uint32, the sum of the frequencies below each symbol's.
      frequencies: uint32, the symbols' own.
      precision: frequencies add up to 2^precision, without the stop symbol's.
      registers: changed.
      out: bytes; the first registers[SHIFTED] of them are written.
    """
    total = (np.uint64(1) << np.uint64(precision)) + np.uint64(1)
    width = registers[RANGE]
    low = registers[LOW]
    written = np.int64(registers[SHIFTED])
    for i in range(len(below)):
        step = width // total
        low += step * np.uint64(below[i])
        width = step * np.uint64(frequencies[i])
        if low > _MASK:
            low &= _MASK
            _carry(out, written)
        while width < _LEAST_RANGE:
            out[written] = low >> _TOP
            written += 1
            low = (low << _BYTE) & _MASK
            width <<= _BYTE
    registers[RANGE] = width
    registers[LOW] = low
    registers[SHIFTED] = np.uint64(written)


@compiled
def _carry(out: Bytes, written: Any) -> None:
    """Adds one to the number that has been written, which stays below 1."""
    place = written - 1
    while out[place] == 255:
        out[place] = 0
        place -= 1
    out[place] += 1


@compiled
def finish_encoding(precision: int, token_bytes: int, registers: Words, out: Bytes) -> int:
    """Encodes the stop symbol and writes the last digits; returns how many bytes there are."""
    total = (np.uint64(1) << np.uint64(precision)) + np.uint64(1)
    width = registers[RANGE] // total
    low = registers[LOW] + width * (total - np.uint64(1))
    written = np.int64(registers[SHIFTED])
    # So many bytes of the register, that all of them make whole ids.
    more = -written % token_bytes
    while True:
        rest = (np.uint64(1) << np.uint64(_WIDTH - 8 * more)) - np.uint64(1)
        first = (low + rest) & ~rest
        if first + rest < low + width:
            break
        more += token_bytes
    if first > _MASK:
        first &= _MASK
        _carry(out, written)
    for i in range(more):
        out[written + i] = first >> np.uint64(48 - 8 * i) & np.uint64(255)
    return int(written + more)


@compiled
def begin_decoding(registers: Words, stream: Bytes, first: int, end: int) -> None:
    """Fills the register with the first digits of stream[first:end]; zeros follow the end."""
    registers[RANGE] = np.uint64(1) << np.uint64(_WIDTH)
    digits = np.uint64(0)
    for place in range(first, first + _WIDTH // 8):
        digits = digits << _BYTE | np.uint64(stream[place] if place < end else 0)
    registers[INSIDE] = digits
    registers[DIGITS] = digits
    registers[SHIFTED] = 0


@compiled
def decode_symbol(sums: Words, precision: int, registers: Words) -> int:
    """The next symbol: a byte, `STOP` or `DAMAGED`; the interval becomes the symbol's."""
    total = np.uint64(1) << np.uint64(precision)
    step = registers[RANGE] // (total + np.uint64(1))
    target = registers[INSIDE] // step
    if target >= total:
        registers[INSIDE] -= step * total
        registers[RANGE] = step
        return STOP if target == total else DAMAGED
    byte = 0
    above = 256
    while above - byte > 1:
        middle = (byte + above) >> 1
        if np.uint64(sums[middle]) <= target:
            byte = middle
        else:
            above = middle
    registers[INSIDE] -= step * np.uint64(sums[byte])
    registers[RANGE] = step * np.uint64(sums[byte + 1] - sums[byte])
    return byte


@compiled
def bits_needed(registers: Words) -> int:
    """How many of the document's bits say that the symbols so far are those: before `shift`."""
    digits = registers[DIGITS]
    bits = 0
    while True:
        rest = _MASK >> np.uint64(bits)
        head = digits & rest
        # Below the number, and above it, are so many others that begin with the same bits.
        inside = registers[INSIDE]
        if head <= inside and rest - head < registers[RANGE] - inside:
            return int(8 * np.int64(registers[SHIFTED]) + bits)
        bits += 1


@compiled
def shift(registers: Words, stream: Bytes, first: int, end: int) -> None:
    """Brings the range back to 48 bits or more."""
    while registers[RANGE] < _LEAST_RANGE:
        place = first + np.int64(registers[SHIFTED]) + _WIDTH // 8
        following = np.uint64(stream[place] if place < end else 0)
        registers[RANGE] <<= _BYTE
        registers[INSIDE] = registers[INSIDE] << _BYTE | following
        registers[DIGITS] = (registers[DIGITS] << _BYTE | following) & _MASK
        registers[SHIFTED] += np.uint64(1)


@compiled
def find_intervals(
    contexts: Contexts, data: Bytes, start: int, first: int, below: Words, frequencies: Words
) -> None:
    """Sets what `encode_symbols` asks for, for the bytes from data[first] on.

    The document begins at data[start].
    """
    for i in range(len(below)):
        place = place_of_sums(contexts, data, start, first + i)
        byte = data[first + i]
        below[i] = contexts.sums[place, byte]
        frequencies[i] = contexts.sums[place, byte + 1] - contexts.sums[place, byte]


@compiled
def decode_symbols(
    contexts: Contexts,
    stream: Bytes,
    at: int,
    registers: Words,
    text: Bytes,
    known: Words,
) -> tuple[int, int]:
    """Decodes a document until it stops, `text` is full or the stream has no more to say.

    Args:
      contexts: of the model.
      stream: of the document.
      at: where the next byte is written.
      registers: changed.
      text: filled.
      known: int64, how many bits of the stream tell each byte; filled if not empty.

    Returns:
      How many bytes of text there are, and the last symbol: a byte where `text` is full,
      `STOP`, or `DAMAGED` where no symbol is possible or the stream is at its end.
    """
    symbol = 0
    while at < len(text):
        place = place_of_sums(contexts, text, 0, at)
        symbol = decode_symbol(contexts.sums[place], contexts.precision, registers)
        if symbol >= STOP:
            return at, symbol
        if len(known):
            known[at] = bits_needed(registers)
            if known[at] > 8 * len(stream):
                return at, DAMAGED
        elif registers[SHIFTED] > np.uint64(len(stream)):
            return at, DAMAGED
        text[at] = symbol
        at += 1
        shift(registers, stream, 0, len(stream))
    return at, symbol


@compiled
def decode_lanes(
    sums: Words,
    precision: int,
    streams: Bytes,
    first: Offsets,
    end: Offsets,
    active: Offsets,
    registers: Words,
) -> tuple[Offsets, Offsets]:
    """One symbol's step in each active lane.

    Args:
      sums: uint32 [lanes, 257].
      precision: of the frequencies.
      streams: of documents.
      first: where the stream of each lane's document begins.
      end: where it ends.
      active: the lanes that have a document.
      registers: of each lane; those of a document that has stopped are left as they are then.

    Returns:
      For each active lane the symbol, `DAMAGED` also at the stream's end, and how many bits of the
      stream tell it.
    """
    symbols = np.empty(len(active), np.int64)
    known = np.empty(len(active), np.int64)
    for i in range(len(active)):
        lane = active[i]
        symbols[i] = decode_symbol(sums[lane], precision, registers[lane])
        known[i] = bits_needed(registers[lane])
        if symbols[i] < STOP:
            if known[i] > 8 * (end[lane] - first[lane]):
                symbols[i] = DAMAGED
            shift(registers[lane], streams, first[lane], end[lane])
    return symbols, known
