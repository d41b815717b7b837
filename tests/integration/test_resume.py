"""A job that was killed goes on where it was, and ends with the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from corpusmill.commands import cli
from tests.codebooks import small_book
from tests.integration.samples import file_hashes, random_texts, run, write_jsonl

SECONDS_TO_WAIT = 120


def start(*arguments, program=("-m", "corpusmill.commands.cli")):
    """A command in a process group of its own, so that its workers can be killed with it."""
    command = [sys.executable, *program, *map(str, arguments)]
    return subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def kill_when(process, is_time):
    """SIGKILLs a job as soon as it has got so far."""
    until = time.monotonic() + SECONDS_TO_WAIT
    while not is_time():
        assert process.poll() is None, "the job ended before it could be killed"
        assert time.monotonic() < until, f"not so far after {SECONDS_TO_WAIT} s"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kill_after_first_part(process, output, prefix):
    """SIGKILLs a job as soon as one of its parts is complete; returns the complete ones."""
    done = Path(output, "_incomplete", "done")
    kill_when(process, lambda: list(done.glob(f"{prefix}*.json")))
    return {path.name: path.stat().st_mtime_ns for path in done.glob("*.json")}


TOKENIZE = ["tokenize", "--tokenizer", "bytes", "--shard-mib", 1, "--input"]
COUNT = ["count", "--max-order", 4, "--run-tokens", 300_000, "--partition-mib", 1, "--tokens"]
WHOLE = {
    "tokenize": "tokens",
    "count": "counts",
    "distributions": "tables",
    "compress": "small",
    "decompress": "back",
}


@pytest.fixture(scope="module")
def long_job(tmp_path_factory):
    """An uninterrupted job with enough parts for another one to be killed between two of them."""
    folder = tmp_path_factory.mktemp("long")
    texts = [" ".join(random_texts(seed)) for seed in range(40)]
    write_jsonl(folder / "corpus" / "big.jsonl", texts)
    run(*TOKENIZE, folder / "corpus", "--output", folder / "tokens")
    run(*COUNT, folder / "tokens", "--output", folder / "counts")
    run("distributions", "--counts", folder / "counts", "--output", folder / "tables")
    small_book().write(str(folder / "codebook"))
    options = ("--shard-mib", 1, "--codebook", folder / "codebook")
    for name, parse in (("small", "flexible"), ("greedy", "greedy")):
        to = ("--output", folder / name, "--parse", parse)
        run("compress", "--input", folder / "corpus", *options, *to)
    run("decompress", "--compressed", folder / "small", "--output", folder / "back")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "prefix"),
    [
        ("tokenize", "part-"),
        ("count", "run-"),
        ("count", "part-"),
        ("distributions", "part-"),
        ("compress", "part-"),
        ("decompress", "part-"),
    ],
)
def test_a_killed_job_goes_on_where_it_was(stage, prefix, long_job, tmp_path, capsys):
    compress = ["compress", "--shard-mib", 1, "--codebook", long_job / "codebook"]
    # A command, and options with which it would make something else.
    command, other = {
        "tokenize": ([*TOKENIZE, long_job / "corpus"], ["--text-field", "body"]),
        "count": ([*COUNT, long_job / "tokens"], ["--max-order", 3]),
        "distributions": (["distributions", "--counts", long_job / "counts"], ["--top-k", 3]),
        "compress": (
            [*compress, "--parse", "flexible", "--input", long_job / "corpus"],
            ["--parse", "greedy"],
        ),
        "decompress": (
            ["decompress", "--compressed", long_job / "small"],
            ["--compressed", long_job / "greedy"],
        ),
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
    assert file_hashes(killed) == file_hashes(whole)
    # What was complete has not been made again.
    assert {path: path.stat().st_ino for path in made} == made
    assert made or prefix == "run-"
    capsys.readouterr()
    run(*command, "--output", killed)
    assert "is complete already" in capsys.readouterr().out
    assert file_hashes(killed) == file_hashes(whole)
    assert cli.main([str(argument) for argument in (*command, "--output", killed, *other)]) == 2
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


def is_after_round_1(path):
    return path.exists() and np.load(path)["complete"] >= 2


def is_within_round_1(path):
    return path.exists() and {"expanded", "trie_parents"} <= set(np.load(path))


# Keeps the work after every batch, not every minute.
EAGER_FREEZE = """
import sys
from corpusmill.compress.codebooks import freeze_checkpoint
from corpusmill.commands import cli
freeze_checkpoint._SECONDS_BETWEEN = freeze_checkpoint._MOST_OF_TIME = 0
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "program", "stage"),
    [
        (is_after_round_1, ["-m", "corpusmill.commands.cli"], "round 2 of 6"),
        (is_within_round_1, ["-c", EAGER_FREEZE], "round 1 of 6"),
    ],
)
def test_a_killed_freeze_goes_on_where_it_was(moment, program, stage, long_job, tmp_path, capsys):
    freeze = ["freeze", "--byte-counts", long_job / "counts", "--tokens", long_job / "tokens"]
    killed = tmp_path / "killed" / "a.codebook"
    unfinished = killed.with_name(".a.codebook.incomplete") / "checkpoint.npz"
    process = start(*freeze, "--output", killed, program=program)
    kill_when(process, lambda: moment(unfinished))
    assert not killed.exists()
    other = [*freeze, "--output", killed, "--parse", "flexible"]
    assert cli.main([str(argument) for argument in other]) == 2
    assert 'parse: "greedy" there, "flexible" now' in capsys.readouterr().err
    run(*freeze, "--output", killed)
    stages = [line for line in capsys.readouterr().err.splitlines() if "strings, round" in line]
    assert stages[0].endswith(stage)
    assert [path.name for path in killed.parent.iterdir()] == ["a.codebook"]
    run(*freeze, "--output", tmp_path / "whole")
    assert killed.read_bytes() == (tmp_path / "whole").read_bytes()
