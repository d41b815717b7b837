"""tokenize, count, distributions and merge end to end, through the command line's own main()."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from corpus.datasets import read_manifest
from pipelines import cli
from tests.oracle import count_contexts, distributions, flat

SECONDS_TO_WAIT = 120
MAX_ORDER = 4


def run(*arguments):
    assert cli.main([str(argument) for argument in arguments]) == 0


def data_files(folder):
    """The bytes of every file of a dataset but its manifest, which has times in it."""
    folder = Path(folder)
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def documents_of(folder):
    """The documents of a tokens dataset as lists of ids, read with pyarrow alone."""
    end = read_manifest(str(folder)).tokenizer["end_of_document"]
    documents = [[]]
    for path in sorted(Path(folder).glob("*.parquet")):
        for row in pq.read_table(path)["tokens"].to_pylist():
            documents[-1].extend(row)
            if row[-1] == end:
                documents.append([])
    return documents[:-1]


def random_text(seed, words=40_000, documents=60):
    generator = random.Random(seed)
    vocabulary = ["".join(generator.choices("abcdefgh é", k=5)) for _ in range(300)]
    texts = []
    for _ in range(documents):
        length = generator.randrange(2 * words // documents)
        texts.append(
            " ".join(vocabulary[int(300 * generator.random() ** 3)] for _ in range(length))
        )
    return texts


def write_jsonl(path, texts):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with two files of JSONL."""
    folder = tmp_path_factory.mktemp("corpus")
    write_jsonl(folder / "a.jsonl", random_text(1))
    write_jsonl(folder / "b.jsonl", random_text(2))
    return folder


@pytest.fixture(scope="module")
def job(corpus, tmp_path_factory):
    """Folder with the tokens, counts and distributions of the corpus, in several parts each."""
    folder = tmp_path_factory.mktemp("job")
    run("tokenize", "--input", corpus, "--tokenizer", "bytes", "--output", folder / "tokens")
    run_count(folder / "tokens", folder / "counts")
    run("distributions", "--input", folder / "counts", "--output", folder / "distributions")
    return folder


def run_count(tokens, counts, *more):
    options = ["--max-order", MAX_ORDER, "--run-tokens", 30_000, "--partition-mib", 1, *more]
    run("count", "--input", tokens, "--output", counts, *options)


def check_exact(tokens, counts, tables, max_order, top_k=8, min_count=2):
    documents = documents_of(tokens)
    end = read_manifest(str(tokens)).tokenizer["end_of_document"]
    for order in range(max_order + 1):
        columns = [f"token_{position}" for position in range(1, order + 2)]
        real = " AND ".join(["true", *(f"{column} <> {end}" for column in columns[:-1])])
        rows = duckdb.sql(
            f"SELECT {', '.join(columns)}, sum(count) FROM '{counts}/*.parquet'"
            f" WHERE {real} GROUP BY ALL"
        ).fetchall()
        found = {tuple(row[:-1]): row[-1] for row in rows}
        assert found == flat(count_contexts(documents, order))
        entries = {}
        for path in sorted(Path(tables, f"order={order}").glob("*.parquet")):
            rows = pq.ParquetFile(path).read().to_pylist()
            contexts = [tuple(row[f"context_{i}"] for i in range(1, order + 1)) for row in rows]
            assert contexts == sorted(contexts)
            for context, row in zip(contexts, rows, strict=True):
                head = list(zip(row["next_tokens"], row["next_counts"], strict=True))
                assert context not in entries
                entries[context] = (row["total"], head, row["tail_count"], row["tail_distinct"])
        assert entries == distributions(documents, order, top_k, min_count)


def test_every_order_is_exact(job):
    manifest = read_manifest(str(job / "counts"))
    assert manifest.counters["runs"] > 5
    assert len(manifest.data_files) > 1
    check_exact(job / "tokens", job / "counts", job / "distributions", MAX_ORDER)


