"""Stores that live as long as the tests, and one job, made on the local disk, to compare with."""

import random
import shutil
import string
from pathlib import Path

import pytest

from corpusmill.commands.quickstart import train_tokenizer
from tests.cloud import servers
from tests.cloud.servers import Place
from tests.golden.make import HERE as GOLDEN
from tests.integration.samples import random_texts, run, write_jsonl


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("cluster")


@pytest.fixture(scope="session")
def environment():
    """Variables of this process, as they were before, when the tests end."""
    with pytest.MonkeyPatch.context() as patch:
        # Nobody on this machine knows credentials: not asking saves seconds in each process.
        patch.setenv("NO_GCE_CHECK", "true")
        # What is trained depends on how many threads add up.
        patch.setenv("OMP_NUM_THREADS", "1")
        yield patch


@pytest.fixture(scope="session")
def secret():
    """What must not be found anywhere."""
    return "planted-" + "".join(random.choices(string.ascii_letters, k=24))


@pytest.fixture(scope="session")
def gcs(tmp_path_factory, environment):
    with servers.gcs(tmp_path_factory.mktemp("gcs")) as store:
        for name, value in store.environment.items():
            environment.setenv(name, value)
        yield store


@pytest.fixture(scope="session")
def s3(tmp_path_factory, environment, secret):
    with servers.s3(tmp_path_factory.mktemp("s3"), secret) as store:
        for name, value in store.environment.items():
            environment.setenv(name, value)
        yield store


@pytest.fixture(scope="session")
def job(tmp_path_factory, environment):
    """Every dataset of a small corpus, made on the local disk."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "input").mkdir()
    for number in range(4):
        write_jsonl(folder / "input" / "corpus" / f"{number}.jsonl", random_texts(number, 60_000))
    write_jsonl(folder / "input" / "held-out.jsonl", random_texts(4, 200, 3))
    tokenizer = train_tokenizer(random_texts(0), 512)
    (folder / "input" / "tokenizer.json").write_text(tokenizer)
    shutil.copytree(GOLDEN / "m1", folder / "input" / "m1")
    for name, arguments in steps(Place(folder)).items():
        run(*arguments, "--output", folder / name)
    return folder


def steps(place: Place) -> dict[str, tuple]:
    """Name of what is made -> the command that makes it from what was made before."""
    documents = ("--input", place / "input" / "corpus", "--shard-mib", 1)
    counts = ("--run-tokens", 100_000, "--partition-mib", 1)
    enrich = ("enrich", "--tokens", place / "tokens", "--counts", place / "counts")
    return {
        "tokens": ("tokenize", *documents, "--tokenizer", place / "input" / "tokenizer.json"),
        "held-out": (
            *("tokenize", "--input", place / "input" / "held-out.jsonl"),
            *("--tokenizer", place / "input" / "tokenizer.json"),
        ),
        "counts": ("count", "--tokens", place / "tokens", "--max-order", 3, *counts),
        "distributions": ("distributions", "--counts", place / "counts"),
        "held-out-counts": ("count", "--tokens", place / "held-out", "--max-order", 3, *counts),
        "merged": (
            *("merge", "--counts", place / "counts", "--counts", place / "held-out-counts"),
            *("--partition-mib", 1),
        ),
        "targets": (*enrich, "--table-mib", "512"),
        "targets-of-many-tables": (*enrich, "--table-mib", "8"),
        "byte-tokens": ("tokenize", *documents, "--tokenizer", "bytes"),
        "byte-counts": ("count", "--tokens", place / "byte-tokens", "--max-order", 2, *counts),
        "codebook": ("freeze", "--byte-counts", place / "byte-counts"),
        "compressed": ("compress", *documents, "--codebook", place / "codebook"),
        "coded": (
            *("compress", "--input", place / "input" / "held-out.jsonl"),
            *("--codec", "equal-info", "--byte-model", "ngram"),
            *("--byte-counts", place / "byte-counts"),
        ),
        "coded-by-network": (
            *("compress", "--input", place / "input" / "held-out.jsonl"),
            *("--codec", "ac", "--byte-model", place / "input" / "m1"),
        ),
        "documents": ("decompress", "--compressed", place / "compressed"),
        "examples": ("examples", *documents, "--codebook", place / "codebook"),
        "run": (
            *("train", "--tokens", place / "tokens", "--targets", place / "targets"),
            *("--objective", "compact", "--size", "3m", "--steps", 6, "--batch-size", 2),
            *("--length", 32, "--warmup", 2, "--checkpoint-every", 3),
        ),
    }
