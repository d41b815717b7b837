"""Every step with every path a URL of a bucket: the data files are the same bytes as on a disk."""

import os
import signal
import subprocess
import sys
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from corpusmill.commands import cli
from corpusmill.corpus import storage
from corpusmill.corpus.training_runs import read_metrics
from corpusmill.trainer import checkpoints
from tests.cloud.conftest import steps
from tests.cloud.faults import UPLOAD, Fault, proxy
from tests.cloud.servers import Place
from tests.integration.samples import assert_same_data, run

SECONDS = 120
# The codebook is a file; a training run has times in it.
DATASETS = [name for name in steps(Place()) if name not in ("codebook", "run")]


@pytest.fixture(scope="module", params=["gcs", "s3"])
def store(request, job):
    """The bucket with the corpus in it, where a job finds it by a URL."""
    store = request.getfixturevalue(request.param)
    store.upload(job / "input", store.place / "input")
    return store


@pytest.fixture(scope="module")
def made(store):
    """The place in the bucket where all has been made, one from another."""
    for name, arguments in steps(store.place).items():
        run(*arguments, "--output", store.place / name)
    return store.place


@pytest.mark.parametrize("dataset", DATASETS)
def test_datasets_are_those_of_a_local_run(dataset, made, store, job, tmp_path):
    assert_same_data(store.download(made / dataset, tmp_path), job / dataset)
    run("verify", made / dataset)


def test_codebook_and_model_are_those_of_a_local_run(made, job):
    assert storage.read_bytes(made / "codebook") == (job / "codebook").read_bytes()
    there, here = (
        storage.read_bytes(checkpoints.model_url(checkpoints.folder_of(str(place / "run"), 6)))
        for place in (made, job)
    )
    assert there == here


def test_the_log_of_a_training_run_is_whole(made, store, job, tmp_path):
    store.download(made / "run", tmp_path)
    there, here = (losses(run / "tensorboard") for run in (tmp_path, job / "run"))
    assert there
    assert there == here
    assert list(read_metrics(made / "run"))[-1]["step"] == 6


def losses(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def printed(capsys, *arguments):
    run(*arguments)
    return capsys.readouterr().out


def test_what_commands_say_of_a_bucket_is_what_they_say_of_a_folder(made, job, capsys):
    for command in (
        ("query", "{}/distributions", " a"),
        ("evaluate", "--run", "{}/run", "--tokens", "{}/held-out"),
        ("measure", "{}/compressed", "{}/byte-tokens"),
    ):
        there, here = (
            printed(capsys, *(word.format(place) for word in command)).replace(str(place), "")
            for place in (made, job)
        )
        assert there
        assert there == here


def test_a_complete_dataset_is_left_alone(made, capsys):
    run(*steps(made)["counts"], "--output", made / "counts")
    assert "is complete already" in capsys.readouterr().out
    assert cli.main([*map(str, steps(made)["counts"]), "--max-order=2", f"--output={made}/counts"])
    assert "made with other options" in capsys.readouterr().err


def test_a_killed_job_makes_what_is_missing(made, store, job, tmp_path):
    """Slow uploads leave the time to kill it between two parts."""
    output = made / "killed"
    command = [*map(str, steps(made)["byte-tokens"]), "--output", str(output)]
    with proxy(store.address) as slow:
        slow.faults.append(Fault("slow", *UPLOAD))
        process = subprocess.Popen(
            [sys.executable, "-m", "corpusmill.commands.cli", *command],
            env={**os.environ, **store.at(slow.address)},
            start_new_session=True,
        )
        until = time.monotonic() + SECONDS
        while not (done := parts_done(store, output)):
            assert process.poll() is None, "the job ended before it could be killed"
            assert time.monotonic() < until, f"nothing done after {SECONDS} s"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = store.files(output)
    assert "manifest.json" not in before
    assert cli.main(["verify", str(output)]) == 2
    run(*command)
    after = store.files(output)
    assert [written(after[name]) for name in done] == [written(before[name]) for name in done]
    assert len(done) < len([name for name in after if name.startswith("part-")])
    assert_same_data(store.download(output, tmp_path), job / "byte-tokens")


def written(info):
    """Another each time that a file is written."""
    return info.get("generation") or info["LastModified"]


def parts_done(store, output):
    names = store.files(output / "_incomplete" / "done")
    return [name.removesuffix(".json") for name in names if name.startswith("part-")]
