"""Spark and Flink as engines: their clusters, what tasks did, what is said of what is wrong."""

import collections
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.cluster.conftest import commands, java_options
from tests.cluster.engines import (
    CLUSTER,
    SECONDS,
    alive,
    cluster,
    cluster_processes,
    cluster_state,
    executors,
    finish,
    python_workers,
)
from tests.cluster.waiting import completed, wait_for
from tests.integration.samples import assert_same_data


def test_work_is_spread_over_the_executors_with_a_worker_on_each(
    job, spark, spark_cluster, tmp_path
):
    events = tmp_path / "events"
    events.mkdir()
    log = java_options("-Dspark.eventLog.enabled=true", f"-Dspark.eventLog.dir=file://{events}")
    process = spark.with_options(*log).start(
        *commands(job)["counts"], "--output", tmp_path / "counts"
    )
    seen = set()
    while process.poll() is None:
        seen.update(worker.pid for worker in python_workers(spark_cluster))
    finish(process)
    assert_same_data(tmp_path / "counts", job / "counts")
    assert len(seen) == 2  # not one for each stage
    [file] = events.iterdir()
    done = [
        event
        for event in map(json.loads, file.read_text().splitlines())
        if event["Event"] == "SparkListenerTaskEnd"
    ]
    by_stage = collections.defaultdict(set)
    for task in done:
        by_stage[task["Stage ID"]].add(task["Task Info"]["Executor ID"])
    # All but those that are one task: the beginnings and the end.
    stages = collections.Counter(task["Stage ID"] for task in done)
    wide = [by_stage[stage] for stage, tasks in stages.items() if tasks > 1]
    assert len(wide) > 3
    assert all(executors == {"0", "1"} for executors in wide)


def test_workers_in_the_launching_process(job, spark, tmp_path):
    """A local master has no cluster, and its workers are threads of the command."""
    local = spark.with_options("--spark_master_url=local[2]")
    finish(local.start(*commands(job)["counts"], "--output", tmp_path / "counts"))
    assert_same_data(tmp_path / "counts", job / "counts")


def test_flink_starts_workers_itself(job, flink, tmp_path):
    finish(flink.start(*commands(job)["compressed"], "--output", tmp_path / "compressed"))
    assert_same_data(tmp_path / "compressed", job / "compressed")


def test_workers_that_end_at_once_are_an_error(job, spark, tmp_path):
    config = json.dumps({"command": str(Path("/bin/false"))})
    broken = spark.with_options("--environment_type=PROCESS", f"--environment_config={config}")
    process = broken.start(*commands(job)["counts"], "--output", tmp_path / "counts")
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    [line] = [line for line in printed.splitlines() if "error" in line]
    assert line.startswith("corpusmill: error: the job failed: Process died with exit code 1")


def test_an_error_in_a_task_is_one_line(spark, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "good"}\n{"no text": 1}\n')
    arguments = ("tokenize", "--input", tmp_path / "in.jsonl", "--tokenizer", "bytes")
    process = spark.start(*arguments, "--output", tmp_path / "tokens")
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "corpusmill: error: 1 of 2 records are bad, more than --max-bad-records" in printed
    assert "Traceback" not in printed
    assert "org.apache.spark" not in printed
    assert list((tmp_path / "tokens" / "dead-letter").iterdir())
    assert not (tmp_path / "tokens" / "manifest.json").exists()


def test_an_interrupted_job_frees_the_cluster(job, spark, spark_cluster, tmp_path):
    output = tmp_path / "counts"
    process = spark.start(*commands(job)["counts"], "--output", output)
    wait_for(lambda: completed(output, "run-"), process)
    os.killpg(process.pid, signal.SIGINT)  # As a terminal does.
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, printed
    assert "interrupted; run the same command again to go on" in printed
    assert "Traceback" not in printed
    assert not (output / "manifest.json").exists()
    wait_for(lambda: not executors(spark_cluster))


@pytest.mark.parametrize("engine", ["spark", "flink"])
def test_a_cluster_goes_up_once_and_down_without_a_trace(engine, tmp_path, request):
    request.addfinalizer(lambda: cluster(engine, "down", tmp_path))  # twice does no harm
    first = cluster(engine, "up", tmp_path)
    state = cluster_state(tmp_path)
    assert cluster(engine, "up", tmp_path) == first
    assert cluster_state(tmp_path) == state
    leaders = [leader for leader, _ in state["sessions"]]
    assert len(leaders) == 3
    psutil.Process(leaders[-1]).kill()
    cluster(engine, "up", tmp_path)
    running = cluster_processes(tmp_path)
    assert {leader for leader, _ in cluster_state(tmp_path)["sessions"]} <= {
        each.pid for each in running
    }
    assert not {*leaders} & {each.pid for each in running}
    cluster(engine, "down", tmp_path)
    assert not any(map(alive, running))


def test_a_cluster_without_java_says_what_to_install(tmp_path):
    done = subprocess.run(
        [sys.executable, CLUSTER, "spark", "up", "--folder", tmp_path / "cluster"],
        env={"PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "cluster: error: a cluster needs Java 17 or newer: apt-get install default-jre-headless\n"
    )
