"""What ids of text are like: how short, how even, how steady; docs/measures.md has the definitions.

All measures look at ids through the interface of codecs, or at counts alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.compress.byte_strings import ByteStrings, Ids, Offsets
from corpusmill.compress.codecs import Codec
from corpusmill.corpus.ragged import places
from corpusmill.corpus.tokenizers.tokenizer import show_bytes
from corpusmill.ngram_agg.compiled import compiled

Counts = npt.NDArray[np.int64]

SEGMENT_BITS = range(1, 17)
LONGEST = 32
EDITS = ("change", "insert", "delete", "cut")

# Segments for each value that they can have, below which a divergence would be guesswork.
_LEAST_SEGMENTS = 4
# From here on the series for G(n) is exact to the last bit.
_TABLE = 1 << 10

_EDITED_DOCUMENTS = 128
# Less than 2^12, so that two lengths, a document and an id fit in 64 bits.
_EDITED_BYTES = 2048
_LEAST_EDITED_BYTES = 1024
_CUT_BYTES = 64
# So many ids in step at the end of a document are no accident.
_IN_STEP = 8

_FREQUENT = 16
_TEXTS_SHOWN = 4


def entropy(counts: Counts) -> float:
    """Entropy in bits of the distribution that values with these counts were drawn from.

    That of the counts themselves is too low, by about (values - 1) / (2 draws ln 2). Grassberger's
    estimator (arXiv physics/0307138) corrects nearly all of that with a few draws a value. It is
    ln N - sum of n G(n) / N over the counts n, N being their sum, with G(1) = -gamma - ln 2,
    G(2) = G(1) + 2, G(2m + 1) = G(2m), G(2m + 2) = G(2m) + 2 / (2m + 1).

    Args:
      counts: int64, how often each value was drawn.
    """
    drawn = counts[counts > 0]
    total = drawn.sum()
    if not total:
        return 0.0
    mean = (drawn * _grassberger(drawn)).sum() / total
    return max(0.0, float((np.log(total) - mean) / np.log(2)))


def _grassberger(counts: Counts) -> npt.NDArray[np.float64]:
    """G(n) of each count n above 0."""
    odd = np.arange(1, _TABLE, 2)
    of_even = 2 * np.cumsum(1 / odd) - np.euler_gamma - np.log(2)
    table = np.repeat(np.concatenate([[-np.euler_gamma - np.log(2)], of_even]), 2)
    # G(2m) is a sum of 1 / (2k - 1), which Euler and Maclaurin's formula gives for large m.
    even = np.maximum(counts & ~1, 2).astype(np.float64)
    series = np.log(even) + 1 / (6 * even**2) - 7 / (60 * even**4)
    exact = table[np.minimum(counts, len(table) - 1)]
    values: npt.NDArray[np.float64] = np.where(counts < len(table), exact, series)
    return values


class SegmentCounts:
    """How often each value of n bits occurs when a stream of ids is cut into pieces of n bits.

    Ids stand in the stream as numbers of `width` bits, the highest bit first. Each array of ids is
    a stream of its own; bits at its end that don't fill a piece are left out.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._counts = {bits: np.zeros(1 << bits, np.int64) for bits in SEGMENT_BITS if bits > 8}

    def add(self, ids: Ids) -> None:
        """Counts a stream of ids below 2^width."""
        for bits, counts in self._counts.items():
            _count_segments(ids.astype(np.uint32), self._width, bits, counts)

    def of(self, bits: int) -> Counts:
        """int64 [2^bits]; pieces of up to 8 bits are halves of those of twice as many."""
        if bits in self._counts:
            return self._counts[bits]
        halves = self.of(2 * bits).reshape(1 << bits, 1 << bits)
        counts: Counts = halves.sum(0) + halves.sum(1)
        return counts

    def divergences(self) -> list[float | None]:
        """Kullback-Leibler divergence from uniform bits, in bits, of pieces of 1 to 16 bits.

        That is n minus the entropy of pieces of n bits; None where there are too few of them.
        """
        found: list[float | None] = []
        for bits in SEGMENT_BITS:
            counts = self.of(bits)
            is_known = counts.sum() >= _LEAST_SEGMENTS << bits
            found.append(rounded(max(0.0, bits - entropy(counts))) if is_known else None)
        return found


