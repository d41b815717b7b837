"""Ctrl-C: one line and exit code 130 at every moment, nothing left over, and the job goes on."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.codebooks import small_book
from tests.integration.samples import file_hashes, random_texts, run, write_jsonl
from tests.trainer.samples import random_files, write_tokens

SECONDS_TO_WAIT = 120
LINE = "corpusmill: interrupted; run the same command again to go on"
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def start(*arguments):
    """A command in a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "corpusmill.commands.cli", *map(str, arguments)],
        start_new_session=True,
        env=ONE_THREAD,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_until(condition, what, process=None):
    until = time.monotonic() + SECONDS_TO_WAIT
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < until, f"not {what} after {SECONDS_TO_WAIT} s"


def interrupt(process, is_time, *, all_processes=False):
    """Interrupts a command as soon as it has got so far, and waits for the end of all of it."""
    wait_until(is_time, "so far", process)
    if all_processes:  # as a terminal does
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=SECONDS_TO_WAIT)
    assert process.returncode == 130, errors
    assert errors.endswith(LINE + "\n")
    assert errors.count("corpusmill:") == 1
    assert "Traceback" not in errors + output
    # Workers end when they see that they are alone.
    wait_until(lambda: not group_exists(process.pid), "all processes at an end")


def group_exists(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def has_loaded(process, library):
    """Whether a process has got as far as to load a library: in the midst of imports."""
    with contextlib.suppress(FileNotFoundError):
        return library in Path(f"/proc/{process.pid}/maps").read_text()
    return False


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("name", ["tokenize", "freeze", "query", "train", "report"])
def test_while_a_command_is_imported(name):
    process = start(name, "--help")
    interrupt(process, lambda: has_loaded(process, "numpy"))


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """What commands work on, and what they make when nobody interrupts them."""
    folder = tmp_path_factory.mktemp("interrupts")
    for number in range(6):
        texts = random_texts(number)
        write_jsonl(folder / "corpus" / f"{number}.jsonl", texts)
    # So many that there are many shards to do when the first is done.
    (folder / "many").mkdir()
    for number in range(200):
        (folder / "many" / f"{number}.jsonl").hardlink_to(folder / "corpus" / f"{number % 6}.jsonl")
    small_book().write(str(folder / "codebook"))
    run(*TOKENIZE, folder / "corpus", "--output", folder / "tokens")
    run(*TOKENIZE, folder / "many", "--output", folder / "tokenize")
    run(*COUNT, folder / "tokens", "--output", folder / "count")
    write_tokens(folder / "training", random_files(1, [(130, 200), (170,)]))
    return folder


TOKENIZE = ["tokenize", "--tokenizer", "bytes", "--shard-mib", 1, "--input"]
COUNT = ["count", "--max-order", 4, "--run-tokens", 100_000, "--tokens"]


@pytest.mark.parametrize(
    ("stage", "workers", "all_processes"),
    [("tokenize", 1, False), ("count", 2, True), ("count", 2, False)],
)
def test_jobs_go_on_after_they_were_interrupted(job, tmp_path, stage, workers, all_processes):
    arguments = {
        "tokenize": [*TOKENIZE, job / "many"],
        "count": [*COUNT, job / "tokens"],
    }[stage]
    output = tmp_path / "output"
    command = [*arguments, "--output", output, "--workers", workers]
    incomplete = output / "_incomplete"
    moments = [
        (incomplete / "job.json").exists,
        lambda: any((incomplete / "done").glob("*-*.json")),
    ]
    for moment in moments:
        interrupt(start(*command), moment, all_processes=all_processes)
        assert not (output / "manifest.json").exists()
    run(*command)
    assert file_hashes(output) == file_hashes(job / stage)
    assert not incomplete.exists()


def test_training_goes_on_after_it_was_interrupted(job, tmp_path):
    def command(output):
        options = ["--size", "3m", "--batch-size", 2, "--length", 16, "--device", "cpu"]
        steps = ["--steps", 40, "--warmup", 4, "--checkpoint-every", 5]
        return ["train", "--tokens", job / "training", *options, *steps, "--output", output]

    output = tmp_path / "run"
    moments = [
        (output / "config.json").exists,
        lambda: any(output.glob("checkpoints/*/checkpoint.json")),
    ]
    for moment in moments:
        interrupt(start(*command(output)), moment)
    finished = start(*command(output))
    _, errors = finished.communicate(timeout=SECONDS_TO_WAIT)
    assert finished.returncode == 0, errors


def test_freezing_leaves_no_codebook(job, tmp_path):
    output = tmp_path / "a.codebook"
    command = ["freeze", "--byte-counts", job / "count", "--tokens", job / "tokens"]
    interrupt(
        start(*command, "--output", output),
        (tmp_path / f".{output.name}.incomplete" / "checkpoint.npz").exists,
    )
    # From which it goes on: test_resume.
    assert [path.name for path in tmp_path.iterdir()] == [f".{output.name}.incomplete"]


def test_a_stream_that_waits_for_input(job, tmp_path):
    process = start("compress", "--codebook", job / "codebook", "--stdin")
    process.stdin.write("the cat")
    process.stdin.flush()
    waits_for = Path("/proc", str(process.pid), "wchan")
    interrupt(process, lambda: "pipe_read" in waits_for.read_text())
