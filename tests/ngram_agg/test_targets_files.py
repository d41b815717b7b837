"""Files of targets: what is written is read back, whatever the segments, and damage is named."""

import dataclasses
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpusmill.corpus.datasets import Manifest
from corpusmill.corpus.errors import DataError
from corpusmill.ngram_agg import targets_files
from corpusmill.ngram_agg.heads import Targets
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.ngram_agg.targets import make_targets
from corpusmill.ngram_agg.targets_files import TargetsReader, TargetsWriter
from tests.ngram_agg.test_targets import (
    END,
    documents_strategy,
    options_strategy,
    positions_of,
    table_of,
    zipf_documents,
)
from tests.targets import in_slots, read_rows

NAME = "part-00000-of-00001.parquet"


def write(folder, groups, packing, tokens_sha256="of the tokens"):
    """Writes row groups of targets, each with where its rows end."""
    (folder / "heads").mkdir(parents=True, exist_ok=True)
    paths = str(folder / NAME), str(folder / "heads" / NAME)
    with TargetsWriter(*paths, packing, tokens_sha256) as writer:
        for targets, ends in groups:
            writer.write(targets, np.array(ends))
    return writer


def reader_of(folder, packing, options):
    tokenizer = {
        "vocabulary_size": packing.vocabulary_size,
        "end_of_document": packing.end_of_document,
    }
    manifest = Manifest("targets", {}, {}, tokenizer, dataclasses.asdict(options), (), {})
    return TargetsReader(str(folder), manifest)


def groups_of(table, documents, options):
    """A row group for every two documents, a row each, as they are looked up."""
    for first in range(0, len(documents), 2):
        some = documents[first : first + 2]
        targets = make_targets(table, positions_of(some, table.packing, options.seed))
        yield targets, np.cumsum([len(document) for document in some]).tolist()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), documents_strategy, st.integers(0, 3), st.integers(1, 60))
def test_what_is_written_is_read_back(tmp_path_factory, data, documents, max_order, numbers):
    """By our reader and by one that knows the documentation only, for segments of any size."""
    folder = tmp_path_factory.mktemp("targets")
    options = data.draw(options_strategy(max_order))
    packing = Packing(max_order + 1, 6, END)
    table = table_of(documents, packing, options)
    groups = list(groups_of(table, documents, options))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets_files, "_SEGMENT_NUMBERS", numbers)
        writer = write(folder, groups, packing)
    assert writer.positions == sum(map(len, documents))
    assert writer.by_order.sum() == writer.positions
    slots = options.head, options.tail_draws
    rows = read_rows(folder, NAME)
    found = reader_of(folder, packing, options).read_file(NAME)
    for (targets, ends), (found_ends, again) in zip(groups, found, strict=True):
        assert found_ends.tolist() == ends
        for one, two in zip(targets.dense(*slots), again.dense(*slots), strict=True):
            assert (one == two).all()
        assert (targets.heads.orders[targets.head] == again.heads.orders[again.head]).all()
        tokens, weights = targets.dense(*slots)
        positions = iter(zip(tokens.tolist(), weights.tolist(), strict=True))
        for _ in ends:
            for _, head, drawn in next(rows):
                expected = list(zip(*next(positions), strict=True))
                assert in_slots(head, drawn, slots) == expected
    assert next(rows, None) is None


