"""Engines that live as long as the tests, and one job, made in one process, to compare with."""

import importlib
import os
import shutil
from pathlib import Path

import pytest

from corpus.datasets import read_manifest
from tests.cluster.engines import ROOT, Engine, cluster, cluster_state
from tests.codebooks import small_book
from tests.golden.make import HERE as GOLDEN
from tests.integration.samples import random_texts, run, write_jsonl

# Each job starts three of these for some seconds, too short to pay for Java's better compiler.
JVMS = ("driver", "executor")
JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("cluster")
            # Several jobs, each with its own limit (engines.SECONDS).
            item.add_marker(pytest.mark.timeout(2400))


@pytest.fixture(scope="session")
def runner():
    """The module of the runner; collecting the tests needs no PySpark."""
    return importlib.import_module("pipelines.spark")


@pytest.fixture(scope="session")
def spark_cluster(tmp_path_factory):
    """Folder of a Spark cluster that is up, and that every driver from now on is configured for."""
    folder = tmp_path_factory.mktemp("cluster")
    cluster("up", folder)
    with open(folder / "conf" / "spark-defaults.conf", "a") as configuration:
        configuration.writelines(f"spark.{each}.extraJavaOptions {JAVA}\n" for each in JVMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_CONF_DIR", str(folder / "conf"))
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        yield folder
    cluster("down", folder)


@pytest.fixture(scope="session")
def spark(spark_cluster):
    master = cluster_state(spark_cluster)["master"]
    return Engine(("--runner=pipelines.spark.PySparkRunner", f"--spark_master_url={master}"))


@pytest.fixture(scope="session")
def prism():
    """Beam's portable runner in Go, which `make cluster-test` builds."""
    found = os.environ.get("CORPUSMILL_PRISM") or shutil.which("prism", path=ROOT / ".cluster/bin")
    assert found, "Prism is missing: make cluster-test builds it, or set CORPUSMILL_PRISM=PATH"
    return Engine(("--runner=PrismRunner", f"--prism_location={found}"))


@pytest.fixture(scope="session")
def processes():
    return Engine(("--workers=2",))


@pytest.fixture(scope="session")
def job(tmp_path_factory):
    """Every dataset of a corpus of several shards, runs and partitions, made in this process."""
    folder = tmp_path_factory.mktemp("job")
    for number in range(4):
        texts = random_texts(number, 80_000)
        with write_jsonl(folder / "corpus" / f"{number}.jsonl", texts).open("a") as file:
            file.write("not JSON\n")
        write_jsonl(folder / "few" / f"{number}.jsonl", random_texts(number, 2_000))
    small_book().write(str(folder / "codebook"))
    for name, arguments in commands(folder).items():
        run(*arguments, "--output", folder / name)
    for name in ("tokens", "counts", "distributions", "merged", "compressed"):
        assert len(read_manifest(str(folder / name)).data_files) > 2, name
    return folder


def commands(job):
    """Name of the dataset -> the command that makes it from those before it, less its output."""
    enrich = ("enrich", "--tokens", job / "tokens", "--counts", job / "counts", "--max-order", 2)
    reading = ("--shard-mib", 1, "--max-bad-records", 0.1)
    documents = ("--input", job / "corpus", *reading)
    some_documents = ("--input", job / "corpus" / "0.jsonl", *reading)
    arithmetic = ("--codec", "ac", "--counts", job / "counts")
    network = ("--codec", "equal-info", "--window-bits", 32, "--model", GOLDEN / "m1")
    both = ("--input", job / "counts", "--input", job / "some-counts")
    counts = ("--max-order", 5, "--run-tokens", 200_000, "--partition-mib", 1)
    return {
        "tokens": ("tokenize", *documents, "--tokenizer", "bytes"),
        "some-tokens": ("tokenize", *some_documents, "--tokenizer", "bytes"),
        "counts": ("count", "--input", job / "tokens", *counts),
        "some-counts": ("count", "--input", job / "some-tokens", *counts),
        "distributions": ("distributions", "--input", job / "counts"),
        "targets": (*enrich, "--table-mib", "512"),
        "targets-of-many-tables": (*enrich, "--table-mib", "0.05"),
        "merged": ("merge", *both, "--partition-mib", 1),
        "compressed": ("compress", *documents, "--codebook", job / "codebook"),
        "compressed-by-model": ("compress", *documents, *arithmetic),
        "documents": ("decompress", "--input", job / "compressed"),
        "compressed-by-network": ("compress", "--input", job / "few", *network),
        "documents-by-network": ("decompress", "--input", job / "compressed-by-network"),
        "examples": ("examples", *documents, "--codebook", job / "codebook"),
    }
