"""query, merge, help, quickstart and URLs."""

import errno
import itertools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from corpusmill.commands import cli
from corpusmill.compress.datasets import samples
from corpusmill.corpus import inputs
from corpusmill.corpus.datasets import DatasetWriter, read_manifest
from corpusmill.ngram_agg import CountsRun, Packing, count_ngrams, merge_runs
from corpusmill.ngram_agg.counts_files import read_spilled, spill_runs
from corpusmill.ngram_agg.distributions import DistributionOptions, distribution_row
from corpusmill.ngram_agg.partitions import sample_stream
from corpusmill.ngram_agg.tables import rows_to_batch
from corpusmill.pipelines import (
    coders,
    count,
    counts_merging,
    counts_parts,
    documents,
    target_joins,
)
from tests.pipelines.samples import command, tokenize, write_jsonl


def test_query_backs_off_to_the_longest_context(job, capsys):
    assert command("query", job / "distributions", "qat") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("order 3  'q' 'a' 't'")
    assert lines[0].endswith("seen fewer than 2 times")
    assert lines[1].startswith("order 2  'a' 't'")
    assert lines[1].endswith("seen 25 times")
    assert lines[4].split()[:4] == ["'", "'", "32", "20"]
    assert "80.000%" in lines[4]
    assert "█" in lines[4]
    assert lines[5].split()[:3] == ["'<end>'", "256", "5"]


def test_query_takes_ids_and_the_empty_context(job, capsys):
    assert command("query", job / "distributions", "--ids", "97, 116") == 0
    by_ids = capsys.readouterr().out
    assert command("query", job / "distributions", "at") == 0
    assert capsys.readouterr().out == by_ids
    assert command("query", job / "distributions", "") == 0
    assert "(empty context)" in capsys.readouterr().out


@pytest.mark.parametrize("context", [("-- at",), ("--", "--at"), ("--", "-a")])
def test_query_takes_text_that_begins_like_an_option(job, capsys, context):
    assert command("query", job / "distributions", *context) == 0
    shown = capsys.readouterr().out
    assert command("query", job / "distributions", "--ids", ids(context[-1])) == 0
    assert capsys.readouterr().out == shown


def ids(text):
    """Of the tokenizer of bytes."""
    return ",".join(map(str, text.encode()))


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_names_the_option_that_was_meant(name, capsys):
    assert command(name, "--hlep") == 2
    assert "unknown option --hlep; did you mean --help?" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as stop:
        command(name, "--help")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert f"example:\n  corpusmill {name}" in printed
    assert "None" not in printed


def test_help_and_version(capsys):
    assert command("--help") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in cli.COMMANDS)
    assert command("--version") == 0
    assert capsys.readouterr().out.startswith("corpusmill 0.")


def test_merge_refuses_what_does_not_fit(job, tmp_path, capsys):
    other = tmp_path / "other"
    assert command("count", "--tokens", job / "tokens", "--output", other, "--max-order", 2) == 0
    arguments = (
        "merge",
        "--counts",
        job / "counts",
        "--counts",
        other,
        "--output",
        tmp_path / "sum",
    )
    assert command(*arguments) == 2
    assert "max_order" in capsys.readouterr().err


def test_merging_three_datasets_adds_their_counts(tmp_path):
    inputs = []
    for number, text in enumerate(("aab", "abab", "b" * 9)):
        source = write_jsonl(tmp_path / f"{number}.jsonl", [text])
        assert tokenize(source, tmp_path / f"t{number}") == 0
        counts = tmp_path / f"c{number}"
        assert command("count", "--tokens", tmp_path / f"t{number}", "--output", counts) == 0
        inputs += ["--counts", counts]
    assert command("merge", *inputs, "--output", tmp_path / "sum") == 0
    assert read_manifest(str(tmp_path / "sum")).properties["tokens"] == 4 + 5 + 10
    assert command("verify", tmp_path / "sum") == 0


def test_a_dataset_is_not_added_to_itself(job, tmp_path, capsys):
    (tmp_path / "again").symlink_to(job / "counts")
    for same in (tmp_path / "again", f"{job / 'counts'}/"):
        arguments = ("--counts", job / "counts", "--counts", same)
        assert command("merge", *arguments, "--output", tmp_path / "sum") == 2
        error = capsys.readouterr().err
        assert "count the same data" in error or "two or more different datasets" in error
    assert not (tmp_path / "sum").exists()


