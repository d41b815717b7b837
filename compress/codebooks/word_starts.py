"""Where words start in any bytes, by a rule that needs no more than the next and last characters.

docs/codebooks.md states it. Characters are classed by Unicode 3.2, of which every Python has the
tables whatever its own version; so the rule is the same everywhere, and never changes.
"""

import functools
import unicodedata

import numpy as np

from corpusmill.compress.byte_strings import Bytes, ByteStrings, Offsets, read_only
from corpusmill.ngram_agg.compiled import compiled

# No start depends on bytes that are farther away than two characters of UTF-8.
CONTEXT_BYTES = 8

_SPACE, _LETTER, _NUMBER, _ALONE, _OTHER, _NOTHING = range(6)
_CLASSES = {"Z": _SPACE, "L": _LETTER, "M": _LETTER, "N": _NUMBER}
_CONTROL_SPACES = "\t\n\v\f\r\x85"
# Scripts written without blanks: Thai and Lao, Myanmar, Khmer, Hiragana and Katakana, Han.
_WITHOUT_BLANKS = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF)),
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x2FFFF)),
)
# Unicode 3.2 has letters, numbers and spaces below this.
_TABLED = 0x30000


def word_starts(documents: ByteStrings) -> Bytes:
    """Where words start in documents.

    Returns:
      uint8 of shape [bytes of `documents.data` + 1]: 1 where a word starts, and where a document
      begins or ends; 0 at all other bytes and at those that belong to no document.
    """
    starts = np.zeros(len(documents.data) + 1, np.uint8)
    _mark(read_only(documents.data), read_only(documents.offsets), _classes(), starts)
    return starts


def character_starts(documents: ByteStrings) -> Bytes:
    """Where characters of UTF-8 start, and bytes that are none; otherwise as `word_starts`."""
    starts = np.zeros(len(documents.data) + 1, np.uint8)
    _mark_characters(read_only(documents.data), read_only(documents.offsets), starts)
    return starts


@functools.cache
def _classes() -> Bytes:
    """The class of each character that may be something else than `_OTHER`."""
    category = unicodedata.ucd_3_2_0.category
    classes = [_CLASSES.get(category(chr(point))[0], _OTHER) for point in range(_TABLED)]
    for character in _CONTROL_SPACES:
        classes[ord(character)] = _SPACE
    table = np.array(classes, np.uint8)
    for first, last in _WITHOUT_BLANKS:
        part = table[first : last + 1]
        part[part == _LETTER] = _ALONE
    return read_only(table)


@compiled
def _mark(data: Bytes, offsets: Offsets, classes: Bytes, starts: Bytes) -> None:
    for document in range(len(offsets) - 1):
        begin, end = np.uint64(offsets[document]), np.uint64(offsets[document + 1])
        before = np.uint8(_NOTHING)
        follows_blank = np.uint8(0)
        # What is known of the character at `place`; the next one may add to it.
        place, is_start = begin, np.uint8(0)
        at = begin
        while at < end:
            byte = data[at]
            kind = classes[byte]
            size = 1
            if byte >= 128:
                point, size = _character(data, int(at), int(end))
                kind = classes[point] if 0 <= point < _TABLED else np.uint8(_OTHER)
            # A blank belongs to the word that it stands before.
            starts[place] = is_start | (follows_blank & np.uint8(kind != np.uint8(_SPACE)))
            is_new = np.uint8(kind != before) | np.uint8(kind == np.uint8(_ALONE))
            place, is_start = at, is_new & (np.uint8(1) - follows_blank)
            before = kind
            follows_blank = np.uint8(byte == np.uint8(ord(" ")))
            at += np.uint64(size)
        starts[place] = is_start
        starts[begin] = 1
        starts[end] = 1


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
