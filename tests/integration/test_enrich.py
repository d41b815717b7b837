"""Targets of whole jobs: exact, the same for every table and runner, unbiased, resumed."""

import dataclasses
import gzip
import json
import math
import tempfile
from pathlib import Path

import duckdb
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from corpusmill.commands import cli
from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.errors import DataError
from corpusmill.ngram_agg import counts_files, full_tables, join_files
from corpusmill.ngram_agg.heads import WEIGHT_UNITS
from corpusmill.ngram_agg.positions import hash_strings
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.ngram_agg.targets_files import TargetsReader
from corpusmill.pipelines import target_joins, target_tables
from corpusmill.trainer.data import Loader, TokenDataset
from corpusmill.trainer.order import DataOptions
from tests.integration.samples import (
    assert_same_data,
    documents_of,
    file_hashes,
    random_texts,
    run,
    write_jsonl,
)
from tests.integration.test_resume import kill_after_first_part, start
from tests.ngram_agg import test_targets as oracle
from tests.targets import in_slots, names, read_rows

MAX_ORDER = 4
REPOSITORY = Path(__file__).parents[2]


def make_counts(folder, source):
    tokenizer = ("--tokenizer", "bytes", "--shard-mib", 1)
    run("tokenize", "--input", source, *tokenizer, "--output", folder / "tokens")
    options = ("--max-order", MAX_ORDER, "--run-tokens", 90_000, "--partition-mib", 1)
    run("count", "--tokens", folder / "tokens", "--output", folder / "counts", *options)