def test_what_has_been_added_is_not_added_again(tmp_path, capsys):
    folders = {}
    for name in "abc":
        source = write_jsonl(tmp_path / f"{name}.jsonl", [name * 3])
        assert tokenize(source, tmp_path / f"tokens-{name}") == 0
        folders[name] = tmp_path / f"counts-{name}"
        tokens = ("--tokens", tmp_path / f"tokens-{name}")
        assert command("count", *tokens, "--output", folders[name]) == 0
    both, everything = tmp_path / "ab", tmp_path / "abc"
    merge = ("merge", "--counts")
    assert command(*merge, folders["a"], "--counts", folders["b"], "--output", both) == 0
    assert command(*merge, both, "--counts", folders["b"], "--output", everything) == 2
    told = capsys.readouterr().err
    assert f"{both} and {folders['b']} count the same data, or some of it" in told
    assert not everything.exists()
    assert command(*merge, both, "--counts", folders["c"], "--output", everything) == 0
    assert read_manifest(str(everything)).properties["tokens"] == 3 * 4


def test_datasets_with_equal_counts_are_added(tmp_path):
    inputs = []
    for name, texts in (("monday", ["ab", "c"]), ("tuesday", ["c", "ab"])):
        source = write_jsonl(tmp_path / f"{name}.jsonl", texts)
        assert tokenize(source, tmp_path / f"{name}-tokens") == 0
        counts = tmp_path / name
        assert command("count", "--tokens", tmp_path / f"{name}-tokens", "--output", counts) == 0
        inputs += ["--counts", counts]
    assert command("merge", *inputs, "--output", tmp_path / "sum") == 0
    assert read_manifest(str(tmp_path / "sum")).properties["tokens"] == 10


def test_a_terminal_without_unicode_shows_escapes(tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", ["é"])
    assert tokenize(source, tmp_path / "tokens") == 0
    done = subprocess.run(
        [sys.executable, "-m", "corpusmill.commands.cli", "verify", tmp_path / "tokens"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "\\xe9" in done.stdout


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.EFBIG, "File too large"), "File too large"),
        (MemoryError("no 8 GiB here"), "there is not enough memory: no 8 GiB here"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            "there is not enough memory: CUDA out of memory. Tried to allocate 2.00 GiB.",
        ),
    ],
)
def test_what_a_machine_lacks_is_one_line(error, line, monkeypatch, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "run_command", fail)
    assert cli.main(["verify", "x"]) == 1
    assert capsys.readouterr().err == f"corpusmill: error: {line}\n"


def some_runs(count, vocabulary=50):
    end = vocabulary - 1
    packing = Packing(2, vocabulary, end)
    generator = np.random.default_rng(0)
    for _ in range(count):
        tokens = np.append(generator.integers(0, end, 30), end).astype(np.uint16)
        yield (
            packing,
            count_ngrams(tokens, max_order=1, vocabulary_size=vocabulary, end_of_document=end),
        )


@pytest.fixture
def many_runs(tmp_path):
    """How a dataset is written, 100 slices of its sources, and what they count together."""
    writer = DatasetWriter(str(tmp_path / "out"), "counts", {})
    writer.begin()
    runs, sources = [], []
    # So many tokens that n-grams are hardly ever the same, and merging makes nothing smaller.
    for number, (packing, run) in enumerate(some_runs(100, 50_000)):
        path = tmp_path / f"{number}.arrow"
        spill_runs(str(path), packing, [run])
        runs.append(run)
        sources.append((0, str(path), (), ()))
    return counts_merging.CountsParts(writer, packing, 1000), sources, merge_runs(runs)


def combined(parts, sources):
    """As Beam combines: a few inputs to an accumulator, and accumulators with one another."""
    combiner = counts_parts.MergeRuns(parts)
    accumulators = []
    for first in range(0, len(sources), 7):
        accumulator = combiner.create_accumulator()
        for source in sources[first : first + 7]:
            accumulator = combiner.add_input(accumulator, source)
        accumulators.append(accumulator)
    merged = combiner.create_accumulator()
    for accumulator in accumulators:
        merged = combiner.merge_accumulators([merged, accumulator])
    return combiner.extract_output(merged)


