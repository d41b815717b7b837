"""The bytes of a dataset follow from its input and options, however the job is run."""

import pytest

from corpusmill.corpus.datasets import read_manifest
from corpusmill.pipelines import counts_merging
from tests.integration.samples import assert_same_data, random_texts, run, write_jsonl

# Several input files, shards, runs and partitions, so that there is something to get out of order.
FILES = 5
SMALL = ("--max-order", 4, "--run-tokens", 90_000, "--partition-mib", 1)
KINDS = ("tokens", "counts", "distributions")


def run_job(folder, inputs, *more, count=SMALL):
    """All three jobs into `folder`; `inputs` are patterns, `more` are options of every job."""
    patterns = [argument for pattern in inputs for argument in ("--input", pattern)]
    tokenizer = ("--tokenizer", "bytes", "--shard-mib", 1)
    run("tokenize", *patterns, *tokenizer, "--output", folder / "tokens", *more)
    run("count", "--tokens", folder / "tokens", "--output", folder / "counts", *count, *more)
    options = ("--counts", folder / "counts", "--output", folder / "distributions", *more)
    run("distributions", *options)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder of JSONL files, the largest of which is cut into several shards."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(FILES):
        words = 200_000 if number == 2 else 12_000
        write_jsonl(folder / f"{number}.jsonl", random_texts(number, words))
    return folder


@pytest.fixture(scope="module")
def job(corpus, tmp_path_factory):
    """The three datasets, made by one process."""
    folder = tmp_path_factory.mktemp("job")
    run_job(folder, [corpus])
    assert all(len(read_manifest(str(folder / kind)).data_files) > 1 for kind in KINDS)
    assert read_manifest(str(folder / "counts")).counters["runs"] > 10
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_worker_processes(workers, corpus, job, tmp_path):
    run_job(tmp_path, [corpus], "--workers", workers)
    for kind in KINDS:
        assert_same_data(tmp_path / kind, job / kind)


def test_samples_of_several_files_at_a_time(job, tmp_path, monkeypatch):
    monkeypatch.setattr(counts_merging, "_SAMPLES", 2)
    run("count", "--tokens", job / "tokens", "--output", tmp_path / "counts", *SMALL)
    assert_same_data(tmp_path / "counts", job / "counts")


def test_another_run_in_the_same_way(corpus, job, tmp_path):
    run_job(tmp_path, [corpus])
    for kind in KINDS:
        assert_same_data(tmp_path / kind, job / kind)


@pytest.mark.slow
def test_beams_portable_runner(corpus, job, tmp_path):
    embedded = ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK")
    run_job(tmp_path, [corpus], *embedded)
    for kind in KINDS:
        assert_same_data(tmp_path / kind, job / kind)


def test_bundles_run_twice(corpus, job, tmp_path):
    """As runners do that retry a bundle: each part, and the manifest, is found made already."""
    run_job(tmp_path, [corpus], "--direct_runner_bundle_repeat=1")
    for kind in KINDS:
        assert_same_data(tmp_path / kind, job / kind)


def test_beams_classic_direct_runner(corpus, job, tmp_path):
    run_job(tmp_path, [corpus], "--runner=BundleBasedDirectRunner")
    for kind in KINDS:
        assert_same_data(tmp_path / kind, job / kind)


def test_inputs_in_another_order_and_in_several_patterns(corpus, job, tmp_path):
    patterns = [corpus / "4.jsonl", corpus / "[1-3]*", corpus / "0.jsonl", corpus / "2.jsonl"]
    run_job(tmp_path, patterns)
    for kind in KINDS:
        assert_same_data(tmp_path / kind, job / kind)


@pytest.mark.parametrize("run_tokens", [20_001, 5_000_000])
def test_runs_of_another_length(run_tokens, corpus, job, tmp_path):
    more = ("--run-tokens", run_tokens)
    run("count", "--tokens", job / "tokens", "--output", tmp_path / "counts", *SMALL, *more)
    assert_same_data(tmp_path / "counts", job / "counts")


def test_merged_parts_of_the_corpus_are_the_whole(corpus, job, tmp_path):
    inputs = []
    for number, pattern in enumerate(("[01].jsonl", "2.jsonl", "[34].jsonl")):
        folder = tmp_path / str(number)
        run_job(folder, [corpus / pattern])
        # The last one first: the order must not matter.
        inputs = ["--counts", folder / "counts", *inputs]
    run("merge", *inputs, "--output", tmp_path / "counts", "--partition-mib", 1)
    assert_same_data(tmp_path / "counts", job / "counts")
    tables = tmp_path / "distributions"
    run("distributions", "--counts", tmp_path / "counts", "--output", tables)
    assert_same_data(tables, job / "distributions")


def test_merging_in_two_steps_is_merging_at_once(corpus, job, tmp_path):
    for number in range(FILES):
        run_job(tmp_path / str(number), [corpus / f"{number}.jsonl"])
    sums = [tmp_path / "0" / "counts"]
    for number in range(1, FILES):
        inputs = ("--counts", sums[-1], "--counts", tmp_path / str(number) / "counts")
        sums.append(tmp_path / f"sum-{number}")
        run("merge", *inputs, "--output", sums[-1], "--partition-mib", 1)
    assert_same_data(sums[-1], job / "counts")