def run_enrich(folder, output, *more):
    inputs = ("--tokens", folder / "tokens", "--counts", folder / "counts")
    run("enrich", *inputs, "--output", output, *more)
    return output


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Tokens in several files and counts in several parts; empty and tiny documents among them."""
    folder = tmp_path_factory.mktemp("job")
    for number in range(6):
        texts = ["", "x", *random_texts(number, words=12_000), "", "é"]
        file = write_jsonl(folder / "corpus" / f"{number}.jsonl", texts)
        # So large are files that they are several shards.
        with file.open("a") as out:
            out.write(json.dumps({"text": "y", "not read": " " * 600_000}) + "\n")
    make_counts(folder, folder / "corpus")
    for kind in ("tokens", "counts"):
        assert len(read_manifest(str(folder / kind)).data_files) > 1
    return folder


@pytest.fixture(scope="module")
def whole(job):
    """Targets made with one table, in one process, in one go."""
    return run_enrich(job, job / "targets")


# So many tables of a few thousand n-grams each that positions have to be sorted for them.
MANY = ("--table-mib", 0.25)
MANY_OF_NOTHING = ("--table-mib", 1e-6)


def test_targets_are_those_of_the_oracle(job, tmp_path):
    options = TargetOptions(max_order=MAX_ORDER, seed=5, tail_draws=2, head=3)
    more = ("--draw-seed", 5, "--tail-draws", 2, "--head", 3, *MANY)
    targets = run_enrich(job, tmp_path / "out", *more)
    documents = documents_of(job / "tokens")
    ids = [
        text
        for path in sorted((job / "tokens").glob("*.parquet"))
        for text in pq.read_table(path)["doc_id"].to_pylist()
    ]
    encoded = [text.encode() for text in ids]
    starts = np.cumsum([0, *map(len, encoded)]).astype(np.int32)
    hashes = hash_strings(starts, np.frombuffer(b"".join(encoded), np.uint8)).tolist()
    # The oracle takes its time.
    every = 37
    expected = oracle.expected_targets(documents, options, MAX_ORDER, hashes, every)
    seen = 0
    for name in names(targets):
        tokens = pq.read_table(job / "tokens" / name)["tokens"].to_pylist()
        for document, row in zip(tokens, read_rows(targets, name), strict=True):
            assert len(row) == len(document)
            for position in range(-seen % every, len(document), every):
                order, slots = next(expected)
                found_order, head, drawn = row[position]
                assert found_order == order
                slots += [(0, 0)] * (options.slots - len(slots))
                assert in_slots(head, drawn, (options.head, options.tail_draws)) == slots
            seen += len(document)
    assert next(expected, None) is None


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--scheme", "split"),
        ("--scheme", "renormalize", "--estimator", "fixed", "--max-order", 2),
        ("--min-order", 0, "--max-order", 0),
    ],
)
def test_one_table_and_many_give_the_same_bytes(options, job, tmp_path):
    one = run_enrich(job, tmp_path / "one", *options)
    many = run_enrich(job, tmp_path / "many", *MANY, *options)
    assert_same_data(one, many)
    counters = read_manifest(str(many)).counters
    assert counters["spilled_bytes"] > 0
    assert "spilled_bytes" not in read_manifest(str(one)).counters


def test_large_parts_of_counts_are_turned_round_bit_by_bit(job, whole, tmp_path, monkeypatch):
    turned = []

    def read_counts(url, packing):
        for block in counts_files.read_counts(url, packing):
            for first in range(0, len(block), 4_000):
                yield block[first : first + 4_000]

    def backward_run(ngrams, *arguments):
        turned.append(len(ngrams))
        return full_tables.backward_run(ngrams, *arguments)

    monkeypatch.setattr(target_tables, "read_counts", read_counts)
    monkeypatch.setattr(target_tables, "backward_run", backward_run)
    monkeypatch.setattr(target_tables, "_STRETCH_NGRAMS", 10_000)
    assert_same_data(run_enrich(job, tmp_path / "out", *MANY), whole)
    assert max(turned) < 14_000
    assert len(turned) > len(read_manifest(str(job / "counts")).data_files)


def test_files_of_questions_and_answers_have_few_row_groups(job, whole, tmp_path, monkeypatch):
    groups = {"questions": [], "answers": []}

    def noting(name, read):
        def noted(url, group, *arguments):
            groups[name].append(group)
            return read(url, group, *arguments)

        monkeypatch.setattr(join_files, f"read_{name}", noted)

    noting("questions", join_files.read_questions)
    noting("answers", join_files.read_answers)
    monkeypatch.setattr(join_files, "ROW_GROUPS", 3)
    monkeypatch.setattr(target_joins, "_CHUNK_ROW_GROUPS", 1)
    assert_same_data(run_enrich(job, tmp_path / "out", *MANY), whole)
    for found in groups.values():
        assert set(found) == {0, 1, 2}
        assert len(found) > 9


@pytest.mark.slow
@pytest.mark.parametrize("tables", [(), MANY], ids=["one", "many"])
def test_two_worker_processes_give_the_same_bytes(tables, job, whole, tmp_path):
    two = run_enrich(job, tmp_path / "two", *tables, "--workers", 2)
    assert_same_data(two, whole)


@pytest.mark.parametrize("tables", [(), MANY], ids=["one", "many"])
def test_bundles_run_twice(tables, job, whole, tmp_path):
    twice = run_enrich(job, tmp_path / "two", *tables, "--direct_runner_bundle_repeat=1")
    assert_same_data(twice, whole)


@pytest.mark.parametrize("tables", [(), MANY_OF_NOTHING], ids=["one", "many"])
def test_a_corpus_without_any_context(tables, tmp_path):
    write_jsonl(tmp_path / "in.jsonl", ["ab"])
    make_counts(tmp_path, tmp_path / "in.jsonl")
    targets = run_enrich(tmp_path, tmp_path / "out", *tables)
    rows = [list(read_rows(targets, name)) for name in names(targets)]
    tokens = pq.read_table(tmp_path / "tokens" / names(targets)[0])["tokens"].to_pylist()[0]
    assert rows == [[[(255, [], [(token, 65535)]) for token in tokens]]]


def test_files_and_row_groups_are_those_of_the_tokens(job, whole):
    names = [path.name for path in sorted((job / "tokens").glob("*.parquet"))]
    assert [path.name for path in sorted(whole.glob("*.parquet"))] == names
    for name in names:
        one, two = (pq.ParquetFile(folder / name).metadata for folder in (job / "tokens", whole))
        assert one.num_row_groups == two.num_row_groups
        for group in range(one.num_row_groups):
            assert one.row_group(group).num_rows == two.row_group(group).num_rows
    manifest = read_manifest(str(whole), "targets")
    assert manifest.properties["tokens_hash"] == read_manifest(str(job / "tokens")).content_hash
    assert manifest.properties["slots"] == 20


@pytest.mark.parametrize(
    "options",
    [
        TargetOptions(max_order=MAX_ORDER),
        TargetOptions("split", "fixed", head=3, tail_draws=0, max_order=2, min_count=3),
        TargetOptions(head=0, tail_draws=3, min_order=0, max_order=MAX_ORDER, seed=7),
    ],
)
def test_the_loader_computes_the_targets_that_enrich_writes(options, job, tmp_path, monkeypatch):
    """Bit by bit, also in the middle of documents that go on in another row group."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # A document of several row groups.
    monkeypatch.setattr("corpusmill.corpus.tokens.ROW_GROUP_TOKENS", 1000)
    monkeypatch.setattr("corpusmill.corpus.tokens.MAX_ROW_TOKENS", 700)
    write_jsonl(tmp_path / "in.jsonl", ["", *random_texts(3, words=2000, documents=2), "end"])
    run(
        *("tokenize", "--input", tmp_path / "in.jsonl", "--tokenizer", "bytes"),
        *("--output", tmp_path / "tokens"),
    )
    arguments = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in dataclasses.asdict(options).items()
        if name != "seed"
    ]
    tokens, counts = str(tmp_path / "tokens"), str(job / "counts")
    inputs = ("--tokens", tokens, "--counts", counts, "--output", tmp_path / "targets")
    run("enrich", *inputs, *arguments, f"--draw-seed={options.seed}")
    data = DataOptions(batch_size=4, length=50, seed=1)
    stored = TokenDataset(tokens, data, str(tmp_path / "targets"), epochs=1)
    computed = TokenDataset(tokens, data, counts=counts, compact=options, epochs=1)
    positions = 0
    for one, two in zip(Loader(stored), Loader(computed, 2), strict=True):
        for left, right in zip(one, two, strict=True):
            assert left is right is None or torch.equal(left, right)
        positions += one.tokens.numel()
    assert positions > 5000