@compiled
def _count_segments(ids: Any, width: int, bits: int, counts: Any) -> None:
    one = np.uint64(1)
    mask = (one << np.uint64(bits)) - one
    # Bits above the held ones are of earlier ids, and are masked away.
    word, held = np.uint64(0), 0
    for i in range(len(ids)):
        word = (word << np.uint64(width)) | np.uint64(ids[i])
        held += width
        while held >= bits:
            held -= bits
            counts[(word >> np.uint64(held)) & mask] += 1


def text_lengths(ends: Offsets, offsets: Offsets) -> Offsets:
    """How many bytes each id adds to what is known of its document, int64 [ids].

    Args:
      ends: int64 [ids], see `Codec.text_ends`.
      offsets: which ids each document has.
    """
    before = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    before[offsets[:-1][np.diff(offsets) > 0]] = 0
    lengths: Offsets = ends - before
    return lengths


def length_shares(lengths: Offsets, counts: Counts | None = None) -> list[float]:
    """Shares of ids that add 0, 1, ... bytes, and in the end `LONGEST` or more.

    Args:
      lengths: how many bytes each id adds.
      counts: how often each occurs; once by default.
    """
    sums = np.bincount(np.minimum(lengths, LONGEST), counts, minlength=LONGEST + 1)
    return [rounded(share) for share in sums / sums.sum()]


@dataclass(frozen=True)
class TextsOfIds:
    """The texts that an id, or a few ids in a row, stand for.

    Attributes:
      ids: which.
      share: of all ids, or of all rows of so many ids.
      different: how many different texts there are.
      most_frequent: the most frequent texts as they are shown, each with its share of these.
    """

    ids: list[int]
    share: float
    different: int
    most_frequent: list[tuple[str, float]]


def frequent_texts(
    ids: Ids, offsets: Offsets, text: ByteStrings, vocab_size: int, together: int = 1
) -> list[TextsOfIds]:
    """What the most frequent ids stand for.

    Args:
      ids: of whole documents.
      offsets: which ids each document has.
      text: what each id adds to its document.
      vocab_size: how many ids there are.
      together: how many ids in a row, from a document's first one on, are looked at as one; fewer
        at its end are left out. vocab_size to the power of `together` is at most 2^64.

    Returns:
      The 16 most frequent ones, of equals the one with the smaller ids first.
    """
    members = _rows(offsets, together)
    keys = np.zeros(len(members), np.uint64)
    for place in range(together):
        keys = keys * np.uint64(vocab_size) + ids[members[:, place]]
    _, first, which, counts = np.unique(
        keys, return_index=True, return_inverse=True, return_counts=True
    )
    pieces = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(text), [None, pa.py_buffer(text.offsets), pa.py_buffer(text.data)]
    )
    nothing = pa.scalar(b"", pa.large_binary())
    result = []
    for key in np.argsort(-counts, kind="stable")[:_FREQUENT]:
        rows = members[which == key]
        parts = [pieces.take(pa.array(rows[:, place])) for place in range(together)]
        texts = pc.binary_join_element_wise(*parts, nothing)
        different, shown = _most_frequent(texts)
        share = counts[key] / len(members)
        result.append(
            TextsOfIds(ids[members[first[key]]].tolist(), rounded(share), different, shown)
        )
    return result


def _rows(offsets: Offsets, together: int) -> Offsets:
    """Places of ids, int64 [rows, together]: whole rows, from the beginning of each document on."""
    rows = np.diff(offsets) // together
    starts: Offsets = np.repeat(offsets[:-1], rows) + together * places(rows)
    return starts[:, None] + np.arange(together)


def _most_frequent(texts: pa.LargeBinaryArray) -> tuple[int, list[tuple[str, float]]]:
    """How many different texts there are, and the most frequent ones with their shares."""
    counted = pc.value_counts(texts)
    pairs = zip(
        counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True
    )
    ranked = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
    shown = [
        (show_bytes(text), rounded(count / len(texts))) for text, count in ranked[:_TEXTS_SHOWN]
    ]
    return len(ranked), shown


@dataclass(frozen=True)
class Recovery:
    """What becomes of a document's ids when its front is edited.

    Attributes:
      agreeing: share of the ids that agree with those of the unedited document.
      recovered: share of documents whose ids all agree from some place on, 8 ids before the end at
        the latest.
      ids_until: how many ids stand before that place, the median of all documents; None where most
        do not recover.
    """

    agreeing: float
    recovered: float
    ids_until: float | None


