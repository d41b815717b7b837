"""The check for a GPU, rehearsed here: every step with tiny sizes, and what goes wrong."""

import os
import re
import subprocess
import sys

import psutil
import pytest
import torch

from benchmarks.gpu import __main__ as check
from benchmarks.gpu import report, steps
from benchmarks.gpu.prepare import prepare
from tests.test_layering import ROOT


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    prepare(folder, quick=True)
    return folder


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """Where Python finds packages that can't be imported: a machine with a GPU may lack these."""
    folder = tmp_path_factory.mktemp("without")
    for name in ("apache_beam", "fastokens", "isal", "matplotlib"):
        (folder / f"{name}.py").write_text("raise ImportError(__name__)")
    return folder


def run(*options, path=""):
    """With one thread: those of several processes would wait for each other."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *map(str, options)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_every_step_runs_here(data, without, tmp_path):
    output = tmp_path / "reports" / "gpu.md"
    options = ("--device", "cpu", "--quick", "--data", data)
    done = run("--output", output, *options, path=without)
    assert done.returncode == 0, done.stdout + done.stderr
    text = output.read_text()
    assert "a rehearsal" in text
    endings = re.findall(r"^\| ([\w-]+) \| \d+ \| (.*) \|$", text, re.MULTILINE)
    assert endings == [(step, "done") for step in steps.STEPS]
    for what in (
        "the same ids on device and processor | 1 ",
        "share of the lower limit",
        "dense over next-token, memory",
        "the loader over the model",
        "compact is where next-token ends after",
    ):
        assert what in text


def test_limits_are_those_of_all_steps_and_eight_minutes():
    assert list(check.LIMITS) == list(steps.STEPS)
    assert sum(check.LIMITS.values()) <= 480


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_machine_without_a_gpu_is_said_at_once(data, tmp_path):
    done = run("--output", tmp_path / "gpu.md", "--quick", "--data", data)
    assert done.returncode == 1
    assert "finds no GPU" in (tmp_path / "gpu.md").read_text()
    assert "tests" not in done.stdout


def test_a_step_is_ended_at_its_limit_with_what_it_has_started(tmp_path):
    child = tmp_path / "child"
    script = f"sleep 600 & echo $! > {child}; wait"
    assert check.run_limited(["sh", "-c", script], 1, tmp_path / "log") == (
        "stopped at its limit of 1 s"
    )
    _, alive = psutil.wait_procs(
        [psutil.Process(pid) for pid in [int(child.read_text())] if psutil.pid_exists(pid)], 60
    )
    assert alive == []


def test_a_step_that_fails_is_said_with_its_last_line(tmp_path, capsys):
    ended = check.run_limited(["sh", "-c", "echo one; echo two; exit 3"], 60, tmp_path / "log")
    assert ended == "failed (3): two"
    assert capsys.readouterr().err == "one\ntwo\n"


def test_rows_outlive_what_was_half_written(tmp_path):
    path, row = tmp_path / "rows.jsonl", report.Row("first", 1.5, "s", at_most=2)
    assert report.read(path) == []
    report.append(path, row)
    with path.open("a") as file:
        file.write('{"what": ')
    assert report.read(path) == [row]


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (report.Row("plain", 1.0), ""),
        (report.Row("fast", 5.0, at_least=5), "reached"),
        (report.Row("slow", 4.9, at_least=5), "MISSED"),
        (report.Row("large", 1.06, at_most=1.05), "MISSED"),
        (report.Row("full", "out of memory", at_most=1.05), "MISSED"),
    ],
)
def test_goals_are_compared_with_what_was_measured(row, verdict):
    assert row.verdict == verdict