@pytest.mark.parametrize("combine", [lambda _, sources: sources, combined])
@pytest.mark.parametrize(("fan_in", "merges"), [(200, 0), (32, 1), (5, 2), (3, 4), (2, 6)])
def test_an_ngram_is_merged_once_for_each_time_that_runs_are_more(
    many_runs, combine, fan_in, merges, monkeypatch
):
    parts, sources, expected = many_runs
    monkeypatch.setattr(counts_merging, "FAN_IN", fan_in)
    few = counts_merging.merged_to_few(combine(parts, sources), parts)
    assert len(few) <= fan_in
    merged = merge_runs(list(counts_merging.merge_slices(few, parts.packing)))
    assert np.array_equal(merged.low, expected.low)
    assert np.array_equal(merged.counts, expected.counts)
    files = Path(parts.writer.scratch("merged")).glob("*")
    rows = [sum(map(len, read_spilled(str(file), parts.packing, None, None))) for file in files]
    in_sources = [sum(map(len, read_spilled(each[1], parts.packing))) for each in sources]
    assert sum(rows) <= merges * sum(in_sources)


def test_a_spilled_run_is_read_from_any_key_to_any_other(tmp_path, monkeypatch):
    monkeypatch.setattr("corpusmill.ngram_agg.counts_files._SPILL_ROWS", 3)
    packing, run = next(some_runs(1))
    spill_runs(str(tmp_path / "run.arrow"), packing, [run[:10], run[10:]])
    keys = [run.key(row) for row in range(0, len(run), 4)]
    for lower, upper in itertools.combinations([None, *keys, None], 2):
        blocks = list(read_spilled(str(tmp_path / "run.arrow"), packing, lower, upper))
        found = np.concatenate([block.low for block in blocks] or [run.low[:0]])
        first = 0 if lower is None else run.lower_bound(lower)
        last = len(run) if upper is None else run.lower_bound(upper)
        assert np.array_equal(found, run.low[first:last])


def test_coders_give_back_what_they_take():
    _, run = next(some_runs(1))
    coder = coders.CountsRunCoder()
    part = run[3:9]
    back = coder.decode(coder.encode(part))
    assert isinstance(back, CountsRun)
    assert back.packing == run.packing
    assert np.array_equal(back.low, part.low)
    assert np.array_equal(back.counts, part.counts)
    assert len(coder.encode(part)) < len(coder.encode(run))
    sample = sample_stream([run])
    again = coders.KeySampleCoder().decode(coders.KeySampleCoder().encode(sample))
    assert np.array_equal(again.hashes, sample.hashes)
    children = run[: run.upper_bound(run.key(0))]
    batch = rows_to_batch(run.packing, 1, distribution_row(children, DistributionOptions(8, 1)))
    batch_coder = coders.RecordBatchCoder()
    assert batch_coder.decode(batch_coder.encode(batch)).equals(batch)


def test_every_path_may_be_a_url(job, capsys):
    root = "memory://corpusmill-test"
    assert tokenize(job / "corpus.jsonl", f"{root}/tokens") == 0
    assert command("count", "--tokens", f"{root}/tokens", "--output", f"{root}/counts") == 0
    assert command("distributions", "--counts", f"{root}/counts", "--output", f"{root}/tables") == 0
    for name, local in (("tokens", "tokens"), ("counts", "counts"), ("tables", "distributions")):
        remote = read_manifest(f"{root}/{name}")
        assert remote.content_hash == read_manifest(str(job / local)).content_hash
        assert command("verify", f"{root}/{name}") == 0
    capsys.readouterr()
    assert command("query", f"{root}/tables", "at") == 0
    assert "seen 25 times" in capsys.readouterr().out


