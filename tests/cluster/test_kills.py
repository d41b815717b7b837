"""What dies on a Spark cluster in the middle of a job, and what becomes of the job."""

import os
import signal
import time

from tests.cluster.conftest import commands
from tests.cluster.engines import executors, finish, python_workers
from tests.cluster.waiting import completed, wait_for
from tests.integration.samples import assert_same_data


def test_a_job_survives_its_python_workers_and_an_executor(job, spark, spark_cluster, tmp_path):
    dataset = "targets-of-many-tables"  # the job of most stages
    output = tmp_path / dataset
    process = spark.start(*commands(job)[dataset], "--output", output)
    wait_for(lambda: completed(output, "table-"), process)
    # All of them, as some wait for work; another one comes for a task that is tried again.
    workers = wait_for(lambda: python_workers(spark_cluster), process)
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
    wait_for(lambda: set(python_workers(spark_cluster)) - set(workers), process)
    [victim, *_] = wait_for(lambda: executors(spark_cluster), process)
    assert not (output / "manifest.json").exists(), "the job was over before the kill"
    victim.send_signal(signal.SIGKILL)
    finish(process)
    assert_same_data(output, job / dataset)


def test_after_the_driver_dies_a_second_run_makes_what_is_missing(
    job, spark, spark_cluster, tmp_path
):
    dataset = "counts"
    output = tmp_path / dataset
    process = spark.start(*commands(job)[dataset], "--output", output)
    wait_for(lambda: completed(output, "run-"), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (output / "manifest.json").exists(), "the job was over before the kill"
    # The master takes the executors of a lost driver away; until then one may finish its part.
    wait_for(lambda: not executors(spark_cluster))
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
