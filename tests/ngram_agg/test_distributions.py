import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.corpus.errors import UsageError
from corpusmill.ngram_agg import DistributionOptions, count_ngrams, merge_runs, scan_distributions
from corpusmill.ngram_agg.distributions import distribution_row, split_children, split_contexts
from corpusmill.ngram_agg.partitions import partition_cuts, sample_stream
from tests.ngram_agg.strategies import corpora, partition_bounds
from tests.oracle import distributions, documents_of


def entries(rows):
    """DistributionRows as {context: (total, head, tail count, tail distinct)}, in order."""
    found = {}
    for i in range(len(rows)):
        part = slice(rows.offsets[i], rows.offsets[i + 1])
        head = zip(rows.next_tokens[part].tolist(), rows.next_counts[part].tolist(), strict=True)
        context = tuple(int(column[i]) for column in rows.contexts)
        assert context not in found
        found[context] = (
            int(rows.total[i]),
            list(head),
            int(rows.tail_count[i]),
            int(rows.tail_distinct[i]),
        )
    return found


def blocks_of(run, size):
    return (run[at : at + size] for at in range(0, len(run), size))


@given(corpora(), st.integers(1, 5), st.integers(1, 4), st.integers(1, 50))
def test_every_order_equals_the_oracle(corpus, top_k, min_count, block):
    tokens, vocabulary, end, max_order = corpus
    run = count_ngrams(tokens, max_order=max_order, vocabulary_size=vocabulary, end_of_document=end)
    options = DistributionOptions(top_k, min_count)
    documents = documents_of(tokens, end)
    found = [{} for _ in range(max_order)]
    for rows_by_order in scan_distributions(blocks_of(run, block), options):
        for entry, rows in zip(found, rows_by_order, strict=True):
            entry.update(entries(rows))
    for order in range(1, max_order + 1):
        expected = distributions(documents, order, top_k, min_count)
        assert found[order - 1] == expected
        assert list(found[order - 1]) == sorted(expected)


@given(corpora(), st.integers(1, 30), st.integers(1, 3), st.integers(1, 40))
def test_partitions_and_split_contexts_together_give_every_context(
    corpus, partition_rows, min_count, block
):
    tokens, vocabulary, end, max_order = corpus
    run = count_ngrams(tokens, max_order=max_order, vocabulary_size=vocabulary, end_of_document=end)
    if not len(run):
        return
    options = DistributionOptions(3, min_count)
    cuts = partition_cuts(run.packing, sample_stream([run]), partition_rows)
    found = [{} for _ in range(max_order + 1)]
    divided = {}
    for number, (lower, upper) in enumerate(partition_bounds(run.packing, cuts)):
        last = len(run) if upper is None else run.lower_bound(upper)
        part = run[run.lower_bound(lower) : last]
        assert len(part)
        lower_cut, upper_cut = [(), *cuts][number], [*cuts, ()][number]
        for rows_by_order in scan_distributions(
            blocks_of(part, block), options, lower=lower_cut, upper=upper_cut
        ):
            for order, rows in enumerate(rows_by_order, 1):
                for context, entry in entries(rows).items():
                    assert context not in found[order]
                    found[order][context] = entry
        for context in split_contexts(lower_cut, upper_cut):
            divided.setdefault(context, []).append(split_children(part, context))
    for context, children in divided.items():
        for key, entry in entries(distribution_row(merge_runs(children), options)).items():
            assert key == context
            assert key not in found[len(key)]
            found[len(key)][key] = entry
    documents = documents_of(tokens, end)
    for order in range(max_order + 1):
        assert found[order] == distributions(documents, order, 3, min_count)


def test_ties_go_to_the_smaller_id():
    tokens = np.array([1, 5, 9, 1, 4, 9, 1, 6, 9, 1, 6, 9], np.uint16)
    run = count_ngrams(tokens, max_order=1, vocabulary_size=10, end_of_document=9)
    (rows,) = next(scan_distributions([run], DistributionOptions(3, 2)))
    assert entries(rows)[(1,)] == (4, [(6, 2), (4, 1), (5, 1)], 0, 0)


@pytest.mark.parametrize("options", [{"top_k": 0}, {"top_k": 1 << 17}, {"min_count": 0}])
def test_bad_options_are_refused(options):
    with pytest.raises(UsageError, match="is not"):
        DistributionOptions(**options)
