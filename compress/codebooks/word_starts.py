"""Where words start in any bytes, by a rule that needs no more than the next and last characters.

docs/codebooks.md states it. Characters are classed by Unicode 3.2, of which every Python has the
tables whatever its own version; so the rule is the same everywhere, and never changes.
"""

import functools
import unicodedata
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_strings import Bytes, ByteStrings, Offsets, read_only
from corpusmill.ngram_agg.compiled import compiled

Marked = npt.NDArray[np.uint16]
# In compiled code: whoever knows that places aren't negative needn't ask.
Place: TypeAlias = np.uint64

# No start depends on bytes that are farther away than two characters of UTF-8.
CONTEXT_BYTES = 8
# Of marked text: a word starts at the byte, or behind it.
WORD_START, WORD_END = np.uint16(1 << 8), np.uint16(1 << 9)

_BLANK, _ASCII = np.uint8(ord(" ")), np.uint8(128)
_SPACE, _LETTER, _NUMBER, _ALONE, _JOINING, _OTHER, _NOTHING = range(7)
_CLASSES = {"Z": _SPACE, "L": _LETTER, "M": _LETTER, "N": _NUMBER}
_CONTROL_SPACES = "\t\n\v\f\r\x85"
# Scripts written without blanks: Thai and Lao, Myanmar, Khmer, Hiragana and Katakana, Han.
_WITHOUT_BLANKS = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF)),
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x2FFFF)),
)
# Unicode 3.2 has letters, numbers and spaces below this.
_TABLED = 0x30000


def word_starts(documents: ByteStrings, *, is_strict: bool = True) -> Bytes:
    """Where words start in documents.

    Args:
      documents: any bytes.
      is_strict: whether each letter of a script without blanks is a word, as the rule is;
        otherwise it belongs to whatever stands beside it.

    Returns:
      uint8 of shape [bytes of `documents.data` + 1]: 1 where a word starts, and where a document
      begins or ends; 0 at all other bytes and at those that belong to no document.
    """
    return ((_marked(documents, is_strict) & WORD_START) >> 8).astype(np.uint8)


def with_word_starts(documents: ByteStrings) -> Marked:
    """The documents' bytes, 256 more where a word starts and 512 more where one starts behind."""
    return read_only(_marked(documents, is_strict=True))


def _marked(documents: ByteStrings, is_strict: bool) -> Marked:
    text = np.empty(len(documents.data) + 1, np.uint16)
    data, offsets = read_only(documents.data), read_only(documents.offsets)
    text[: offsets[0]] = 0
    text[offsets[-1] :] = 0
    _mark(data, offsets, _classes(is_strict), text)
    return text


def character_starts(documents: ByteStrings) -> Bytes:
    """Where characters of UTF-8 start, and bytes that are none; otherwise as `word_starts`."""
    starts = np.zeros(len(documents.data) + 1, np.uint8)
    _mark_characters(read_only(documents.data), read_only(documents.offsets), starts)
    return starts


@functools.cache
def _classes(is_strict: bool) -> Bytes:
    """The class of each character that may be something else than `_OTHER`."""
    category = unicodedata.ucd_3_2_0.category
    classes = [_CLASSES.get(category(chr(point))[0], _OTHER) for point in range(_TABLED)]
    for character in _CONTROL_SPACES:
        classes[ord(character)] = _SPACE
    table = np.array(classes, np.uint8)
    for first, last in _WITHOUT_BLANKS:
        part = table[first : last + 1]
        part[part == _LETTER] = _ALONE if is_strict else _JOINING
    return read_only(table)


@compiled
def _mark(data: Bytes, offsets: Offsets, classes: Bytes, text: Marked) -> None:
    one, two = np.uint64(1), np.uint64(2)
    for document in range(len(offsets) - 1):
        begin, end = np.uint64(offsets[document]), np.uint64(offsets[document + 1])
        if end - begin > one:
            _mark_ascii(data, begin, end, text)
            before, last = data[end - two], data[end - one]
            is_new = classes[before] != classes[last] and before != _BLANK and last < _ASCII
            text[end - one] = last + is_new * WORD_START
            _mark_others(data, begin, end, classes, text)
        if end > begin:
            text[begin] = data[begin] + WORD_START
            for place in range(begin, end - one):
                text[place] |= (text[place + one] & WORD_START) << np.uint16(1)
            text[end - one] |= WORD_END
        text[end] |= WORD_START


