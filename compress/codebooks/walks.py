"""Compiled walks through a codebook: text to ids and back.

One walk waits for memory at each byte. So several documents are walked at once, and nothing
branches on what a byte turns out to be.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_strings import Bytes, Offsets
from corpusmill.ngram_agg.compiled import compiled, copy_word

Words = npt.NDArray[Any]

LANES = 8
_ROOT = np.uint64(256)
# Of the words of `fuse_nodes`.
_END = np.uint64(1 << 8)
_BASE_AT, _BASE_MASK = np.uint64(9), np.uint64((1 << 31) - 1)
_CODE_AT = np.uint64(40)


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
      nodes: filled, uint64: from the lowest bit on 8 bits of the byte, one that says whether a
        string ends there, 31 of the base and 24 of the code.
    """
    high_mask = -1 if len(high_codes) > 1 else 0
    for slot in range(len(slots)):
        word = np.uint64(slots[slot])
        base = (word >> np.uint64(8)) + (word >> np.uint64(12))
        code = np.uint64(high_codes[slot & high_mask]) << np.uint64(16) | np.uint64(low_codes[slot])
        end = np.uint64(1 if ends is None else ends[slot])
        low = (word & np.uint64(0xFF)) | end << np.uint64(8)
        nodes[slot] = low | base << _BASE_AT | code << _CODE_AT


@compiled
def encode_greedy(
    nodes: Words,
    data: Bytes,
    starts: Bytes | None,
    offsets: Offsets,
    cuts: Offsets,
    ids: Words,
    id_ends: Offsets,
) -> None:
    """Cuts documents into the longest strings.

    Where no string goes on, the walk goes back to where the longest one ended that was found.
    Unsigned places save the compiler the question whether they are negative.

    Args:
      nodes: see `fuse_nodes`.
      data: documents.
      starts: where words start (`word_starts`), one more than bytes; None where strings
        may begin and end anywhere, and what they need is left out of the compiled code.
      offsets: where documents begin and end in `data`.
      cuts: lane l walks documents cuts[l] to cuts[l + 1].
      ids: filled; lane l writes from offsets[cuts[l]] - offsets[0] on.
      id_ends: filled: where each document's ids end in `ids`.
    """
    one = np.uint64(1)
    lanes = len(cuts) - 1
    document = np.empty(lanes, np.int64)
    lane_end = np.empty(lanes, np.int64)
    at = np.zeros(lanes, np.uint64)
    end = np.zeros(lanes, np.uint64)
    out = np.empty(lanes, np.uint64)
    base = np.empty(lanes, np.uint64)
    # The node of the longest string found, 0 before there is one, and where the string ends.
    last = np.zeros(lanes, np.uint64)
    stop = np.zeros(lanes, np.uint64)
    # 1 where the string began with a word, and 2 more once it goes beyond a word.
    state = np.zeros(lanes, np.uint8)
    # The lanes that still walk stand first.
    walking = lanes
    for lane in range(lanes):
        document[lane] = cuts[lane] - 1
        lane_end[lane] = cuts[lane + 1]
        out[lane] = np.uint64(offsets[cuts[lane]] - offsets[0])
    while walking:
        lane = 0
        steps = np.int64(1) << 62
        while lane < walking:
            if at[lane] == end[lane]:
                first = stop[lane]
                if last[lane]:
                    ids[out[lane]] = last[lane] >> _CODE_AT
                    out[lane] += one
                    id_ends[document[lane]] = out[lane]
                if first == end[lane]:
                    document[lane] += 1
                    while document[lane] < lane_end[lane] and (
                        offsets[document[lane]] == offsets[document[lane] + 1]
                    ):
                        id_ends[document[lane]] = out[lane]
                        document[lane] += 1
                    if document[lane] == lane_end[lane]:
                        walking -= 1
                        document[lane] = document[walking]
                        lane_end[lane] = lane_end[walking]
                        at[lane] = at[walking]
                        end[lane] = end[walking]
                        out[lane] = out[walking]
                        base[lane] = base[walking]
                        last[lane] = last[walking]
                        stop[lane] = stop[walking]
                        state[lane] = state[walking]
                        continue
                    first = np.uint64(offsets[document[lane]])
                    end[lane] = np.uint64(offsets[document[lane] + 1])
                word = nodes[_ROOT + np.uint64(data[first])]
                at[lane] = first + one
                stop[lane] = first + one
                last[lane] = word
                base[lane] = (word >> _BASE_AT) & _BASE_MASK
                if starts is not None:
                    state[lane] = starts[first]
                if at[lane] == end[lane]:
                    continue
            steps = min(steps, np.int64(end[lane] - at[lane]))
            lane += 1
        if not walking:
            break
        for _ in range(steps):
            for lane in range(walking):
                place = at[lane]
                byte = np.uint64(data[place])
                word = nodes[base[lane] + byte]
                before = last[lane]
                first = stop[lane]
                ids[out[lane]] = before >> _CODE_AT
                goes_on = (word & np.uint64(0xFF)) == byte
                if starts is not None:
                    goes_on &= (state[lane] | (np.uint8(1) - starts[place])) != np.uint8(0)
                out[lane] += np.uint64(not goes_on)
                word = word if goes_on else nodes[_ROOT + np.uint64(data[first])]
                after = (place if goes_on else first) + one
                at[lane] = after
                base[lane] = (word >> _BASE_AT) & _BASE_MASK
                is_end = (word & _END) != np.uint64(0)
                if starts is not None:
                    beyond = np.uint8(state[lane] | starts[place] << np.uint8(1))
                    now = beyond if goes_on else starts[first]
                    state[lane] = now
                    is_end &= (now >> np.uint8(1) & (np.uint8(1) - starts[after])) == np.uint8(0)
                last[lane] = word if is_end else before
                stop[lane] = after if is_end else first


@compiled
def encode_flexible(
    nodes: Words,
    data: Bytes,
    starts: Bytes | None,
    offsets: Offsets,
    longest: int,
    ids: Words,
    id_ends: Offsets,
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
            length = _walk(nodes, data, starts, at, end, path)
            best = 0
            best_total = -1
            for first in range(length, 0, -1):
                if not path[first - 1]:
                    continue
                place = (at + first) & (size - 1)
                if known[place] != at + first:
                    known[place] = at + first
                    reach[place] = _walk(nodes, data, starts, at + first, end, unused)
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
def _walk(
    nodes: Words, data: Bytes, starts: Bytes | None, first: int, end: int, path: Words
) -> int:
    """The length of the longest string at a place, 0 at the end; `path` gets the nodes of all.

    path[i] is 0 where no string of i + 1 bytes may end.
    """
    base = _ROOT
    longest = 0
    is_beyond = False
    for place in range(first, end):
        byte = np.uint64(data[place])
        word = nodes[base + byte]
        if word & np.uint64(0xFF) != byte:
            break
        is_end = word & _END != np.uint64(0)
        if starts is not None:
            if place > first and starts[place]:
                if not starts[first]:
                    break
                is_beyond = True
            is_end &= not is_beyond or starts[place + 1] != 0
        path[place - first] = word if is_end else np.uint64(0)
        if is_end:
            longest = place + 1 - first
        base = (word >> _BASE_AT) & _BASE_MASK
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
