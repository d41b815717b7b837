import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from corpusmill.corpus.datasets import Completion, DatasetWriter
from corpusmill.corpus.errors import DataError, DatasetError, UsageError
from corpusmill.ngram_agg import (
    DistributionOptions,
    count_ngrams,
    open_distributions,
    scan_distributions,
    tables,
)
from corpusmill.ngram_agg.distributions import distribution_row
from tests.oracle import distributions, documents_of

VOCABULARY, END, MAX_ORDER, TOP_K = 300, 299, 3, 4


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(5)
    tokens = np.minimum(rng.zipf(1.5, 20_000), VOCABULARY - 1).astype(np.uint16)
    tokens[-1] = END
    return tokens


@pytest.fixture(scope="module")
def expected(corpus):
    documents = documents_of(corpus, END)
    return [distributions(documents, order, TOP_K, 1) for order in range(MAX_ORDER + 1)]


@pytest.fixture(scope="module")
def folder(corpus, tmp_path_factory):
    """A distributions dataset with small row groups, written by hand."""
    folder = str(tmp_path_factory.mktemp("tables") / "distributions")
    options = DistributionOptions(TOP_K, 1)
    run = count_ngrams(corpus, max_order=MAX_ORDER, vocabulary_size=VOCABULARY, end_of_document=END)
    rows_by_order = [distribution_row(run.shortened(1), options)]
    rows_by_order += next(scan_distributions([run], options))
    writer = DatasetWriter(folder, "distributions", {})
    writer.begin()
    records = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROW_GROUP_ROWS", 500)
        for order, rows in enumerate(rows_by_order):
            with writer.new_file(f"order={order}/part-00000-of-00001.parquet") as file:
                with tables.open_writer(file.path, run.packing, order) as output:
                    output.write(tables.rows_to_batch(run.packing, order, rows))
                file.rows, file.tokens = output.rows, int(rows.total.sum())
            records.append(file.written)
    writer.complete("all", Completion(tuple(records), {}))
    writer.finish(
        writer.completed(["all"]),
        inputs={},
        tokenizer={"vocabulary_size": VOCABULARY, "end_of_document": END},
        properties={"max_order": MAX_ORDER, "min_count": 1},
    )
    return folder


def as_entry(found):
    head = list(zip(found.next_tokens.tolist(), found.next_counts.tolist(), strict=True))
    return found.total, head, found.tail_count, found.tail_distinct


@pytest.mark.parametrize("order", range(MAX_ORDER + 1))
def test_find_reads_single_contexts(folder, expected, order):
    dataset = open_distributions(folder)
    for context in list(expected[order])[::97]:
        found = dataset.find(context)
        assert found.context == context
        assert as_entry(found) == expected[order][context]
    if order:
        assert dataset.find((END,) * order) is None


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("order", range(1, MAX_ORDER + 1))
def test_find_many(folder, expected, order, cached, tmp_path):
    dataset = open_distributions(folder)
    cache = str(tmp_path) if cached else None
    dataset.load(order, cache)
    table = dataset.load(order, cache)
    assert isinstance(table.columns["low"], np.memmap) == cached
    assert len(table) == len(expected[order])
    contexts = list(expected[order])
    rows = table.find(contexts)
    assert sorted(rows.tolist()) == list(range(len(contexts)))
    for context, row in zip(contexts[::31], rows[::31].tolist(), strict=True):
        found = table.distribution(row)
        assert found.context == context
        assert as_entry(found) == expected[order][context]
    rng = np.random.default_rng(order)
    others = rng.integers(0, VOCABULARY, (5000, order))
    known = [tuple(context) in expected[order] for context in others.tolist()]
    assert ((table.find(others) >= 0) == known).all()


def test_longest_match_backs_off(folder, expected):
    dataset = open_distributions(folder)
    seen = next(iter(expected[2]))
    assert dataset.longest_match([END, *seen]).context == seen
    assert dataset.longest_match([END]).context == ()
    assert dataset.longest_match([]).total == expected[0][()][0]


def test_only_the_row_groups_that_may_match_are_read(folder, expected, monkeypatch):
    read = []
    original = pq.ParquetFile.read_row_group

    def counted(self, group, *arguments, **options):
        read.append(group)
        return original(self, group, *arguments, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    with pq.ParquetFile(f"{folder}/order=3/part-00000-of-00001.parquet") as file:
        groups = file.num_row_groups
    open_distributions(folder).find(list(expected[3])[-1])
    assert groups > 5
    assert len(read) <= 2


def test_wrong_uses_are_errors(folder, tmp_path):
    dataset = open_distributions(folder)
    with pytest.raises(UsageError, match="order 4 is not between 1 and 3"):
        dataset.load(4)
    with pytest.raises(ValueError, match=r"not \[n, 2\]"):
        dataset.load(2).find([[1, 2, 3]])
    with pytest.raises(DatasetError, match="no manifest"):
        open_distributions(str(tmp_path))


def test_check_table_finds_wrong_contents(folder, tmp_path):
    packing = open_distributions(folder).packing(2)
    path = f"{folder}/order=2/part-00000-of-00001.parquet"
    rows, positions = tables.check_table(path, packing, 2, 1)
    table = pq.read_table(path, partitioning=None)
    assert (rows, positions) == (table.num_rows, sum(table["total"].to_pylist()))
    faults = {
        "do not rise": table.take([1, 0]),
        "miss its total": table.set_column(2, table.schema.field(2), [table["tail_count"]]),
    }
    for message, wrong in faults.items():
        pq.write_table(wrong, tmp_path / "wrong.parquet")
        with pytest.raises(DataError, match=message):
            tables.check_table(str(tmp_path / "wrong.parquet"), packing, 2, 1)
    with pytest.raises(DataError, match="fewer than"):
        tables.check_table(path, packing, 2, 1 << 40)


def test_the_manifest_is_readable_json(folder):
    with open(f"{folder}/manifest.json") as file:
        assert json.load(file)["kind"] == "distributions"