@dataclass(frozen=True)
class Stability:
    """How steady a codec is when the front of documents is edited.

    Attributes:
      documents: how many were edited.
      curve: share of documents, over all edits, whose first, second, ... id agrees with the ids of
        the unedited document; as far as half of the documents reach.
      edits: what each of `EDITS` does.
    """

    documents: int
    curve: list[float]
    edits: dict[str, Recovery]


def stability(codec: Codec, documents: ByteStrings) -> Stability | None:
    """Edits the fronts of documents and encodes them again.

    Two ids agree if they are the same and add the same bytes, counted from the documents' ends. The
    edits: the first byte is changed, a byte is put before it, it is deleted, the first 64 bytes are
    cut off. Characters of UTF-8 stay whole.

    Args:
      codec: to encode with.
      documents: up to 128 of those that begin with a character of ASCII and have at least 1 KiB
        are edited, equally far apart; 2 KiB of each.

    Returns:
      None where no document will do.
    """
    excerpts = _excerpts(documents)
    if not excerpts:
        return None
    known, _ = _placed_ids(codec, excerpts)
    edits, agreeing, places = {}, [], []
    for edit in EDITS:
        placed, offsets = _placed_ids(codec, [_edited(text, edit) for text in excerpts])
        agrees = np.isin(placed, known)
        place = np.arange(len(placed)) - np.repeat(offsets[:-1], np.diff(offsets))
        edits[edit] = _recovery(agrees, place, offsets)
        agreeing.append(agrees)
        places.append(place)
    place = np.concatenate(places)
    reached = np.bincount(place)
    curve = np.bincount(place, np.concatenate(agreeing)) / reached
    shown = curve[2 * reached >= reached[0]]
    return Stability(len(excerpts), [rounded(share) for share in shown], edits)


def _excerpts(documents: ByteStrings) -> list[bytes]:
    """The beginnings of some documents."""
    long = np.flatnonzero(documents.lengths() >= _LEAST_EDITED_BYTES)
    fit = long[documents.data[documents.offsets[long]] < 128]
    chosen = fit[:: max(1, -(-len(fit) // _EDITED_DOCUMENTS))].tolist()
    return [text[: _boundary(text, _EDITED_BYTES)] for text in map(documents.__getitem__, chosen)]


def _edited(text: bytes, edit: str) -> bytes:
    return {
        "change": bytes([text[0] ^ 1]) + text[1:],
        "insert": b"x" + text,
        "delete": text[1:],
        "cut": text[_boundary(text, _CUT_BYTES) :],
    }[edit]


def _boundary(text: bytes, place: int) -> int:
    """The last place up to this one that does not lie within a character of UTF-8."""
    for start in range(place, place - 4, -1):
        if start >= len(text) or text[start] & 0xC0 != 0x80:
            return start
    return place  # It is no UTF-8.


def _placed_ids(codec: Codec, texts: list[bytes]) -> tuple[npt.NDArray[np.uint64], Offsets]:
    """One number for each id, its text and its document; and which of them each document has."""
    documents = ByteStrings.of(texts)
    ids, offsets = codec.encode_batch(documents)
    ends = codec.text_ends(ids, offsets)
    number = np.repeat(np.arange(len(texts)), np.diff(offsets))
    # Bytes from where the id's text ends and begins to the document's end.
    to_end = documents.lengths()[number] - ends
    from_start = to_end + text_lengths(ends, offsets)
    placed = (((number << 12) + from_start << 12) + to_end).astype(np.uint64)
    return (placed << np.uint64(32)) + ids, offsets


def _recovery(agrees: npt.NDArray[np.bool_], place: Offsets, offsets: Offsets) -> Recovery:
    documents = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    until = np.zeros(len(offsets) - 1, np.int64)
    np.maximum.at(until, documents, np.where(agrees, 0, place + 1))
    recovers = np.diff(offsets) - until >= _IN_STEP
    median = float(np.median(np.where(recovers, until, np.inf)))
    return Recovery(
        agreeing=rounded(agrees.mean()),
        recovered=rounded(recovers.mean()),
        ids_until=median if np.isfinite(median) else None,
    )


def rounded(value: float) -> float:
    """Six decimals, which are the same wherever sums of floating-point numbers are made."""
    return round(float(value), 6)
