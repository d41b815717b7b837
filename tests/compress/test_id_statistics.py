"""Measures against slow oracles, and on codecs whose answers are known."""

import itertools
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.compress import ByteStrings, CodebookCodec
from corpusmill.compress.codecs import BytesCodec, GzipCodec
from corpusmill.compress.datasets.id_statistics import (
    EDITS,
    LONGEST,
    SEGMENT_BITS,
    SegmentCounts,
    TextsOfIds,
    entropy,
    frequent_texts,
    length_shares,
    stability,
    text_lengths,
)
from tests.codebooks import ENGLISH, small_book


def plugin_entropy(counts):
    total = sum(counts)
    return -sum(n / total * math.log2(n / total) for n in counts if n)


def grassberger(n):
    if n <= 2:
        return -np.euler_gamma - math.log(2) + 2 * (n == 2)
    return grassberger(n - 1) if n % 2 else grassberger(n - 2) + 2 / (n - 1)


@given(st.lists(st.integers(0, 500), max_size=30))
def test_entropy_is_grassbergers(counts):
    total = sum(counts)
    expected = 0.0
    if total:
        mean = sum(n * grassberger(n) for n in counts if n) / total
        expected = max(0.0, (math.log(total) - mean) / math.log(2))
    assert entropy(np.array(counts, np.int64)) == pytest.approx(expected, abs=1e-9)


def test_entropy_of_large_counts_goes_on_where_the_table_ends():
    for n in (1022, 1023, 1024, 1025, 1026, 5000):
        exact = -np.euler_gamma - math.log(2) + 2 * sum(1 / k for k in range(1, n, 2))
        counts = np.array([n, 7])
        mean = (n * exact + 7 * grassberger(7)) / (n + 7)
        assert entropy(counts) == pytest.approx((math.log(n + 7) - mean) / math.log(2), abs=1e-13)
    huge = np.array([1 << 60, 1 << 60])
    assert entropy(huge) == pytest.approx(1, abs=1e-12)


def test_entropy_of_what_never_varies_is_none():
    for counts in ([], [0, 0], [0, 100_000]):
        assert entropy(np.array(counts, np.int64)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("draws", [80_000, 300_000, 1_000_000])
def test_entropy_is_not_biased_where_many_values_are_rare(draws):
    """Zipf over 65,536 values: the entropy of the counts is wrong by far more."""
    weights = 1 / np.arange(10, 65_546)
    probabilities = weights / weights.sum()
    true = -(probabilities * np.log2(probabilities)).sum()
    counts = np.random.default_rng(1).multinomial(draws, probabilities)
    assert abs(entropy(counts) - true) < 0.3 * (true - plugin_entropy(counts.tolist()))


def segments_by_hand(streams, width, bits):
    counts = Counter()
    for ids in streams:
        stream = "".join(format(each, f"0{width}b") for each in ids)
        # Pieces of up to 8 bits are halves of twice as many, again and again.
        unit = bits
        while unit <= 8:
            unit *= 2
        stream = stream[: len(stream) // unit * unit]
        counts.update(stream[i : i + bits] for i in range(0, len(stream), bits))
    return {int(value, 2): count for value, count in counts.items()}


@given(
    st.integers(1, 24).flatmap(
        lambda width: st.tuples(
            st.just(width),
            st.lists(st.lists(st.integers(0, (1 << width) - 1), max_size=40), max_size=3),
        )
    )
)
def test_segments_are_the_pieces_of_the_bit_stream(sample):
    width, streams = sample
    segments = SegmentCounts(width)
    for ids in streams:
        segments.add(np.array(ids, np.uint32 if width > 16 else np.uint16))
    for bits in SEGMENT_BITS:
        found = segments.of(bits)
        assert len(found) == 1 << bits
        expected = segments_by_hand(streams, width, bits)
        assert {int(value): int(found[value]) for value in np.flatnonzero(found)} == expected


@pytest.mark.parametrize("width", [8, 16, 20])
def test_random_bits_do_not_diverge(width):
    segments = SegmentCounts(width)
    random = np.random.default_rng(width)
    segments.add(random.integers(0, 1 << width, (1 << 23) // width, np.uint32))
    found = segments.divergences()
    # Counting alone would say 0.09 bits at 16.
    assert max(found) < 0.003


def test_bits_of_a_known_distribution_diverge_as_they_must():
    """Independent bits that are 1 with probability 0.2: n times the divergence of one."""
    bits = np.random.default_rng(0).random((200_000, 16)) < 0.2
    segments = SegmentCounts(16)
    segments.add((bits << np.arange(16)).sum(axis=1).astype(np.uint16))
    one = 1 + 0.2 * math.log2(0.2) + 0.8 * math.log2(0.8)
    found = segments.divergences()
    for n, divergence in zip(range(1, 15), found, strict=False):
        assert divergence == pytest.approx(n * one, rel=0.01)


def test_too_few_segments_say_nothing():
    segments = SegmentCounts(16)
    segments.add(np.arange(256, dtype=np.uint16))
    # 4,096 bits: 372 pieces of 11 bits are fewer than 4 for each of 2,048 values.
    known = [divergence is not None for divergence in segments.divergences()]
    assert known == [True] * 7 + [False] * 9


@pytest.mark.parametrize("codec", [CodebookCodec(small_book()), BytesCodec(), GzipCodec()])
@given(documents=st.lists(st.text("the cat", max_size=60).map(str.encode), max_size=5))
def test_lengths_add_up_to_the_text(codec, documents):
    ids, offsets = codec.encode_batch(ByteStrings.of(documents))
    lengths = text_lengths(codec.text_ends(ids, offsets), offsets)
    sums = [int(lengths[a:b].sum()) for a, b in itertools.pairwise(offsets.tolist())]
    assert sums == list(map(len, documents))
    assert (lengths >= 0).all()


def test_length_shares_end_with_the_long_ones():
    shares = length_shares(np.array([1, 3, LONGEST, 1000]), np.array([5, 3, 1, 1]))
    assert len(shares) == LONGEST + 1
    assert {length: share for length, share in enumerate(shares) if share} == {
        1: 0.5,
        3: 0.3,
        LONGEST: 0.2,
    }


def texts_by_hand(documents, together):
    """Documents are lists of (id, text)."""
    seen = {}
    for document in documents:
        for i in range(0, len(document) - together + 1, together):
            ids, texts = zip(*document[i : i + together], strict=True)
            seen.setdefault(ids, []).append(b"".join(texts))
    total = sum(map(len, seen.values()))
    found = []
    for ids, texts in sorted(seen.items(), key=lambda pair: (-len(pair[1]), pair[0]))[:16]:
        ranked = sorted(Counter(texts).items(), key=lambda pair: (-pair[1], pair[0]))
        shown = [(text.decode(), round(n / len(texts), 6)) for text, n in ranked[:4]]
        found.append(TextsOfIds(list(ids), round(len(texts) / total, 6), len(ranked), shown))
    return found


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.sampled_from([b"", b"a", b"bc"])), max_size=20),
        max_size=5,
    ),
    st.integers(1, 3),
)
def test_texts_are_those_of_every_occurrence(documents, together):
    ids = np.array([each for document in documents for each, _ in document], np.uint16)
    offsets = np.cumsum([0, *map(len, documents)])
    text = ByteStrings.of([text for document in documents for _, text in document])
    found = frequent_texts(ids, offsets, text, 6, together)
    assert found == texts_by_hand(documents, together)