@pytest.mark.slow
def test_quickstart_answers_and_can_be_repeated(tmp_path, capsys):
    quick = tmp_path / "quick"
    assert command("quickstart", "--output", quick) == 0
    printed = capsys.readouterr().out
    assert "next token" in printed
    assert "OK   targets dataset" in printed
    assert "documents came back, byte for byte" in printed
    manifest = json.loads((quick / "counts" / "manifest.json").read_text())
    assert manifest["properties"]["tokens"] > 100_000
    page = (quick / "report.html").read_text()
    assert page.count("<svg") > 5
    assert command("quickstart", "--output", quick) == 0
    assert capsys.readouterr().out.count("is complete already") == 8
    assert (quick / "report.html").read_text() == page
    next(quick.glob("documents/part-*")).write_text('{"id": "a", "text": "b"}\n')
    assert command("quickstart", "--output", quick) == 1
    assert "has other documents than" in capsys.readouterr().err


def test_without_torch_training_says_what_to_install():
    """In a process of its own: a trainer imported twice would stay behind for other tests."""
    program = (
        "import sys; sys.modules['torch'] = None; from corpusmill.commands.cli import main; "
        "sys.exit(main('train --tokens tokens --output run --steps 1'.split()))"
    )
    command_line = [sys.executable, "-c", program]
    ended = subprocess.run(command_line, check=False, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == (
        "corpusmill: error: the package torch is not installed: pip install 'corpusmill[train]'\n"
    )


@pytest.mark.parametrize("after_parts", [0, 1, 2])
def test_of_two_launches_of_a_job_the_slower_one_finds_it_finished(
    after_parts, tmp_path, monkeypatch
):
    write_jsonl(tmp_path / "in.jsonl", ["a b c" * 9] * 45_000)
    arguments = tmp_path / "in.jsonl", tmp_path / "tokens", "--shard-mib", 1
    parts = []
    encode_shard = documents.encode_shard

    def overtaken(*shard):
        if len(parts) == after_parts:
            monkeypatch.setattr(documents, "encode_shard", encode_shard)
            assert tokenize(*arguments) == 0
            monkeypatch.setattr(documents, "encode_shard", overtaken)
        parts.append(shard)
        return encode_shard(*shard)

    monkeypatch.setattr(documents, "encode_shard", overtaken)
    assert tokenize(*arguments) == 0
    assert len(parts) == 3
    assert not (tmp_path / "tokens" / "_incomplete").exists()
    assert command("verify", tmp_path / "tokens") == 0


def test_a_launch_whose_scratch_goes_with_the_job_that_was_faster_has_not_failed(
    job, tmp_path, monkeypatch
):
    write_parts = count.write_parts
    arguments = "count", "--tokens", job / "tokens", "--output", tmp_path / "counts"

    def overtaken(sources, *rest):
        monkeypatch.setattr(count, "write_parts", write_parts)
        assert command(*arguments) == 0
        assert not any(map(os.path.exists, sources))
        return write_parts(sources, *rest)

    monkeypatch.setattr(count, "write_parts", overtaken)
    assert command(*arguments) == 0
    assert not (tmp_path / "counts" / "_incomplete").exists()
    assert command("verify", tmp_path / "counts") == 0


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        (count, "cut_stretches", ("count", "--run-tokens", 4000)),
        (target_joins, "chunks", ("enrich", "--table-mib", 1e-6, "--counts")),
        (samples, "row_group_sizes", ("freeze", "--window-bits", 9)),
    ],
)
def test_many_files_are_waited_for_at_a_time(module, name, arguments, tmp_path, monkeypatch):
    # So that each small file is a shard.
    monkeypatch.setattr(inputs, "_OPENING_COST", 1 << 20)
    for number in range(2):
        write_jsonl(tmp_path / f"{number}.jsonl", ["the cat sat on the mat " * 9] * 20)
    tokens = tmp_path / "tokens"
    assert tokenize(tmp_path / "*.jsonl", tokens, "--shard-mib", 1) == 0
    assert len(read_manifest(str(tokens)).data_files) == 2
    if arguments[-1] == "--counts":
        assert command("count", "--tokens", tokens, "--output", tmp_path / "counts") == 0
        arguments += (tmp_path / "counts",)
    look, together = getattr(module, name), threading.Barrier(2)
    looks = []

    def wait(*rest):
        together.wait(60)
        looks.append(rest)
        return look(*rest)

    monkeypatch.setattr(module, name, wait)
    assert command(*arguments, "--tokens", tokens, "--output", tmp_path / "out") == 0
    assert looks
