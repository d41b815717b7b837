"""Engines that live as long as the tests, and one job, made in one process, to compare with."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
from apache_beam.runners.portability.spark_runner import SparkJarJobServer

from corpusmill.corpus.datasets import read_manifest
from tests.cloud.servers import free_port, listens, serving
from tests.cluster.engines import (
    BIN,
    ROOT,
    WORKER,
    Engine,
    cluster,
    cluster_state,
    job_server,
)
from tests.codebooks import small_book
from tests.golden.make import HERE as GOLDEN
from tests.integration.samples import random_texts, run, write_jsonl

# Jobs here are too short to pay for Java's better compiler.
JAVA = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("cluster")
            # Several jobs, each with its own limit (engines.SECONDS).
            item.add_marker(pytest.mark.timeout(2400))


@pytest.fixture(scope="session")
def spark_cluster(tmp_path_factory):
    """Folder of a Spark cluster that is up."""
    yield from running_cluster("spark", tmp_path_factory)


@pytest.fixture(scope="session")
def flink_cluster(tmp_path_factory):
    """Folder of a Flink session cluster that is up."""
    yield from running_cluster("flink", tmp_path_factory)


def running_cluster(engine, tmp_path_factory):
    folder = tmp_path_factory.mktemp(engine)
    cluster(engine, "up", folder)
    yield folder
    cluster(engine, "down", folder)


@pytest.fixture(scope="session")
def pool():
    """Options for workers from a pool that is up; without, runners start processes."""
    port = free_port()
    with subprocess.Popen([BIN / WORKER, "--pool", str(port)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"serving workers at localhost:%d\n" % port
        yield ("--environment_type=EXTERNAL", f"--environment_config=localhost:{port}")
        process.terminate()


@pytest.fixture(scope="session")
def spark(spark_cluster):
    return Engine(
        (
            "--runner=SparkRunner",
            f"--spark_master_url={cluster_state(spark_cluster)['master']}",
            f"--spark_job_server_jar={job_server('spark')}",
            *java_options(*JAVA),
            *java_options(f"-Dspark.executor.extraJavaOptions={' '.join(JAVA)}"),
            *java_options("-Dspark.driver.host=127.0.0.1", "-Dspark.ui.enabled=false"),
        )
    )


@pytest.fixture(scope="session")
def flink(flink_cluster):
    return Engine(
        (
            "--runner=FlinkRunner",
            f"--flink_master={cluster_state(flink_cluster)['master']}",
            f"--flink_job_server_jar={job_server('flink')}",
            "--parallelism=2",
            *java_options(*JAVA),
        )
    )


def java_options(*options):
    return (f"--job_server_jvm_properties={option}" for option in options)


@pytest.fixture(scope="session")
def many_jobs_on_spark(spark, tmp_path_factory):
    """The cluster behind a job server that is up; by itself each command starts one."""
    server = SparkJarJobServer(PipelineOptions(spark.options))
    yield from behind(server, spark, tmp_path_factory.mktemp("spark-server"))


@pytest.fixture(scope="session")
def many_jobs_on_flink(flink, tmp_path_factory):
    """As for Spark."""
    server = FlinkJarJobServer(PipelineOptions(flink.options))
    yield from behind(server, flink, tmp_path_factory.mktemp("flink-server"))


def behind(server, engine, folder):
    command, address = server.subprocess_cmd_and_endpoint()
    port = int(address.rpartition(":")[2])
    with serving([*map(str, command)], lambda: listens(port), folder / "log"):
        yield engine.with_options(f"--job_endpoint={address}")


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
    arithmetic = ("--codec", "ac", "--byte-counts", job / "counts")
    network = ("--codec", "equal-info", "--window-bits", 32, "--byte-model", GOLDEN / "m1")
    both = ("--counts", job / "counts", "--counts", job / "some-counts")
    counts = ("--max-order", 5, "--run-tokens", 200_000, "--partition-mib", 1)
    return {
        "tokens": ("tokenize", *documents, "--tokenizer", "bytes"),
        "some-tokens": ("tokenize", *some_documents, "--tokenizer", "bytes"),
        "counts": ("count", "--tokens", job / "tokens", *counts),
        "some-counts": ("count", "--tokens", job / "some-tokens", *counts),
        "distributions": ("distributions", "--counts", job / "counts"),
        "targets": (*enrich, "--table-mib", "512"),
        "targets-of-many-tables": (*enrich, "--table-mib", "0.05"),
        "merged": ("merge", *both, "--partition-mib", 1),
        "compressed": ("compress", *documents, "--codebook", job / "codebook"),
        "compressed-by-model": ("compress", *documents, *arithmetic),
        "documents": ("decompress", "--compressed", job / "compressed"),
        "compressed-by-network": ("compress", "--input", job / "few", *network),
        "documents-by-network": ("decompress", "--compressed", job / "compressed-by-network"),
        "examples": ("examples", *documents, "--codebook", job / "codebook"),
    }
