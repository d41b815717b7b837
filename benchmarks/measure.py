"""What the benchmarks share: timing, peak memory, plain tables, the machine."""

import argparse
import importlib.metadata
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

logging.disable(logging.WARNING)  # Beam's, of packages that nobody asked for

PACKAGES = ("numpy", "numba", "pyarrow", "apache-beam", "duckdb")


def parse_tokens(argv: Sequence[str] | None, description: str, default: int = 20_000_000) -> int:
    """The size that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--tokens", type=int, default=default, help="tokens of the corpus")
    return int(parser.parse_args(argv).tokens)


def best_of(repeats: int, function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the fastest run, after one run to warm up, and that run's result."""
    result = function()
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - started)
    return best, result


def peak_bytes() -> int:
    """The largest resident size of this process so far."""
    # Not getrusage, whose figure begins with the size of the process that started this one.
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def in_own_process(code: str) -> str:
    """The last line that a program prints in a process of its own."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split(
        "\n"
    )[-2]


def show(rows: Sequence[Sequence[object]]) -> None:
    """Prints rows as a Markdown table; the first one is its head."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for number, row in enumerate(cells):
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("| " + " | ".join(padded) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print(flush=True)


def machine() -> list[str]:
    """Lines that say what was measured on."""
    with open("/proc/cpuinfo") as file:
        names = {line.split(":")[1].strip() for line in file if line.startswith("model name")}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return [
        f"{', '.join(sorted(names))}; {os.cpu_count()} cores, {memory:.0f} GiB",
        f"Python {platform.python_version()}, {', '.join(versions)}",
    ]
