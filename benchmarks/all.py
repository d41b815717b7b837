"""Runs every benchmark and writes a dated report: `python -m benchmarks.all`."""

import contextlib
import datetime as dt
import importlib
import io
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import machine

NAMES = ("kernel", "beam", "merge", "tables", "memory", "encodings")
RESULTS = Path(__file__).parent / "results"


class _Both(io.StringIO):
    """What is printed goes to the terminal and is kept."""

    def write(self, text: str) -> int:
        sys.__stdout__.write(text)
        return super().write(text)


def main(argv: Sequence[str] | None = None) -> None:
    report = _Both()
    today = dt.date.today().isoformat()
    with contextlib.redirect_stdout(report):
        print(f"# Benchmarks of {today}\n")
        print("\n".join(f"- {line}" for line in machine()) + "\n")
        for name in NAMES:
            module = importlib.import_module(f"benchmarks.{name}")
            command = " ".join(["python -m", f"benchmarks.{name}", *(argv or [])])
            print(f"## {module.__doc__.splitlines()[0]}\n\n`{command}`\n")
            module.main(argv)
    path = RESULTS / f"{today}-{platform.machine()}.md"
    path.write_text(report.getvalue())
    print(f"wrote {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
