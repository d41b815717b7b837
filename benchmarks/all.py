"""Runs every benchmark and writes a dated report into benchmarks/results."""

import argparse
import datetime as dt
import pathlib
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence

from benchmarks import measure

_NAMES = (
    "chain",
    "tokenizers",
    "kernel",
    "beam",
    "merge",
    "tables",
    "memory",
    "enrich",
    "enrich_memory",
    "loader",
    "checksums",
    "step",
    "codebook",
    "codecs",
    "encodings",
    "plan",
)
_RESULTS = pathlib.Path(__file__).parent / "results"


def run(name: str) -> tuple[str, str]:
    """Runs one script, showing what it prints; returns its command and output."""
    arguments = ["-m", f"benchmarks.{name}"]
    command = shlex.join(["python", *arguments])
    print(f"\n$ {command}", flush=True)
    lines = []
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        raise SystemExit(f"{command} failed with exit code {process.returncode}")
    return command, "".join(lines).strip("\n")


def report(machine: Sequence[str], outputs: Sequence[tuple[str, str]]) -> str:
    """The report in Markdown: goals first, then every table with its command."""
    goals = [
        match.groups()
        for _, output in outputs
        for match in re.finditer(r"^goal: (.*): (\S+) \((.*)\) (\w+)$", output, re.MULTILINE)
    ]
    lines = [f"# Benchmarks, {dt.date.today()}", "", *(f"- {line}" for line in machine), ""]
    lines += ["| what | measured | goal | verdict |", "|---|---|---|---|"]
    lines += [f"| {what} | {found} | {goal} | {verdict} |" for what, found, goal, verdict in goals]
    for command, output in outputs:
        lines += ["", f"## `{command}`", "", "```", output, "```"]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.all", description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, default=_RESULTS, help="folder of reports")
    arguments = parser.parse_args(argv)
    machine = measure.machine()
    print("\n".join(machine))
    host = re.sub(r"\W+", "-", machine[0].split(",")[0].lower()).strip("-") or platform.machine()
    path = arguments.output / f"{dt.date.today()}-{host}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    outputs: list[tuple[str, str]] = []
    for name in _NAMES:
        outputs.append(run(name))
        # After each, so that a later one that fails takes none of it along.
        path.write_text(report(machine, outputs), encoding="utf-8")
    print(f"\nwrote {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