TOKENIZERS = {
    "gpt2": "gpt2_vocab.json,{0}/gpt2_merges.txt",
    "gptneox": "gptneox_tokenizer.json",
    "mistral": "mistral_v1.model",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
def test_two_megabytes_of_simplewiki_are_exact(name, shared_data, tmp_path):
    texts, size = [], 0
    with gzip.open(shared_data / "corpora" / "simplewiki.jsonl.gz", "rt") as lines:
        while size < 2 << 20:
            texts.append(json.loads(next(lines))["text"])
            size += len(texts[-1].encode())
    write_jsonl(tmp_path / "wiki.jsonl", texts)
    folder = shared_data / "tokenizers"
    tokenizer = f"{folder}/{TOKENIZERS[name].format(folder)}"
    tokens, counts, tables = (tmp_path / name for name in ("tokens", "counts", "tables"))
    run(
        "tokenize", "--input", tmp_path / "wiki.jsonl", "--tokenizer", tokenizer, "--output", tokens
    )
    run_count(tokens, counts, "--max-order", 5, "--run-tokens", 100_000)
    run("distributions", "--input", counts, "--output", tables, "--min-count", 1, "--top-k", 3)
    check_exact(tokens, counts, tables, 5, top_k=3, min_count=1)


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(corpus, job, tmp_path):
    workers = ("--workers", 2)
    tokens, counts, tables = (tmp_path / name for name in ("tokens", "counts", "tables"))
    run("tokenize", "--input", corpus, "--tokenizer", "bytes", "--output", tokens, *workers)
    run_count(tokens, counts, *workers)
    run("distributions", "--input", counts, "--output", tables, *workers)
    assert data_files(tokens) == data_files(job / "tokens")
    assert data_files(counts) == data_files(job / "counts")
    assert data_files(tables) == data_files(job / "distributions")


def test_beams_portable_runner_gives_the_same_bytes(job, tmp_path):
    runner = ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK")
    run_count(job / "tokens", tmp_path / "counts", *runner)
    assert data_files(tmp_path / "counts") == data_files(job / "counts")


def test_other_runs_and_another_order_of_inputs_give_the_same_bytes(corpus, job, tmp_path):
    inputs = ("--input", corpus / "b.jsonl", "--input", corpus / "a*")
    run("tokenize", *inputs, "--tokenizer", "bytes", "--output", tmp_path / "tokens")
    assert data_files(tmp_path / "tokens") == data_files(job / "tokens")
    run_count(tmp_path / "tokens", tmp_path / "counts", "--run-tokens", 77_777)
    assert data_files(tmp_path / "counts") == data_files(job / "counts")
    hashes = [read_manifest(str(f / "counts")).content_hash for f in (job, tmp_path)]
    assert hashes[0] == hashes[1]


def test_merged_halves_have_the_bytes_of_the_whole(corpus, job, tmp_path):
    halves = []
    for half in ("a", "b"):
        tokens, counts = tmp_path / f"{half}-tokens", tmp_path / f"{half}-counts"
        name = corpus / f"{half}.jsonl"
        run("tokenize", "--input", name, "--tokenizer", "bytes", "--output", tokens)
        run_count(tokens, counts)
        halves += ["--input", counts]
    run("merge", *halves, "--output", tmp_path / "merged", "--partition-mib", 1)
    assert data_files(tmp_path / "merged") == data_files(job / "counts")
    merged, whole = (read_manifest(str(f)) for f in (tmp_path / "merged", job / "counts"))
    assert merged.content_hash == whole.content_hash


def start(*arguments):
    """A command in a process group of its own, so that its workers can be killed with it."""
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    return subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def kill_after_first_part(process, output, prefix):
    """SIGKILLs a job as soon as one of its parts is complete; returns the complete ones."""
    done = Path(output, "_incomplete", "done")
    until = time.monotonic() + SECONDS_TO_WAIT
    while not list(done.glob(f"{prefix}*.json")):
        assert process.poll() is None, "the job ended before it could be killed"
        assert time.monotonic() < until, f"no {prefix} part after {SECONDS_TO_WAIT} s"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return {path.name: path.stat().st_mtime_ns for path in done.glob("*.json")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "prefix"),
    [("tokenize", "part-"), ("count", "run-"), ("count", "part-"), ("distributions", "part-")],
)
def test_a_killed_job_goes_on_where_it_was(stage, prefix, job, tmp_path, capsys):
    big = tmp_path / "corpus"
    write_jsonl(big / "big.jsonl", [" ".join(random_text(seed)) for seed in range(20)])
    tokens = tmp_path / "tokens"
    commands = {
        "tokenize": ["--input", big, "--tokenizer", "bytes", "--shard-mib", 1],
        "count": ["--input", tokens, "--run-tokens", 300_000, "--partition-mib", 1],
        "distributions": ["--input", job / "counts"],
    }
    if stage == "count":
        run("tokenize", *commands["tokenize"], "--output", tokens)
    command = (stage, *commands[stage], "--output")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    run(*command, whole)
    complete = kill_after_first_part(start(*command, killed), killed, prefix)
    assert not (killed / "manifest.json").exists()
    assert cli.main(["verify", str(killed)]) == 2
    assert "its job has not finished" in capsys.readouterr().err
    # What was complete is not made again: its record stays as it is until the manifest is there.
    records = killed / "_incomplete" / "done"
    run(*command, killed, "--dry-run")
    assert {path.name: path.stat().st_mtime_ns for path in records.glob("*.json")} == complete
    parts = {path: path.stat().st_ino for path in killed.rglob("part-*") if path.suffix != ".json"}
    finished = {path: inode for path, inode in parts.items() if f"{path.name}.json" in complete}
    run(*command, killed)
    assert data_files(killed) == data_files(whole)
    assert {path: path.stat().st_ino for path in finished} == finished
    before = data_files(killed)
    run(*command, killed)
    assert "is complete already" in capsys.readouterr().out
    assert data_files(killed) == before
