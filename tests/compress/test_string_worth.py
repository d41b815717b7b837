"""What strings are worth, against slow definitions."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.compress.codebooks import string_worth
from corpusmill.compress.codebooks.codebook import PARSES, Codebook
from corpusmill.compress.codebooks.expansion import most_probable
from corpusmill.compress.codebooks.freeze import FreezeOptions, freeze, window_starts_model
from corpusmill.compress.codebooks.trie import NO_PARENT
from tests.compress.samples import DATA, HARD, TEXT, ngram

BOOK = freeze(ngram(), FreezeOptions("optimal", 12), {}, ByteStrings.of(TEXT * 3 + HARD))


@pytest.mark.parametrize("parse", PARSES)
@settings(max_examples=30)
@given(texts=st.lists(DATA, max_size=3))
def test_savings_are_the_ids_that_a_later_beginning_needs_less(parse, texts):
    texts = [text[:40] for text in texts]
    found = string_worth._savings_of_bytes(BOOK, ByteStrings.of(texts), parse).tolist()
    wanted = []
    for text in texts:
        ids = [len(BOOK.encode(text[start:], parse)) for start in range(len(text) + 1)]
        wanted += [max(-3, min(3, before - after)) for before, after in itertools.pairwise(ids)]
    assert found == wanted


@pytest.mark.parametrize("parse", PARSES)
def test_means_are_over_the_windows_that_begin_with_a_string(parse):
    text = ByteStrings.of(TEXT * 3)
    at_starts = window_starts_model(ngram(), BOOK, text, parse)
    candidates, _ = most_probable(at_starts, 13, lambda _: None)
    savings = string_worth._savings_of_bytes(BOOK, text, parse)
    found = string_worth._mean_savings(candidates, savings, BOOK, text, parse)

    def mean(places, before):
        total = sum(int(savings[place]) << 16 for place in places)
        return (total + 16 * before) // (len(places) + 16)

    starts, ends = BOOK.windows(text, parse)
    data = text.data.tobytes()
    inner = [p for p in range(len(data)) if p not in text.offsets.tolist()]
    overall = mean(inner, 0)
    for string, value in list(zip(candidates.strings(), found.tolist(), strict=True))[::7]:
        ending = (b" " + string)[-2:]
        by_ending = mean([p for p in inner if data[p - 1 : p + 1] == ending], overall)
        windows = [
            start + len(string) - 1
            for start, end in zip(starts, ends, strict=True)
            if data[start:end].startswith(string)
        ]
        assert value == mean(windows, by_ending), string


@st.composite
def tries(draw):
    """Parents in depth-first order, and what each node is worth."""
    parents, path = [], []
    for _ in range(draw(st.integers(2, 8))):
        depth = draw(st.integers(0, len(path)))
        parents.append(path[depth - 1] if depth else NO_PARENT)
        path = [*path[:depth], len(parents) - 1]
    values = draw(st.lists(st.integers(-20, 50), min_size=len(parents), max_size=len(parents)))
    return np.array(parents, np.int32), np.array(values, np.int64)


def closed_sets(parents):
    singles = {node for node, parent in enumerate(parents) if parent == NO_PARENT}
    others = sorted(set(range(len(parents))) - singles)
    for size in range(len(others) + 1):
        for chosen in itertools.combinations(others, size):
            taken = singles.union(chosen)
            if all(parents[node] in taken for node in chosen):
                yield taken


@given(tries())
# Three strings are best at prices between 16.5 and 17 only.
@example((np.array([-1, 0, 1, -1, 3], np.int32), np.array([0, 0, 33, 0, 17], np.int64)))
def test_the_best_sets_are_taken(trie):
    parents, values = trie
    best = {}
    for taken in closed_sets(parents.tolist()):
        best[len(taken)] = max(best.get(len(taken), -1000), int(values[list(taken)].sum()))
    assert sorted(best) == list(range(min(best), len(parents) + 1))
    for size in best:
        found = string_worth._best_closed(parents, values, size)
        chosen = set(np.flatnonzero(found).tolist())
        assert len(chosen) == size
        assert chosen in list(closed_sets(parents.tolist()))
        # Prices are whole numbers; where one makes no other size as good, the best set is found.
        prices = range(int(values.min()) - 1, int(values.max()) + 1)
        if any(
            all(
                best[size] - best[other] > price * (size - other) for other in best if other != size
            )
            for price in prices
        ):
            assert int(values[list(chosen)].sum()) == best[size]


def test_worth_in_the_extreme_does_not_overflow():
    parents = np.arange(-1, 1022, dtype=np.int32)
    largest = np.full(1023, 3 << 16 + 34, np.int64)
    for values in (largest, -largest, np.where(np.arange(1023) % 2, largest, -largest)):
        taken = string_worth._best_closed(parents, values, 500)
        assert np.flatnonzero(taken).tolist() == list(range(500))


@pytest.mark.parametrize("parse", PARSES)
def test_the_strings_are_a_codebook(parse):
    text = ByteStrings.of(TEXT * 3 + HARD)
    at_starts = window_starts_model(ngram(), BOOK, text, parse)
    candidates, probabilities = most_probable(at_starts, 14, lambda _: None)
    trie = string_worth.most_worth(candidates, probabilities, 1 << 12, BOOK, text, parse)
    book = Codebook.of(trie, {})
    everything = np.arange(1 << 12)
    assert (book.encode_batch(book.strings, parse)[0] == everything).all()
    assert set(book.strings) <= set(candidates.strings())
