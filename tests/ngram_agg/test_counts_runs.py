import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.ngram_agg import Packing, count_ngrams, merge_runs, merge_streams
from corpusmill.ngram_agg.packing import pack_one
from tests.ngram_agg.strategies import corpora
from tests.oracle import count_contexts, documents_of, flat


def as_dict(run):
    columns = [column.tolist() for column in run.columns()]
    return dict(zip(zip(*columns, strict=True), run.counts.tolist(), strict=True))


def count(corpus, **options):
    tokens, vocabulary, end, order = corpus
    return count_ngrams(
        tokens, max_order=order, vocabulary_size=vocabulary, end_of_document=end, **options
    )


def blocks_of(run, size):
    # One block more than needed: an empty one must not end the stream.
    return (run[at : at + size] for at in range(0, len(run) + 1, size))


def same(left, right):
    return (
        left.packing == right.packing
        and np.array_equal(left.high, right.high)
        and np.array_equal(left.low, right.low)
        and np.array_equal(left.counts, right.counts)
    )


@given(corpora())
def test_every_order_equals_a_dictionary(corpus):
    tokens, _, end, max_order = corpus
    run = count(corpus)
    documents = documents_of(tokens, end)
    for order in range(max_order + 1):
        assert as_dict(run.order(order)) == flat(count_contexts(documents, order))


@given(corpora(max_order=7))
@example((np.array([0, 7, 0], np.uint16), 50257, 0, 7))  # keys of 128 bits
def test_ngrams_are_sorted_and_unique_and_count_every_position(corpus):
    run = count(corpus)
    ngrams = list(as_dict(run))
    assert ngrams == sorted(set(ngrams))
    assert run.total() == len(corpus[0])


@given(corpora(), st.integers(0, 400))
def test_blocks_with_a_look_ahead_add_up_to_the_whole(corpus, cut):
    tokens, vocabulary, end, order = corpus
    cut = min(cut, len(tokens))
    first = count((tokens[: cut + order], vocabulary, end, order), starts=cut)
    assert same(merge_runs([first, count((tokens[cut:], vocabulary, end, order))]), count(corpus))


@given(corpora(), st.integers(1, 9), st.randoms())
def test_merging_parts_equals_counting_the_whole(corpus, parts, random):
    tokens, vocabulary, end, order = corpus
    documents = [np.array(d, tokens.dtype) for d in documents_of(tokens, end)]
    random.shuffle(documents)
    runs = [
        count((np.concatenate([tokens[:0], *documents[part::parts]]), vocabulary, end, order))
        for part in range(parts)
    ]
    assert same(merge_runs(runs), count(corpus))


@given(corpora(), st.integers(1, 5), st.integers(1, 20))
def test_merging_streams_equals_merging_runs(corpus, streams, block):
    tokens, vocabulary, end, order = corpus
    documents = [np.array(d, tokens.dtype) for d in documents_of(tokens, end)]
    runs = [
        count((np.concatenate([tokens[:0], *documents[part::streams]]), vocabulary, end, order))
        for part in range(streams)
    ]
    merged = list(merge_streams([blocks_of(run, block) for run in runs]))
    assert all(len(each) for each in merged)
    whole = count(corpus)
    if not len(whole):
        assert not merged
        return
    assert np.array_equal(np.concatenate([each.low for each in merged]), whole.low)
    assert np.array_equal(np.concatenate([each.high for each in merged]), whole.high)
    assert np.array_equal(np.concatenate([each.counts for each in merged]), whole.counts)


@given(corpora(), st.lists(st.integers(0, 1 << 20), max_size=6))
def test_bounds_find_the_place_of_a_key(corpus, prefix):
    run = count(corpus)
    ngrams = list(as_dict(run))
    wanted = tuple(min(token, corpus[1] - 1) for token in prefix)[: run.packing.length]
    wanted += (0,) * (run.packing.length - len(wanted))
    key = pack_one(run.packing, wanted)
    assert run.lower_bound(key) == sum(ngram < wanted for ngram in ngrams)
    assert run.upper_bound(key) == sum(ngram <= wanted for ngram in ngrams)


@pytest.mark.parametrize("vocabulary", [256, 32_000, 50_257, 65_536, 200_000, 1 << 20])
@pytest.mark.parametrize("order", range(6))
def test_long_random_stream(vocabulary, order):
    rng = np.random.default_rng(vocabulary + order)
    # Zipf-like, so that some n-grams repeat often and keys fill all their bits.
    tokens = (vocabulary - 1 - np.minimum(rng.zipf(1.3, 20_000), vocabulary - 1)).astype(np.uint32)
    end = vocabulary - 1
    tokens[rng.random(len(tokens)) < 0.02] = end
    tokens[-1] = end
    run = count((tokens, vocabulary, end, order))
    expected = flat(count_contexts(documents_of(tokens, end), order))
    assert as_dict(run.order(order)) == expected


def test_empty_stream():
    assert len(count((np.array([], np.uint16), 10, 9, 2))) == 0


def test_id_outside_the_vocabulary_names_its_position():
    with pytest.raises(
        DataError, match="token id 10 at position 2 is outside the vocabulary of 10"
    ):
        count((np.array([1, 2, 10, 9], np.uint16), 10, 9, 1))


@pytest.mark.parametrize("order", [-1, 8])
def test_an_order_that_does_not_fit_is_refused(order):
    with pytest.raises(UsageError, match="allows orders 0 to 7"):
        Packing(order + 1, 1 << 16, 0)


@pytest.mark.parametrize("length", [0, 3])
def test_a_length_that_the_ngrams_do_not_have_is_refused(length):
    run = count((np.array([1, 2, 9], np.uint16), 10, 9, 1))
    for shorter in (run.shortened, lambda length: run.order(length - 1)):
        with pytest.raises(UsageError, match=f"n-grams of {length} tokens are asked for"):
            shorter(length)


def test_counts_above_32_bits_are_exact():
    run = count((np.array([1, 1, 9], np.uint16), 10, 9, 0))
    for _ in range(40):
        run = merge_runs([run, run])
    assert as_dict(run) == {(1,): 2 << 40, (9,): 1 << 40}