@compiled
def _mark_ascii(data: Bytes, begin: Place, end: Place, text: Marked) -> None:
    """Marks a document's bytes but the first and last, as they are if all are ASCII.

    Nothing branches and nothing is looked up, so that one instruction does many bytes.
    """
    one = np.uint64(1)
    for place in range(begin + one, end - one):
        before, byte = data[place - one], data[place]
        is_new = np.uint8(before != _BLANK) & np.uint8(_ascii_class(before) != _ascii_class(byte))
        goes_on = np.uint8(_ascii_class(data[place + one]) != _ascii_class(_BLANK))
        is_start = is_new | (np.uint8(byte == _BLANK) & goes_on)
        text[place] = np.uint16(byte) | np.uint16(is_start) << np.uint16(8)


@compiled
def _ascii_class(byte: np.uint8) -> np.uint8:
    """A number for the class of an ASCII character, another one than in `_classes`."""
    is_letter = np.uint8((byte | np.uint8(0x20)) - np.uint8(ord("a"))) < np.uint8(26)
    is_number = np.uint8(byte - np.uint8(ord("0"))) < np.uint8(10)
    is_space = (byte == _BLANK) | (np.uint8(byte - np.uint8(ord("\t"))) < np.uint8(5))
    return np.uint8(
        np.uint8(is_letter) | np.uint8(np.uint8(is_number) << 1) | np.uint8(np.uint8(is_space) << 2)
    )


@compiled
def _mark_others(data: Bytes, begin: Place, end: Place, classes: Bytes, text: Marked) -> None:
    """Marks a document's characters that aren't ASCII, or stand beside one that isn't."""
    one = np.uint64(1)
    at = _next_other(data, begin, end)
    while at < end:
        before, follows_blank = np.uint8(_NOTHING), np.uint8(0)
        if at > begin:
            at -= one
        if at > begin:
            before = classes[data[at - one]]
            follows_blank = np.uint8(data[at - one] == _BLANK)
        # What is known of the character at `place`; the next one may add to it.
        place, is_start = at, np.uint8(0)
        ascii_in_a_row = 0
        while at < end and ascii_in_a_row < 2:
            byte = data[at]
            kind = classes[byte]
            size = 1
            ascii_in_a_row += 1
            if byte >= _ASCII:
                point, size = _character(data, int(at), int(end))
                kind = classes[point] if 0 <= point < _TABLED else np.uint8(_OTHER)
                ascii_in_a_row = 0
            if at > place:
                # A blank belongs to the word that it stands before.
                is_start |= follows_blank & np.uint8(kind != _SPACE)
                text[place] = data[place] + is_start * WORD_START
            is_apart = np.uint8(before != _JOINING) & np.uint8(kind != _JOINING)
            is_new = (np.uint8(kind != before) & is_apart) | np.uint8(kind == _ALONE)
            place, is_start = at, is_new & (np.uint8(1) - follows_blank)
            before = kind
            follows_blank = np.uint8(byte == _BLANK)
            at += np.uint64(size)
        if at == end:
            text[place] = data[place] + is_start * WORD_START
        at = _next_other(data, at, end)


@compiled
def _next_other(data: Bytes, at: Place, end: Place) -> Place:
    """The first byte from a place on that isn't ASCII, or the end."""
    step = np.uint64(32)
    while end - at >= step:
        found = np.uint8(0)
        for place in range(at, at + step):
            found |= data[place]
        if found >= _ASCII:
            break
        at += step
    while at < end and data[at] < _ASCII:
        at += np.uint64(1)
    return at


@compiled
def _mark_characters(data: Bytes, offsets: Offsets, starts: Bytes) -> None:
    for document in range(len(offsets) - 1):
        at = offsets[document]
        end = offsets[document + 1]
        while at < end:
            starts[at] = 1
            at += _character(data, at, end)[1]
        starts[end] = 1


@compiled
def _character(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """The character at a place and how many bytes it has; -1 and 1 where there is no UTF-8."""
    lead = int(data[at])
    size = (
        2 if 0xC2 <= lead < 0xE0 else 3 if 0xE0 <= lead < 0xF0 else 4 if 0xF0 <= lead < 0xF5 else 1
    )
    if size == 1 or at + size > end:
        return -1, 1
    point = lead & (0x7F >> size)
    for place in range(at + 1, at + size):
        byte = int(data[place])
        if byte & 0xC0 != 0x80:
            return -1, 1
        point = point << 6 | (byte & 0x3F)
    is_long = (size == 3 and point < 0x800) or (size == 4 and point < 0x10000)
    if is_long or 0xD800 <= point < 0xE000 or point > 0x10FFFF:
        return -1, 1
    return point, size
