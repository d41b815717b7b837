"""Asking tables that are divided among workers, against looking up in one of everything."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.corpus.errors import DataError
from corpusmill.ngram_agg import join_files
from corpusmill.ngram_agg.counts_runs import count_ngrams
from corpusmill.ngram_agg.full_tables import backward_contexts, backward_run, context_lengths
from corpusmill.ngram_agg.packing import Packing, pack_one
from corpusmill.ngram_agg.positions import (
    Documents,
    find_documents,
    find_positions,
    joined_documents,
    start_of_file,
)
from corpusmill.ngram_agg.targets import make_target_table, make_targets
from tests.ngram_agg.strategies import corpora
from tests.ngram_agg.test_targets import mix, options_strategy


def row_groups(tokens, end, packing, seed, cut):
    """Positions and documents of a corpus in two row groups."""
    place = start_of_file(packing)
    for part in (tokens[:cut], tokens[cut:]):
        if not len(part):
            continue
        ends = np.flatnonzero(part == end) + 1
        ends = np.unique([*ends, len(part)])
        first = int((tokens[: cut if part is not tokens[:cut] else 0] == end).sum())
        hashes = np.array([mix(first + row) for row in range(len(ends))], np.uint64)
        documents = find_documents(packing, part, ends, hashes, place, seed)
        yield find_positions(packing, part, documents, place), documents
        place = place.after(packing, part)


@given(st.data(), corpora(max_order=4), st.integers(0, 400))
def test_the_answers_are_those_of_one_table(tmp_path_factory, data, corpus, cut):
    tokens, vocabulary, end, max_order = corpus
    if not len(tokens):
        return
    options = data.draw(options_strategy(max_order))
    packing = Packing(max_order + 1, vocabulary, end)
    counts = count_ngrams(
        tokens, max_order=max_order, vocabulary_size=vocabulary, end_of_document=end
    )
    run = backward_run(counts, options.orders, options.min_count)
    table = make_target_table(
        packing, options, backward_contexts(packing, [run], options.min_count)
    )
    groups = list(row_groups(tokens, end, packing, options.seed, min(cut, len(tokens))))
    expected = [make_targets(table, positions) for positions, _ in groups]

    ids = sorted(set(tokens.tolist()))
    prefix = st.lists(st.sampled_from(ids), min_size=1, max_size=max_order + 1).map(tuple)
    cuts = sorted(data.draw(st.sets(prefix, max_size=3)), key=lambda each: pack_one(packing, each))
    folder = tmp_path_factory.mktemp("join")
    questions = join_files.find_questions(packing, [positions for positions, _ in groups])
    keys = list(zip(questions.high.tolist(), questions.low.tolist(), strict=True))
    assert keys == sorted(set(keys))
    assert sorted(questions.positions.tolist()) == list(range(len(tokens)))
    divided = join_files.divided(questions, cuts)
    asked = [number for number, _ in divided]
    assert asked == sorted(set(asked))
    parts = [part for _, part in divided]
    join_files.write_questions(str(folder / "questions"), packing, parts)
    join_files.write_documents(
        str(folder / "documents"),
        joined_documents([(documents, len(positions)) for positions, documents in groups]),
    )
    documents = join_files.read_documents(str(folder / "documents"))

    bounds = [pack_one(packing, cut) for cut in cuts]
    with join_files.AnswersWriter(str(folder / "answers"), packing) as output:
        for group, number in enumerate(asked):
            part = join_files.read_questions(str(folder / "questions"), group, packing)
            # Each is asked of the table that its key lies in.
            for key in zip(part.high.tolist(), part.low.tolist(), strict=True):
                assert sum(bound <= key for bound in bounds) == number
            output.write(join_files.find_answers(table, part, documents))
    found = join_files.collect_targets(
        packing,
        options,
        tokens,
        (
            (
                join_files.read_askers(str(folder / "questions"), group),
                join_files.read_answers(str(folder / "answers"), group),
            )
            for group in range(len(asked))
        ),
    )
    slots = options.head, options.tail_draws
    parts = list(found.split([len(positions) for positions, _ in groups]))
    for one, two in itertools.zip_longest(parts, expected):
        for left, right in zip(one.dense(*slots), two.dense(*slots), strict=True):
            assert (left == right).all()
        assert (one.heads.orders[one.head] == two.heads.orders[two.head]).all()


def test_damaged_documents_name_their_file(tmp_path):
    path = tmp_path / "documents.arrow"
    documents = Documents(np.zeros(1, np.int64), np.zeros(1, np.uint64))
    join_files.write_documents(str(path), documents)
    path.write_bytes(path.read_bytes()[:-9])
    for url in (path, tmp_path / "missing"):
        with pytest.raises(DataError, match=f"{url} cannot be read"):
            join_files.read_documents(str(url))


@given(corpora(max_order=4))
def test_lengths_of_contexts_follow_from_their_keys(corpus):
    tokens, vocabulary, end, max_order = corpus
    packing = Packing(max_order + 1, vocabulary, end)
    for positions, _ in row_groups(tokens, end, packing, 0, len(tokens)):
        found = context_lengths(packing, positions.high, positions.low)
        assert (found == positions.lengths).all()
