"""What the benchmarks share: timing, memory, and plain tables.

Memory that a virtual machine has given back to its host is slow to touch again (up to 60 times
slower than memory in use), and an idle guest gives free memory back within seconds. So `seconds`
touches memory before each round; `machine` prints both rates.
"""

import argparse
import contextlib
import importlib.metadata
import io
import multiprocessing
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import psutil

_WARM_GIB = 2
_SECONDS_BETWEEN_LOOKS = 0.01
_PACKAGES = ("numpy", "numba", "pyarrow", "apache-beam", "duckdb")


def make_parser(name: str, question: str, tokens: int, repeat: int = 3) -> argparse.ArgumentParser:
    """The options of a benchmark; `tokens` is the default size."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=question)
    parser.add_argument("--tokens", type=int, default=tokens, help="size of the corpus")
    parser.add_argument("--repeat", type=int, default=repeat, help="rounds; the best one counts")
    parser.add_argument(
        "--corpus",
        choices=("shared", "embedded"),
        help="embedded: the documentation of Python; default: shared data, where it is there",
    )
    return parser


def seconds(work: Callable[[], Any], repeat: int, gib: float = _WARM_GIB) -> float:
    """The best time of several rounds, each with memory that has been touched before."""
    best = float("inf")
    for _ in range(repeat):
        touch_memory(gib)
        best = min(best, timed(work))
    return best


def touch_memory(gib: float = _WARM_GIB) -> float:
    """Makes the kernel hold so much memory ready; returns the seconds a GiB it took."""

    def touch() -> None:
        words = np.empty(int(gib * (1 << 27)), np.uint64)
        words[::512] = 1

    return timed(touch) / gib


def sort_seconds(count: int, repeat: int) -> float:
    """The yardstick: `np.sort` of random uint64."""
    words = np.random.default_rng(0).integers(0, 1 << 64, count, np.uint64)
    return min(timed(copy.sort) for copy in [words.copy() for _ in range(repeat)])


def timed(work: Callable[[], Any]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of a module in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def memory_growth(work: Callable[[], Any]) -> int:
    """Bytes by which this process' peak exceeds what it holds before the work."""
    # ru_maxrss would not do: a process inherits its parent's.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = _status(os.getpid())["VmRSS"]
    work()
    return _status(os.getpid())["VmHWM"] - before


def run_watched(command: Sequence[str], beside: Sequence[int] = ()) -> tuple[float, int, int]:
    """Runs a command.

    Args:
      command: the command.
      beside: processes of a server that works for it.

    Returns:
      Its seconds, its peak of resident memory in bytes, added up over it, the others and their
      child processes, and the peak of what is not files mapped to memory.
    """
    started = time.perf_counter()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    roots = [process, *map(psutil.Process, beside)]
    peaks = [0, 0]
    while process.poll() is None:
        found = [_status(each.pid) for root in roots for each in _family(root)]
        for i, name in enumerate(("VmRSS", "RssAnon")):
            peaks[i] = max(peaks[i], sum(status.get(name, 0) for status in found))
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - started, *peaks


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _status(pid: int) -> dict[str, int]:
    """The memory that Linux reports of a process, in bytes; nothing where it has ended."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines)
    return {name: int(value.split()[0]) << 10 for name, value in pairs if value.endswith("kB")}


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keeps the output of a job's `main` out of the tables."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A plain-text table, numbers with three digits."""
    cells = [list(columns), *([_text(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for first, *rest in cells:
        aligned = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([f"  {first.ljust(widths[0])}", *aligned]).rstrip())
    sys.stdout.flush()


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def print_goal(
    what: str, measured: float, *, at_least: float | None = None, at_most: float | None = None
) -> None:
    """One line: a goal, what was measured, and whether it is reached."""
    if at_least is not None:
        bound, reached = f"at least {at_least:g}", measured >= at_least
    else:
        bound, reached = f"at most {at_most:g}", measured <= at_most
    verdict = "reached" if reached else "MISSED"
    print(f"goal: {what}: {_text(float(measured))} ({bound}) {verdict}", flush=True)


def machine() -> list[str]:
    """What the numbers are measured on."""
    information = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    models = {line.split(":")[1].strip() for line in information if line.startswith("model name")}
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    cold = touch_memory()
    warm = min(touch_memory() for _ in range(3))
    return [
        (
            f"{', '.join(models) or platform.machine()}, {os.cpu_count()} cores,"
            f" {psutil.virtual_memory().total / 2**30:.0f} GiB"
        ),
        f"Python {platform.python_version()}, {versions}",
        f"touching a GiB of memory: {cold:.2f} s the first time, {warm:.2f} s again",
    ]


class Clock:
    """Times named steps over rounds; `best` has each step's shortest time."""

    def __init__(self) -> None:
        self.best: dict[str, float] = {}

    def time(self, step: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        spent = time.perf_counter() - started
        self.best[step] = min(spent, self.best.get(step, spent))
        return result