@dataclass(frozen=True)
class PairsCodec(BytesCodec):
    """Two bytes are an id, so its ids depend on whether an edit changes the length's parity."""

    @property
    def vocab_size(self):
        return 1 << 24

    def encode_batch(self, documents):
        found = []
        for document in documents:
            pairs = [document[i : i + 2] for i in range(0, len(document), 2)]
            found.append([int.from_bytes(pair) + (len(pair) << 16) for pair in pairs])
        offsets = np.cumsum([0, *map(len, found)])
        return np.array([each for ids in found for each in ids], np.uint32), offsets

    def text_ends(self, ids, offsets):
        ends = []
        for a, b in itertools.pairwise(offsets.tolist()):
            ends += np.cumsum(ids[a:b].astype(np.int64) >> 16).tolist()
        return np.array(ends, np.int64)


def test_stability_of_a_codec_that_can_be_followed_by_hand():
    text = bytes(range(32, 127)) * 11
    documents = ByteStrings.of([b"short", "é".encode() * 600, text[:1024]])
    found = stability(PairsCodec(), documents)
    assert found.documents == 1
    # 1,024 bytes are 512 ids. An even shift changes none but the first, an odd one changes all.
    change, insert, delete, cut = (found.edits[edit] for edit in EDITS)
    assert (change.ids_until, change.recovered, change.agreeing) == (1, 1, round(511 / 512, 6))
    assert (insert.ids_until, insert.recovered, insert.agreeing) == (None, 0, 0)
    assert (delete.ids_until, delete.recovered) == (None, 0)
    assert (cut.ids_until, cut.recovered, cut.agreeing) == (0, 1, 1)
    # Of four edits: the first ids agree after the cut only, the next after the change as well.
    assert found.curve[:3] == [0.25, 0.5, 0.5]


def test_bytes_recover_at_once_and_gzip_never():
    documents = ByteStrings.of([ENGLISH.encode() * 40, "thé ".encode() * 700])
    found = stability(BytesCodec(), documents)
    assert [found.edits[edit].ids_until for edit in EDITS] == [1, 1, 0, 0]
    # Cut before a character, not within one: 64 bytes end within the "é" of the second document.
    assert all(edit.recovered == 1 for edit in found.edits.values())
    assert found.curve[1:] == [1.0] * (len(found.curve) - 1)
    found = stability(GzipCodec(), documents)
    assert all(edit.recovered == 0 for edit in found.edits.values())


def test_codebooks_recover():
    found = stability(CodebookCodec(small_book()), ByteStrings.of([ENGLISH.encode() * 40]))
    assert all(edit.recovered == 1 for edit in found.edits.values())


def test_stability_needs_long_documents():
    assert stability(BytesCodec(), ByteStrings.of([b"a" * 1023, b"\xc3" * 2000])) is None
    assert stability(BytesCodec(), ByteStrings.of([])) is None
    # Continuation bytes without an end don't make it search for one far back.
    assert stability(BytesCodec(), ByteStrings.of([b"a" + b"\x80" * 3000])).documents == 1
