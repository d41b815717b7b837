"""The studies that train models, with a corpus and models that say nothing, so that they run."""

import json
import os
import random
import subprocess
import sys

import pytest

from tests.test_layering import ROOT

WORDS = [f"{first}{last}" for first in ("ba", "lo", "mi", "tu") for last in ("rk", "nde", "s", "")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    generator = random.Random(0)
    path = tmp_path_factory.mktemp("learning") / "corpus.jsonl"
    texts = (" ".join(generator.choices(WORDS, k=30)) for _ in range(1000))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def run(name, *options):
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *map(str, options)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cells(table, row):
    """Of the first line of a table that begins with the row's name."""
    line = next(line for line in table.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.slow
def test_convergence_has_a_control_with_targets_of_the_text_learnt(corpus, tmp_path):
    small = ("--size", "500k", "--vocabulary", 300, "--batch-size", 4, "--length", 64)
    taken = ("--corpus", corpus, "--megabytes", 0.02, "--epochs", 1, "--every", 20, "--seeds", 1)
    report = tmp_path / "report"
    where = ("--folder", tmp_path / "data", "--report", report)
    rows = ("retain-16-and-4", "retain-16-and-4-learnt")
    run("convergence", *where, *taken, *small, "--rows", *rows)
    table = (report / "convergence.md").read_text()
    # The text of the targets isn't the same, so what is learnt isn't either.
    assert cells(table, rows[0])[2] != cells(table, rows[1])[2]


@pytest.mark.slow
def test_learnability_compares_codebooks_with_bpe(corpus, tmp_path):
    report = tmp_path / "report"
    taken = ("--corpus", corpus, "--megabytes", 0.02, "--held-out", 0.05, "--teraflops", 0.01)
    where = ("--folder", tmp_path / "data", "--report", report)
    rows = ("used, words [v=4k]", "subword [v=4k]")
    run("learnability", *where, *taken, "--seeds", 1, "--length", 64, "--rows", *rows)
    table = (report / "learnability.md").read_text()
    # Words come in any order, so strings of several of them are what makes an id longer.
    assert float(cells(table, rows[0])[2]) > float(cells(table, rows[1])[2]) > 1
