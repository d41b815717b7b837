"""Everything that needs a GPU: what is exact there, how fast it is, and against which limits.

`python -m benchmarks.gpu --output FILE` takes at most eight minutes, each step at most its share,
and writes the report after every step, so that a run that is cut keeps what it has. What the steps
read is made before, without a GPU (`--prepare` makes nothing else): it can be brought along.
"""

import argparse
import contextlib
import datetime as dt
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks import data
from benchmarks.gpu import report
from benchmarks.gpu.prepare import prepare

# Seconds that a step may take, in the order of what is worth most: eight minutes in all.
LIMITS = {
    "machine": 30,
    "tests": 120,
    "exact": 110,
    "loss": 100,
    "loader": 40,
    "convergence": 80,
}
_LOG_LINES = 20


def main(argv: Sequence[str]) -> int:
    """Runs the steps; the exit code is 0 where all of them ended well, goals reached or not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    add = parser.add_argument
    add("--output", type=pathlib.Path, help="the report, in Markdown")
    add("--device", choices=("cpu", "cuda"), default="cuda", help="cpu: a rehearsal")
    add("--quick", action="store_true", help="sizes that say nothing, to see that it runs")
    add("--data", type=pathlib.Path, help="what the steps read; made where it is missing")
    add("--prepare", action="store_true", help="make what the steps read, and nothing else")
    arguments = parser.parse_args(argv)
    if arguments.output is None and not arguments.prepare:
        parser.error("--output FILE is needed, or --prepare")
    folder = arguments.data or data.FOLDER / ("gpu-quick" if arguments.quick else "gpu")
    prepare(folder, arguments.quick)
    if arguments.prepare:
        return 0
    title = f"GPU check, {dt.datetime.now(tz=dt.UTC):%Y-%m-%d %H:%M} UTC"
    if arguments.quick or arguments.device == "cpu":
        title += f": a rehearsal ({arguments.device}{', quick' if arguments.quick else ''})"
    options = ["--device", arguments.device, "--data", str(folder)]
    return _run(arguments.output, title, options + ["--quick"] * arguments.quick)


def _run(output: pathlib.Path, title: str, options: Sequence[str]) -> int:
    outcomes: list[report.Outcome] = []
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for step, limit in LIMITS.items():
            outcomes.append(_step(step, limit, pathlib.Path(scratch) / step, options))
            report.write(output, title, outcomes)
            print(f"{step}: {outcomes[-1].ended}, {outcomes[-1].seconds:.0f} s", flush=True)
            if step == "machine" and outcomes[-1].ended != "done":
                break
    print(output.read_text(encoding="utf-8"))
    return int(any(outcome.ended != "done" for outcome in outcomes))


def _step(step: str, limit: float, scratch: pathlib.Path, options: Sequence[str]) -> report.Outcome:
    """Runs one step, at most up to its limit."""
    scratch.mkdir()
    rows = scratch / "rows.jsonl"
    command = [sys.executable, "-m", "benchmarks.gpu.steps", step, *options]
    command += ["--scratch", str(scratch), "--rows", str(rows)]
    started = time.monotonic()
    ended = run_limited(command, limit, scratch / "log")
    return report.Outcome(step, time.monotonic() - started, ended, report.read(rows))


def run_limited(command: Sequence[str], limit: float, log: pathlib.Path) -> str:
    """Runs a command; ends it, and what it has started, after so many seconds.

    Returns:
      How it ended: `done`, or what went wrong.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit)
            return "done" if code == 0 else f"failed ({code}): {_complaint(log)}"
        except subprocess.TimeoutExpired:
            return f"stopped at its limit of {limit:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _complaint(log: pathlib.Path) -> str:
    """The last line that a step has said; the end of all of it goes to stderr."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    print("\n".join(lines[-_LOG_LINES:]), file=sys.stderr, flush=True)
    return lines[-1] if lines else "without a word"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
