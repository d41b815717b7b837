import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.ngram_agg import count_ngrams, merge_runs
from corpusmill.ngram_agg.partitions import (
    merge_samples,
    partition_cuts,
    sample_stream,
)
from tests.ngram_agg.strategies import corpora, partition_bounds


def same(left, right):
    return all(
        np.array_equal(getattr(left, name), getattr(right, name))
        for name in ("hashes", "high", "low")
    )


def zipf_run(seed, size=200_000, vocabulary=5000):
    rng = np.random.default_rng(seed)
    tokens = np.minimum(rng.zipf(1.2, size), vocabulary - 1).astype(np.uint16)
    return count_ngrams(tokens, max_order=2, vocabulary_size=vocabulary, end_of_document=0)


@given(corpora(), st.integers(1, 20), st.integers(1, 50))
def test_a_sample_does_not_depend_on_how_the_ngrams_come(corpus, block, size):
    tokens, vocabulary, end, order = corpus
    run = count_ngrams(tokens, max_order=order, vocabulary_size=vocabulary, end_of_document=end)
    blocks = [run[at : at + block] for at in range(0, len(run), block)]
    whole = sample_stream([run], size)
    assert same(sample_stream(blocks, size), whole)
    parts = [sample_stream([each], size) for each in reversed(blocks)]
    if parts:
        assert same(merge_samples(parts, size), whole)
    assert len(whole) == min(size, len(run))


def test_the_sample_of_a_union_is_the_sample_of_the_samples():
    left, right = zipf_run(1), zipf_run(2)
    union = sample_stream([merge_runs([left, right])], 1000)
    assert same(merge_samples([sample_stream([r], 1000) for r in (right, left)], 1000), union)


def test_distinct_is_exact_for_few_and_close_for_many():
    run = zipf_run(3)
    assert sample_stream([run], 1 << 20).distinct(1 << 20) == len(run)
    estimate = sample_stream([run], 4096).distinct(4096)
    # The relative standard error of a bottom-k estimate is 1 / sqrt(k - 2).
    assert abs(estimate / len(run) - 1) < 5 / 64


def test_partitions_are_of_equal_size_although_first_tokens_are_not():
    run = zipf_run(4)
    cuts = partition_cuts(run.packing, sample_stream([run], 8192), len(run) // 20, 8192)
    assert 18 <= len(cuts) <= 22
    assert cuts == sorted(set(cuts))
    sizes = []
    for lower, upper in partition_bounds(run.packing, cuts):
        last = len(run) if upper is None else run.lower_bound(upper)
        sizes.append(last - run.lower_bound(lower))
    assert sum(sizes) == len(run)
    assert max(sizes) < 2 * np.median(sizes)


@given(corpora(), st.integers(1, 10))
def test_no_partition_is_empty(corpus, rows):
    tokens, vocabulary, end, order = corpus
    run = count_ngrams(tokens, max_order=order, vocabulary_size=vocabulary, end_of_document=end)
    cuts = partition_cuts(run.packing, sample_stream([run]), rows)
    starts = [run.lower_bound(lower) for lower, _ in partition_bounds(run.packing, cuts)]
    if len(run):
        assert all(a < b for a, b in zip(starts, [*starts[1:], len(run)], strict=True))
    else:
        assert not cuts
