"""What dies on a Spark cluster in the middle of a job, and what becomes of the job."""

import os
import signal
import time

import pytest

from tests.cluster.conftest import commands
from tests.cluster.engines import SECONDS, executors, finish, python_workers
from tests.integration.samples import assert_same_data

# The dataset, and the parts of it after the first of which the process is killed.
JOBS = [("counts", "run-"), ("targets-by-broadcast", "part-"), ("targets-by-shuffle", "table-")]


def wait_for(find, process):
    """What `find` returns, as soon as there is any, while the job is at work."""
    until = time.monotonic() + SECONDS
    while not (found := find()):
        assert process.poll() is None, f"the job ended too early: {process.communicate()[0]}"
        assert time.monotonic() < until, f"nothing after {SECONDS} s"
        time.sleep(0.01)
    return found


def completed(output, prefix):
    return list((output / "_incomplete" / "done").glob(f"{prefix}*.json"))


@pytest.mark.parametrize("victims", [python_workers, executors])
@pytest.mark.parametrize(("dataset", "prefix"), JOBS)
def test_a_job_survives(dataset, prefix, victims, job, spark, spark_cluster, tmp_path):
    output = tmp_path / dataset
    process = spark.start(*commands(job)[dataset], "--output", output)
    wait_for(lambda: completed(output, prefix), process)
    victim = wait_for(lambda: victims(spark_cluster), process)[0]
    assert not (output / "manifest.json").exists(), "the job was over before the kill"
    victim.send_signal(signal.SIGKILL)
    finish(process)
    assert_same_data(output, job / dataset)


@pytest.mark.parametrize(("dataset", "prefix"), JOBS)
def test_after_the_driver_dies_a_second_run_makes_what_is_missing(
    dataset, prefix, job, spark, spark_cluster, tmp_path
):
    output = tmp_path / dataset
    process = spark.start(*commands(job)[dataset], "--output", output)
    wait_for(lambda: completed(output, prefix), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (output / "manifest.json").exists(), "the job was over before the kill"
    # The master takes the executors of a lost driver away; until then one may finish its part.
    until = time.monotonic() + SECONDS
    while executors(spark_cluster):
        assert time.monotonic() < until, "executors outlive their driver"
        time.sleep(0.1)
    made = {record.name: record.stat().st_mtime_ns for record in completed(output, "")}
    assert made
    kept = dict(made)
    second = spark.start(*commands(job)[dataset], "--output", output)
    # Read while the job is at work, because a finished job removes them.
    while second.poll() is None:
        for name in made:
            try:
                kept[name] = (output / "_incomplete" / "done" / name).stat().st_mtime_ns
            except FileNotFoundError:
                continue
        time.sleep(0.01)
    finish(second)
    made.pop("tokenizer.json", None)  # copied before any work, each time
    assert {name: kept[name] for name in made} == made
    assert_same_data(output, job / dataset)