def test_bytes_depend_on_the_targets_alone(tmp_path):
    """Not on where heads came from, nor on how a table numbers them."""
    documents = zipf_documents(1, 3000, 60, 12)
    options = TargetOptions(head=3, tail_draws=2, max_order=2)
    packing = Packing(3, 60, END)
    table = table_of(documents, packing, options)
    groups = list(groups_of(table, documents, options))
    write(tmp_path / "one", groups, packing)
    shuffled = []
    for number, (targets, ends) in enumerate(groups):
        order = np.random.default_rng(number).permutation(len(table.heads))
        place = np.argsort(order)
        heads = table.heads.take(order)
        shuffled.append((Targets(heads, place[targets.head], targets.drawn), ends))
    write(tmp_path / "two", shuffled, packing)
    for name in (NAME, f"heads/{NAME}"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_heads_are_distinct_and_the_most_used_come_first(tmp_path):
    documents = zipf_documents(2, 3000, 60, 12)
    options = TargetOptions(head=3, tail_draws=2, max_order=2)
    packing = Packing(3, 60, END)
    table = table_of(documents, packing, options)
    writer = write(tmp_path, groups_of(table, documents, options), packing)
    heads = pq.read_table(tmp_path / "heads" / NAME).to_pylist()
    assert len({str(head) for head in heads}) == len(heads) == writer.heads
    numbers = pq.read_table(tmp_path / NAME)["head"].combine_chunks().flatten().to_numpy()
    uses = np.bincount(numbers, minlength=len(heads))
    assert (uses > 0).all()
    assert (np.diff(uses) <= 0).all()


@pytest.fixture
def written(tmp_path):
    documents = zipf_documents(3, 600, 40, 6)
    options = TargetOptions(head=3, tail_draws=2, max_order=2)
    packing = Packing(3, 40, END)
    table = table_of(documents, packing, options)
    write(tmp_path / "targets", groups_of(table, documents, options), packing)
    return tmp_path / "targets", reader_of(tmp_path / "targets", packing, options)


def rewrite(path, change):
    """Writes a file again with other rows, and the same words at its end."""
    file = pq.ParquetFile(path)
    groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
    words = {key: value for key, value in file.metadata.metadata.items() if b"mill" in key}
    with pq.ParquetWriter(path, file.schema_arrow) as writer:
        writer.add_key_value_metadata(words)
        for group in groups:
            rows = group.to_pylist()
            change(rows)
            writer.write_table(pa.Table.from_pylist(rows, schema=file.schema_arrow))


def widest(rows):
    """The longest document, or a head with tokens and draws."""
    return max(rows, key=lambda row: (len(row.get("weights", [])), len(row.get("head", []))))


def set_list(name, place, value):
    def change(rows):
        widest(rows)[name][place] = value

    return change


def set_value(name, value):
    def change(rows):
        widest(rows)[name] = value

    return change


def drop(name):
    def change(rows):
        widest(rows)[name].pop()

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (NAME, set_list("head", 5, 1 << 30), "positions of one row group have number"),
        (NAME, set_list("drawn", 0, 40), "id 40 at position 0 is outside the vocabulary of 40"),
        (NAME, drop("drawn"), "a row in row group 0 has more or fewer drawn tokens"),
        (f"heads/{NAME}", set_list("tokens", 0, 41), "id 41 at position 0 is outside"),
        (f"heads/{NAME}", set_list("weights", 0, 65535), "weights of more than 65535, number"),
        (f"heads/{NAME}", set_list("weights", 0, 0), "a token of weight 0 in a head"),
        (f"heads/{NAME}", drop("weights"), "more or fewer weights than tokens"),
        (f"heads/{NAME}", set_value("draws", 3), "too many drawn tokens, number"),
        (f"heads/{NAME}", set_value("draws", 0), "weights that don't add up to 65535, number"),
        (f"heads/{NAME}", set_value("order", 3), "a context of too many tokens, number"),
        (f"heads/{NAME}", lambda rows: rows.pop(), "positions of one row group have number"),
    ],
)
def test_lies_are_one_line_that_names_the_file(written, name, change, message):
    folder, reader = written
    rewrite(folder / name, change)
    with pytest.raises(DataError, match=message) as raised:
        list(reader.read_file(NAME))
    assert NAME in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_heads_of_another_file_are_noticed(written, tmp_path):
    folder, reader = written
    documents = zipf_documents(4, 600, 40, 6)
    options = TargetOptions(head=3, tail_draws=2, max_order=2)
    packing = Packing(3, 40, END)
    table = table_of(documents, packing, options)
    write(tmp_path / "others", groups_of(table, documents, options), packing)
    shutil.copy(tmp_path / "others" / "heads" / NAME, folder / "heads" / NAME)
    with pytest.raises(DataError, match="has the heads of other targets"):
        list(reader.read_file(NAME))


def test_targets_of_other_tokens_are_noticed(written):
    _, reader = written
    reader.read(NAME, 0, "of the tokens")
    with pytest.raises(DataError, match="was made for another file of tokens"):
        reader.read(NAME, 0, "of others")
    with pytest.raises(DataError, match="has other rows in row group 0 than the tokens"):
        reader.read(NAME, 0, "of the tokens", np.array([1, 2, 3]))


@pytest.mark.parametrize("name", [NAME, f"heads/{NAME}"])
def test_a_missing_file_is_named(written, name):
    folder, reader = written
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        list(reader.read_file(NAME))