@pytest.mark.parametrize("scheme", ["retain", "split"])
def test_the_documented_sql_gives_the_flat_view(scheme, tmp_path, monkeypatch):
    write_jsonl(tmp_path / "in.jsonl", ["", "x", *random_texts(1, words=4_000), "é"])
    make_counts(tmp_path, tmp_path / "in.jsonl")
    draws = () if scheme == "split" else ("--tail-draws", 3)
    targets = run_enrich(tmp_path, tmp_path / "targets", "--scheme", scheme, "--head", 2, *draws)
    name = names(targets)[0]
    blocks = (REPOSITORY / "docs" / "formats.md").read_text().split("```sql")[1:]
    sql = next(block.split("```")[0] for block in blocks if "CREATE VIEW flat" in block)
    monkeypatch.chdir(tmp_path)
    with duckdb.connect() as connection:
        connection.execute(sql.replace("part-00000-of-00001.parquet", name))
        found = iter(connection.sql("SELECT * FROM flat ORDER BY row, place").fetchall())
    for row, positions in enumerate(read_rows(targets, name)):
        for place, (order, head, drawn) in enumerate(positions, 1):
            tokens, weights = (list(each) for each in zip(*head, *drawn, strict=True))
            assert next(found) == (row, place, order, tokens, weights)
    assert next(found, None) is None


@pytest.mark.slow
@pytest.mark.parametrize("tables", [(), MANY], ids=["one", "many"])
def test_a_document_of_several_rows(tables, tmp_path):
    """Contexts and draws go on over the rows and row groups of a document of a million tokens."""
    text = " ".join(random_texts(9, words=350_000, documents=1))
    assert len(text) > 1 << 20
    write_jsonl(tmp_path / "in.jsonl", [text, "", "hello"])
    make_counts(tmp_path, tmp_path / "in.jsonl")
    targets = run_enrich(tmp_path, tmp_path / "out", *tables, "--max-order", 2)
    tokens = pa.concat_tables(
        [pq.read_table(tmp_path / "tokens" / name) for name in names(targets)]
    )
    orders, rows = [], 0
    reader = TargetsReader(str(targets), read_manifest(str(targets)))
    for name in names(targets):
        for ends, found in reader.read_file(name):
            rows += len(ends)
            orders.append(found.heads.orders[found.head])
            weights = found.heads.slot_weights(16, 4)
            assert (weights.sum(axis=1, dtype=np.int64) == WEIGHT_UNITS).all()
    assert rows == tokens.num_rows > 3
    orders = np.concatenate(orders)
    end = read_manifest(str(targets)).tokenizer["end_of_document"]
    flat = np.concatenate(tokens["tokens"].to_numpy())
    first_of_document = np.flatnonzero(np.append(end, flat[:-1]) == end)
    # Only where a document begins there is no context of a token.
    assert np.flatnonzero(orders == 255).tolist() == first_of_document.tolist()
    assert len(first_of_document) == 3


def contexts_of(flat, end, order):
    """The context of every position as an int64, -1 where there is none of `order` tokens."""
    keys = np.zeros(len(flat), np.int64)
    valid = np.ones(len(flat), bool)
    for back in range(1, order + 1):
        before = np.concatenate([np.full(back, end), flat[:-back]])
        keys = keys * 60_000 + before
        valid &= before != end
    return np.where(valid, keys, -1)


