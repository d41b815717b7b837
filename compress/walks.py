"""Compiled walks through a codebook: text to ids and back.

One walk waits for memory at each byte. So several documents are walked at once, and nothing
branches on what a byte turns out to be.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from compress.byte_strings import Bytes, Offsets
from ngram_agg.compiled import compiled, copy_word

Words = npt.NDArray[Any]

LANES = 8
_ROOT = 256


def lane_cuts(offsets: Offsets) -> Offsets:
    """Which documents each lane walks: int64 [LANES + 1], about as many bytes for each."""
    first, last = offsets[[0, -1]]
    goals = first + (last - first) * np.arange(1, LANES) // LANES
    inner = np.searchsorted(offsets, goals)
    return np.concatenate([[0], inner, [len(offsets) - 1]]).astype(np.int64)


@compiled
def encode_greedy(
    slots: Words,
    low_codes: Words,
    high_codes: Words,
    ends: Words | None,
    data: Bytes,
    starts: Bytes | None,
    offsets: Offsets,
    cuts: Offsets,
    ids: Words,
    id_ends: Offsets,
) -> None:
    """Cuts documents into the longest strings.

    Where no string goes on, the walk goes back to where the longest one ended that was found. With
    neither `ends` nor `starts` that is always where it is; what they need is left out of the
    compiled code then.

    Args:
      slots: of the double array, like the codes.
      low_codes: see `DoubleArray`.
      high_codes: see `DoubleArray`.
      ends: see `DoubleArray`; needed with `starts`.
      data: documents.
      starts: where words start (`compress.word_starts`), one more than bytes; None where strings
        may begin and end anywhere.
      offsets: where documents begin and end in `data`.
      cuts: lane l walks documents cuts[l] to cuts[l + 1].
      ids: filled; lane l writes from offsets[cuts[l]] - offsets[0] on.
      id_ends: filled: where each document's ids end in `ids`.
    """
    high_mask = -1 if len(high_codes) > 1 else 0
    lanes = len(cuts) - 1
    document = np.empty(lanes, np.int64)
    at = np.empty(lanes, np.int64)
    end = np.empty(lanes, np.int64)
    out = np.empty(lanes, np.int64)
    base = np.empty(lanes, np.int64)
    # The slot of the longest string found, and where it ends.
    last = np.empty(lanes, np.int64)
    stop = np.empty(lanes, np.int64)
    # Whether the walk began where a word starts, and whether it has come to another start.
    from_start = np.zeros(lanes, np.uint8)
    crossed = np.zeros(lanes, np.uint8)
    # The lanes that still walk stand first.
    walking = lanes
    lane_end = np.empty(lanes, np.int64)
    for lane in range(lanes):
        document[lane] = cuts[lane] - 1
        lane_end[lane] = cuts[lane + 1]
        out[lane] = offsets[cuts[lane]] - offsets[0]
        last[lane] = -1
        at[lane] = 0
        stop[lane] = 0
        end[lane] = 0
    while walking:
        lane = 0
        steps = np.int64(1) << 62
        while lane < walking:
            if at[lane] == end[lane]:
                first = end[lane] if ends is None else stop[lane]
                if last[lane] >= 0:
                    slot = last[lane]
                    ids[out[lane]] = np.uint32(high_codes[slot & high_mask]) << 16 | low_codes[slot]
                    out[lane] += 1
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
                        out[lane] = out[walking]
                        last[lane] = last[walking]
                        stop[lane] = stop[walking]
                        from_start[lane] = from_start[walking]
                        crossed[lane] = crossed[walking]
                        at[lane] = at[walking]
                        end[lane] = end[walking]
                        base[lane] = base[walking]
                        continue
                    first = offsets[document[lane]]
                    end[lane] = offsets[document[lane] + 1]
                at[lane] = first + 1
                stop[lane] = first + 1
                if starts is not None:
                    from_start[lane] = starts[first]
                    crossed[lane] = 0
                last[lane] = _ROOT + data[first]
                word = np.int64(slots[last[lane]])
                base[lane] = (word >> 8) + (word >> 12)
                if at[lane] == end[lane]:
                    continue
            steps = min(steps, end[lane] - at[lane])
            lane += 1
        if not walking:
            break
        for _ in range(steps):
            for lane in range(walking):
                place = at[lane]
                byte = np.int64(data[place])
                slot = base[lane] + byte
                word = np.int64(slots[slot])
                before = last[lane]
                ids[out[lane]] = np.uint32(high_codes[before & high_mask]) << 16 | low_codes[before]
                goes_on = (word & 255) == byte
                if starts is not None:
                    goes_on &= (from_start[lane] | (1 - starts[place])) != 0
                out[lane] += not goes_on
                if ends is None:
                    first = place
                    single = _ROOT + byte
                else:
                    first = stop[lane]
                    single = _ROOT + np.int64(data[first])
                start = np.int64(slots[single])
                word = word if goes_on else start
                node = slot if goes_on else single
                after = (place if goes_on else first) + 1
                at[lane] = after
                base[lane] = (word >> 8) + (word >> 12)
                if ends is None:
                    last[lane] = node
                else:
                    is_end = ends[node] != 0
                    if starts is not None:
                        over = np.uint8(goes_on) & (crossed[lane] | starts[place])
                        crossed[lane] = over
                        from_start[lane] = from_start[lane] if goes_on else starts[first]
                        is_end &= ((1 - over) | starts[after]) != 0
                    last[lane] = node if is_end else before
                    stop[lane] = after if is_end else first


@compiled
def encode_flexible(
    slots: Words,
    low_codes: Words,
    high_codes: Words,
    ends: Words | None,
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
    high_mask = -1 if len(high_codes) > 1 else 0
    path = np.empty(longest, np.int64)
    unused = np.empty(longest, np.int64)
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
            length = _walk(slots, ends, data, starts, at, end, path)
            best = 0
            best_total = -1
            for first in range(length, 0, -1):
                if path[first - 1] < 0:
                    continue
                place = (at + first) & (size - 1)
                if known[place] != at + first:
                    known[place] = at + first
                    reach[place] = _walk(slots, ends, data, starts, at + first, end, unused)
                if first + reach[place] > best_total:
                    best = first
                    best_total = first + reach[place]
                # What no shorter first string can exceed.
                if best_total >= min(first - 1 + longest, end - at):
                    break
            slot = path[best - 1]
            ids[out] = np.uint32(high_codes[slot & high_mask]) << 16 | low_codes[slot]
            out += 1
            at += best
        id_ends[document] = out


@compiled
def _walk(
    slots: Words,
    ends: Words | None,
    data: Bytes,
    starts: Bytes | None,
    first: int,
    end: int,
    path: Words,
) -> int:
    """The length of the longest string at a place, 0 at the end; `path` gets the slots of all.

    path[i] is -1 where no string of i + 1 bytes may end.
    """
    base = np.int64(_ROOT)
    longest = 0
    crossed = False
    for place in range(first, end):
        byte = np.int64(data[place])
        slot = base + byte
        word = np.int64(slots[slot])
        if word & 255 != byte:
            break
        is_end = True
        if ends is not None:
            is_end = ends[slot] != 0
        if starts is not None and place > first and starts[place]:
            if not starts[first]:
                break
            crossed = True
        if starts is not None and crossed:
            is_end &= starts[place + 1] != 0
        path[place - first] = slot if is_end else -1
        if is_end:
            longest = place + 1 - first
        base = (word >> 8) + (word >> 12)
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
