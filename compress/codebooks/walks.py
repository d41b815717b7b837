"""Compiled walks through a codebook: text to ids and back.

One walk waits for memory at each byte, so several documents are walked at once. Text that is walked
is bytes (uint8) or bytes with where words start and end (uint16, `with_word_starts`).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_strings import Bytes, Offsets
from corpusmill.compress.codebooks.double_array import ROOT_BASE, base_of
from corpusmill.compress.codebooks.word_starts import WORD_END, WORD_START
from corpusmill.ngram_agg.compiled import compiled, copy_word

Words = npt.NDArray[Any]

LANES = 8
_ROOT = np.uint64(ROOT_BASE)
_BYTE = np.uint64(0xFF)
# The marks of text. Of the words of `fuse_nodes`: nothing, and whether a string ends there.
_START, _END = np.uint64(WORD_START), np.uint64(WORD_END)
_BASE_AT, _BASE_MASK = np.uint64(10), np.uint64((1 << 30) - 1)
_CODE_AT = np.uint64(40)
# What is known of a lane stands side by side: a register for each would be too many.
_DOCUMENT, _LANE_END, _DOCUMENT_END, _AT, _OUT = map(np.uint64, range(5))
_BASE, _LAST, _STOP, _WORD, _FIELDS = map(np.uint64, range(5, 10))


def lane_cuts(offsets: Offsets) -> Offsets:
    """Which documents each lane walks: int64 [LANES + 1], about as many bytes for each."""
    first, last = offsets[[0, -1]]
    goals = first + (last - first) * np.arange(1, LANES) // LANES
    inner = np.searchsorted(offsets, goals)
    return np.concatenate([[0], inner, [len(offsets) - 1]]).astype(np.int64)


@compiled
def fuse_nodes(
    slots: Words, low_codes: Words, high_codes: Words, ends: Words | None, nodes: Words
) -> None:
    """Puts all that a step needs of a node into one word: one look-up waits less than four.

    Args:
      slots: of the double array, like the codes.
      low_codes: see `DoubleArray`.
      high_codes: see `DoubleArray`.
      ends: see `DoubleArray`.
      nodes: filled, uint64: from the lowest bit on 8 bits of the byte, a 0, a bit that says whether
        a string ends there, 30 of the base and 24 of the code.
    """
    high_mask = -1 if len(high_codes) > 1 else 0
    for slot in range(len(slots)):
        word = np.uint64(slots[slot])
        code = np.uint64(high_codes[slot & high_mask]) << np.uint64(16) | np.uint64(low_codes[slot])
        end = np.uint64(1 if ends is None else ends[slot])
        nodes[slot] = (word & _BYTE) | end * _END | base_of(word) << _BASE_AT | code << _CODE_AT


@compiled
def encode_greedy(
    nodes: Words, text: Words, offsets: Offsets, cuts: Offsets, ids: Words, id_ends: Offsets
) -> None:
    """Cuts documents into the longest strings.

    Where no string goes on, the walk goes back to where the longest one ended that was found.
    Unsigned places save the compiler the question whether they are negative.

    Args:
      nodes: see `fuse_nodes`.
      text: documents.
      offsets: where documents begin and end in it.
      cuts: lane l walks documents cuts[l] to cuts[l + 1].
      ids: filled; lane l writes from offsets[cuts[l]] - offsets[0] on.
      id_ends: filled: where each document's ids end in `ids`.
    """
    one = np.uint64(1)
    # Of the lanes that still walk, which stand first. At and stop are where the walk is and where
    # the longest string ended that was found; last is that string's node, 0 before there is one.
    # Word is what text and node must have in common: the byte, and that no word starts, if the
    # string began within one; and `_END` once it has gone beyond a word and must end with one.
    lanes = np.zeros((len(cuts) - 1) * _FIELDS, np.uint64)
    walking = np.uint64(len(lanes))
    lane: Any
    for number in range(len(cuts) - 1):
        lane = np.uint64(number) * _FIELDS
        lanes[lane + _DOCUMENT] = np.uint64(cuts[number]) - one
        lanes[lane + _LANE_END] = cuts[number + 1]
        lanes[lane + _OUT] = offsets[cuts[number]] - offsets[0]
    while walking:
        lane = np.uint64(0)
        steps = np.uint64(1) << np.uint64(62)
        while lane < walking:
            if lanes[lane + _AT] == lanes[lane + _DOCUMENT_END]:
                first = lanes[lane + _STOP]
                document = lanes[lane + _DOCUMENT]
                if lanes[lane + _LAST]:
                    ids[lanes[lane + _OUT]] = lanes[lane + _LAST] >> _CODE_AT
                    lanes[lane + _OUT] += one
                    id_ends[document] = lanes[lane + _OUT]
                if first == lanes[lane + _DOCUMENT_END]:
                    document += one
                    while document < lanes[lane + _LANE_END] and (
                        offsets[document] == offsets[document + one]
                    ):
                        id_ends[document] = lanes[lane + _OUT]
                        document += one
                    if document == lanes[lane + _LANE_END]:
                        walking -= _FIELDS
                        for field in range(_FIELDS):
                            lanes[lane + field] = lanes[walking + field]
                        continue
                    first = np.uint64(offsets[document])
                    lanes[lane + _DOCUMENT] = document
                    lanes[lane + _DOCUMENT_END] = offsets[document + one]
                byte = np.uint64(text[first])
                node = nodes[_ROOT + (byte & _BYTE)]
                lanes[lane + _AT] = first + one
                lanes[lane + _STOP] = first + one
                lanes[lane + _LAST] = node
                lanes[lane + _BASE] = (node >> _BASE_AT) & _BASE_MASK
                lanes[lane + _WORD] = (_BYTE | _START) ^ (byte & _START)
                if lanes[lane + _AT] == lanes[lane + _DOCUMENT_END]:
                    continue
            steps = min(steps, lanes[lane + _DOCUMENT_END] - lanes[lane + _AT])
            lane += _FIELDS
        if not walking:
            break
        for _ in range(steps):
            for lane in range(np.uint64(0), walking, _FIELDS):
                place = lanes[lane + _AT]
                first = lanes[lane + _STOP]
                last = lanes[lane + _LAST]
                word = lanes[lane + _WORD]
                byte = np.uint64(text[place])
                again = np.uint64(text[first])
                node = nodes[lanes[lane + _BASE] + (byte & _BYTE)]
                root = nodes[_ROOT + (again & _BYTE)]
                goes_on = ((node ^ (byte & word)) & (_BYTE | _START)) == np.uint64(0)
                if not goes_on:
                    ids[lanes[lane + _OUT]] = last >> _CODE_AT
                    lanes[lane + _OUT] += one
                # The rest is chosen, not branched on: no processor foresees the next byte.
                beyond = word | (byte & _START) << one
                word = beyond if goes_on else (_BYTE | _START) ^ (again & _START)
                node = node if goes_on else root
                after = (place if goes_on else first) + one
                is_end = (node & _END & ~(word & ~byte)) != np.uint64(0)
                lanes[lane + _AT] = after
                lanes[lane + _BASE] = (node >> _BASE_AT) & _BASE_MASK
                lanes[lane + _WORD] = word
                lanes[lane + _LAST] = node if is_end else last
                lanes[lane + _STOP] = after if is_end else first


@compiled
def encode_flexible(
    nodes: Words, text: Words, offsets: Offsets, longest: int, ids: Words, id_ends: Offsets
) -> None:
    """Cuts documents into strings, each as long as makes it and the longest one behind it longest.

    Of equals the longest is taken. The arguments are those of `encode_greedy`, but for `longest`,
    the length of the longest string; ids are written from 0 on.
    """
    path = np.empty(longest, np.uint64)
    unused = np.empty(longest, np.uint64)
    # How long the longest string is at each of the next positions, where that is known.
    size = 1
    while size <= longest:
        size *= 2
    reach = np.zeros(size, np.int64)
    known = np.full(size, -1)
    out = 0
    for document in range(len(offsets) - 1):
        at = offsets[document]
        end = offsets[document + 1]
        while at < end:
            length = _walk(nodes, text, at, end, path)
            best = 0
            best_total = -1
            for first in range(length, 0, -1):
                if not path[first - 1]:
                    continue
                place = (at + first) & (size - 1)
                if known[place] != at + first:
                    known[place] = at + first
                    reach[place] = _walk(nodes, text, at + first, end, unused)
                if first + reach[place] > best_total:
                    best = first
                    best_total = first + reach[place]
                # What no shorter first string can exceed.
                if best_total >= min(first - 1 + longest, end - at):
                    break
            ids[out] = path[best - 1] >> _CODE_AT
            out += 1
            at += best
        id_ends[document] = out


@compiled
def _walk(nodes: Words, text: Words, first: int, end: int, path: Words) -> int:
    """The length of the longest string at a place, 0 at the end; `path` gets the nodes of all.

    path[i] is 0 where no string of i + 1 bytes may end.
    """
    base = _ROOT
    longest = 0
    word = _BYTE
    for place in range(first, end):
        byte = np.uint64(text[place])
        node = nodes[base + (byte & _BYTE)]
        if (node ^ (byte & word)) & (_BYTE | _START):
            break
        if place == first:
            word = (_BYTE | _START) ^ (byte & _START)
        else:
            word |= (byte & _START) << np.uint64(1)
        is_end = (node & _END & ~(word & ~byte)) != np.uint64(0)
        path[place - first] = node if is_end else np.uint64(0)
        if is_end:
            longest = place + 1 - first
        base = (node >> _BASE_AT) & _BASE_MASK
    return longest


@compiled
def decoded_offsets(
    blocks: Words, begins: Words, ids: Words, id_offsets: Offsets, offsets: Offsets
) -> None:
    """Finds where each document will begin and end in the decoded text.

    Args:
      blocks: of the codebook: where the strings of 64 codes begin in the pool.
      begins: where each of them begins from there on.
      ids: of all documents; each must have a string.
      id_offsets: which ids each document has.
      offsets: filled, from 0 on.
    """
    end = np.int64(0)
    offsets[0] = 0
    for document in range(len(id_offsets) - 1):
        for i in range(id_offsets[document], id_offsets[document + 1]):
            code = np.int64(ids[i])
            begin = np.int64(blocks[code >> 6]) + np.int64(begins[code])
            end += np.int64(blocks[(code + 1) >> 6]) + np.int64(begins[code + 1]) - begin
        offsets[document + 1] = end


@compiled
def decode(blocks: Words, begins: Words, pool: Bytes, ids: Words, text: Bytes) -> None:
    """Writes the strings of ids.

    Args:
      blocks: see `decoded_offsets`.
      begins: see `decoded_offsets`.
      pool: the strings, and at least 8 bytes behind them.
      ids: each must have a string.
      text: filled; it has at least 8 bytes more than the strings.
    """
    end = np.int64(0)
    for i in range(len(ids)):
        code = np.int64(ids[i])
        source = np.int64(blocks[code >> 6]) + np.int64(begins[code])
        stop = np.int64(blocks[(code + 1) >> 6]) + np.int64(begins[code + 1])
        # What is copied too much is overwritten by the next string.
        place = end
        end += stop - source
        while source < stop:
            copy_word(pool, source, text, place)
            source += 8
            place += 8
