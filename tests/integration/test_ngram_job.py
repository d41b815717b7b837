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


def random_text(seed, words=20_000, documents=60):
    generator = random.Random(seed)
    vocabulary = ["".join(generator.choices("abcdefghijklmno é", k=6)) for _ in range(5000)]
    texts = []
    for _ in range(documents):
        length = generator.randrange(2 * words // documents)
        chosen = (vocabulary[int(5000 * generator.random() ** 2)] for _ in range(length))
        texts.append(" ".join(chosen))
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
    assert manifest.counters["runs"] > 3
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


TOKENIZE = ["tokenize", "--tokenizer", "bytes", "--shard-mib", 1, "--input"]
COUNT = ["count", "--max-order", 4, "--run-tokens", 300_000, "--partition-mib", 1, "--input"]
WHOLE = {"tokenize": "tokens", "count": "counts", "distributions": "tables"}
OTHER = {
    "tokenize": ["--text-field", "body"],
    "count": ["--max-order", 3],
    "distributions": ["--top-k", 3],
}


@pytest.fixture(scope="module")
def long_job(tmp_path_factory):
    """An uninterrupted job with enough parts for another one to be killed between two of them."""
    folder = tmp_path_factory.mktemp("long")
    texts = [" ".join(random_text(seed)) for seed in range(40)]
    write_jsonl(folder / "corpus" / "big.jsonl", texts)
    run(*TOKENIZE, folder / "corpus", "--output", folder / "tokens")
    run(*COUNT, folder / "tokens", "--output", folder / "counts")
    run("distributions", "--input", folder / "counts", "--output", folder / "tables")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "prefix"),
    [("tokenize", "part-"), ("count", "run-"), ("count", "part-"), ("distributions", "part-")],
)
def test_a_killed_job_goes_on_where_it_was(stage, prefix, long_job, tmp_path, capsys):
    command = {
        "tokenize": [*TOKENIZE, long_job / "corpus"],
        "count": [*COUNT, long_job / "tokens"],
        "distributions": ["distributions", "--input", long_job / "counts"],
    }[stage]
    killed, whole = tmp_path / "killed", long_job / WHOLE[stage]
    complete = kill_after_first_part(start(*command, "--output", killed), killed, prefix)
    assert not (killed / "manifest.json").exists()
    assert cli.main(["verify", str(killed)]) == 2
    assert "its job has not finished" in capsys.readouterr().err
    made = {
        path: path.stat().st_ino
        for path in [*killed.glob("part-*"), *killed.glob("order=*/part-*")]
        if any(record.startswith(path.name[: len("part-00000")]) for record in complete)
    }
    run(*command, "--output", killed)
    assert data_files(killed) == data_files(whole)
    # What was complete has not been made again.
    assert {path: path.stat().st_ino for path in made} == made
    assert made or prefix == "run-"
    capsys.readouterr()
    run(*command, "--output", killed)
    assert "is complete already" in capsys.readouterr().out
    assert data_files(killed) == data_files(whole)
    assert (
        cli.main([str(argument) for argument in (*command, "--output", killed, *OTHER[stage])]) == 2
    )
    assert "made with other options" in capsys.readouterr().err


def test_a_killed_count_uses_the_runs_that_are_there(long_job, tmp_path):
    counts = tmp_path / "counts"
    complete = kill_after_first_part(
        start(*COUNT, long_job / "tokens", "--output", counts), counts, "run-"
    )
    runs = [name for name in complete if name.startswith("run-")]
    assert runs
    # A run that is complete is read, not counted again: without its file the job can't go on.
    for path in (counts / "_incomplete" / "runs").iterdir():
        path.unlink()
    command = [str(argument) for argument in (*COUNT, long_job / "tokens", "--output", counts)]
    assert cli.main(command) == 1
    assert not (counts / "manifest.json").exists()