def chi_square_limit(freedom):
    """What a chi-square variable exceeds once in a million times (Wilson & Hilferty 1931)."""
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + 4.75 * math.sqrt(spread)) ** 3


def is_unbiased(flat, end, order, tokens, weights, draws):
    """Whether the mean targets of the 1,000 most frequent contexts are their distributions.

    What isn't drawn must agree but for the rounding of weights; of what is drawn the frequencies
    are compared with the expected ones.
    """
    keys = contexts_of(flat, end, order)
    unique, counts = np.unique(keys[keys >= 0], return_counts=True)
    top = unique[np.argsort(-counts, kind="stable")[:1000]]
    top.sort()
    place = np.minimum(np.searchsorted(top, keys), len(top) - 1)
    rows = np.flatnonzero((keys >= 0) & (top[place] == keys))
    place = place[rows]
    head = tokens.shape[1] - draws
    statistic, freedom = 0.0, 0
    for context in range(len(top)):
        here = rows[place == context]
        size = flat.max() + 1
        expected = np.bincount(flat[here], minlength=size) / len(here)
        found = np.bincount(
            tokens[here, :head].ravel(), weights[here, :head].ravel(), minlength=size
        )
        found /= len(here) * WEIGHT_UNITS
        if not draws:
            if np.abs(found - expected).max() > 1 / WEIGHT_UNITS:
                return False
            continue
        in_head = found > 0
        if np.abs(found - expected)[in_head].max() > 1 / WEIGHT_UNITS:
            return False
        tail = np.where(in_head, 0, expected)
        drawn = tokens[here, head:][weights[here, head:] > 0]
        if not len(drawn):
            continue
        drawn = np.bincount(drawn, minlength=size)
        wanted = tail / tail.sum() * drawn.sum()
        if drawn[tail == 0].any():
            return False
        # Tokens that are expected seldom are taken together.
        often = wanted >= 5
        seldom = ~often & (wanted > 0)
        cells = [(drawn[often], wanted[often])]
        if wanted[seldom].sum() >= 5:
            cells.append((drawn[seldom].sum(keepdims=True), wanted[seldom].sum(keepdims=True)))
        terms = np.concatenate([(one - two) ** 2 / two for one, two in cells])
        if len(terms) > 1:
            statistic += terms.sum()
            freedom += len(terms) - 1
    return statistic <= chi_square_limit(max(freedom, 1))


@pytest.fixture(scope="module")
def wiki(shared_data, tmp_path_factory):
    """Three million tokens of simplewiki, tokenized and counted."""
    folder = tmp_path_factory.mktemp("wiki")
    size, lines = 0, []
    with gzip.open(shared_data / "corpora" / "simplewiki.jsonl.gz", "rt", encoding="utf-8") as file:
        while size < 4 << 20:
            lines.append(next(file))
            size += len(lines[-1])
    (folder / "wiki.jsonl").write_text("".join(lines), encoding="utf-8")
    tokenizer = shared_data / "tokenizers" / "gptneox_tokenizer.json"
    run(
        "tokenize", "--input", folder / "wiki.jsonl", "--tokenizer", tokenizer,
        "--output", folder / "tokens",
    )  # fmt: skip
    run("count", "--tokens", folder / "tokens", "--output", folder / "counts")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unbiased_on_simplewiki(order, wiki, tmp_path):
    verdicts = {}
    for scheme in ("retain", "split", "renormalize"):
        fixed = ("--estimator", "fixed", "--max-order", order, "--scheme", scheme, "--head", 4)
        draws = int(scheme == "retain")
        targets = run_enrich(wiki, tmp_path / scheme, *fixed, "--tail-draws", draws)
        flat, tokens, weights = [], [], []
        reader = TargetsReader(str(targets), read_manifest(str(targets)))
        for name in names(targets):
            for _, found in reader.read_file(name):
                dense = found.dense(4, draws)
                tokens.append(dense[0])
                weights.append(dense[1])
            observed = pq.read_table(wiki / "tokens" / name)["tokens"]
            flat.append(observed.combine_chunks().flatten().to_numpy())
        flat = np.concatenate(flat).astype(np.int64)
        end = read_manifest(str(targets)).tokenizer["end_of_document"]
        tokens, weights = np.concatenate(tokens), np.concatenate(weights)
        assert (weights.sum(axis=1, dtype=np.int64) == WEIGHT_UNITS).all()
        verdicts[scheme] = is_unbiased(flat, end, order, tokens, weights, draws)
    assert verdicts == {"retain": True, "split": True, "renormalize": False}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tables", "prefix"),
    [((), "table-"), ((), "part-"), (MANY, "ask-"), (MANY, "answer-"), (MANY, "part-")],
)
def test_a_killed_job_goes_on_where_it_was(tables, prefix, job, whole, tmp_path):
    killed = tmp_path / "killed"
    inputs = ("--tokens", job / "tokens", "--counts", job / "counts", *tables)
    complete = kill_after_first_part(start("enrich", *inputs, "--output", killed), killed, prefix)
    assert complete
    assert not (killed / "manifest.json").exists()
    assert_same_data(run_enrich(job, killed, *tables), whole)
    assert not (killed / "_incomplete").exists()


def test_a_killed_job_may_go_on_with_tables_of_another_size(job, whole, tmp_path, monkeypatch):
    """What was made for other tables is left alone."""
    killed = tmp_path / "killed"

    def fail(*_):
        raise DataError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(target_joins, "_chunk_targets", fail)
        inputs = ("--tokens", job / "tokens", "--counts", job / "counts")
        arguments = ("enrich", *inputs, "--output", killed, *MANY)
        assert cli.main([str(each) for each in arguments]) == 1
    assert (killed / "_incomplete" / "answers").exists()
    assert_same_data(run_enrich(job, killed, "--table-mib", 0.5), whole)


def refused(capsys, *arguments):
    assert cli.main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    return error[0]


def test_what_does_not_fit_is_refused(job, tmp_path, capsys):
    out = ("--output", tmp_path / "out")
    tokens, counts = ("--tokens", job / "tokens"), ("--counts", job / "counts")
    assert "max-order 5 is more than the 4" in refused(
        capsys, "enrich", *tokens, *counts, *out, "--max-order", 5
    )
    assert "'0' is not a number above 0" in refused(
        capsys, "enrich", *tokens, *counts, *out, "--table-mib", 0
    )
    assert "head 999" in refused(capsys, "enrich", *tokens, *counts, *out, "--head", 999)
    assert "tail-draws 1 with the scheme split" in refused(
        capsys, "enrich", *tokens, *counts, *out, "--scheme", "split", "--tail-draws", 1
    )
    assert "did you mean --estimator" in refused(
        capsys, "enrich", *tokens, *counts, *out, "--estimater", "fixed"
    )
    assert not (tmp_path / "out").exists()


def test_counts_of_another_tokenizer_are_refused(job, tmp_path, capsys):
    counts = tmp_path / "counts"
    counts.mkdir()
    manifest = read_manifest(str(job / "counts"))
    manifest.tokenizer["vocabulary_size"] = 300
    (counts / "manifest.json").write_text(manifest.to_json())
    error = refused(
        capsys, "enrich", "--tokens", job / "tokens", "--counts", counts, "--output", tmp_path / "o"
    )
    assert "was not counted with the tokenizer" in error
    assert "vocabulary_size: 257 there, 300 now" in error


def test_other_options_are_refused(job, tmp_path, capsys):
    targets = run_enrich(job, tmp_path / "out")
    capsys.readouterr()
    before = file_hashes(targets)
    inputs = ("--tokens", job / "tokens", "--counts", job / "counts", "--output", targets)
    assert "seed: 0 there, 1 now" in refused(capsys, "enrich", *inputs, "--draw-seed", 1)
    run("enrich", *inputs, *MANY)
    assert "is complete already" in capsys.readouterr().out
    assert file_hashes(targets) == before
    counters = json.loads((targets / "manifest.json").read_text())["counters"]
    assert counters["positions"] == read_manifest(str(job / "tokens")).properties["tokens"]


@pytest.mark.parametrize("tables", [(), MANY], ids=["one", "many"])
def test_all_of_it_by_url(tables, job, whole, tmp_path, monkeypatch):
    """Inputs, tables and output on another filesystem; tables are copied to a local folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    memory = fsspec.filesystem("memory")
    for kind in ("tokens", "counts"):
        memory.put(str(job / kind), f"/{len(tables)}/{kind}", recursive=True)
    place = f"memory://{len(tables)}"
    inputs = ("--tokens", f"{place}/tokens", "--counts", f"{place}/counts", *tables)
    run("enrich", *inputs, "--output", f"{place}/targets")
    memory.get(f"/{len(tables)}/targets", str(tmp_path / "targets"), recursive=True)
    assert_same_data(tmp_path / "targets", whole)
    run("verify", f"{place}/targets")
