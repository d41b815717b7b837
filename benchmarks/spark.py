"""`count` on Spark against two local processes, and against a plain job with DataFrames.

The cluster is that of deploy/spark: two workers of a core each, all on this machine. Each command
runs on a tiny corpus, too, which is its start-up.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import data, measure

_CLUSTER = pathlib.Path(__file__).parents[1] / "deploy" / "spark" / "cluster.py"
_MAX_ORDER = 4
_TOP_K = 8
_TINY = 20_000
# The DataFrames' executors work in Java, ours outside of it.
_EXECUTOR_MEMORY = "3g"
_PYTHON = (sys.executable, "-m")
_KEEP = ("--min-count", "1", "--top-k", str(_TOP_K))


class Spark(NamedTuple):
    """A cluster that is up: its processes, and what makes a command of ours run on it."""

    leaders: list[int]
    options: tuple[str, ...]


class Measured(NamedTuple):
    """Seconds of a command on a tiny corpus and on the whole one, and its peak memory."""

    started: float
    whole: float
    gib: float
    own_gib: float

    @property
    def work(self) -> float:
        if self.whole <= self.started:
            raise SystemExit(
                f"starting took {self.started:.0f} s, all {self.whole:.0f} s: measure again where"
                " nothing else runs, or with more --tokens"
            )
        return self.whole - self.started


@contextlib.contextmanager
def cluster() -> Iterator[Spark]:
    """A cluster that this process and its children are configured for."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(_CLUSTER), "--folder", folder, "--memory", _EXECUTOR_MEMORY]
        subprocess.run([*command, "up"], check=True, stdout=subprocess.DEVNULL)
        try:
            state = json.loads(pathlib.Path(folder, "cluster.json").read_text())
            os.environ |= {
                "SPARK_CONF_DIR": f"{folder}/conf",
                "SPARK_LOCAL_IP": "127.0.0.1",
                "PYSPARK_SUBMIT_ARGS": f"--master {state['master']}"
                f" --executor-memory {_EXECUTOR_MEMORY} pyspark-shell",
            }
            runner = ("--runner", "pipelines.spark.PySparkRunner")
            yield Spark(
                [leader for leader, _ in state["sessions"]],
                (*runner, "--spark_master_url", state["master"]),
            )
        finally:
            subprocess.run([*command, "down"], check=True)


def job(name: str, source: str, output: str, *options: str) -> list[str]:
    """A command of corpusmill."""
    return [*_PYTHON, "pipelines.cli", name, "--input", source, "--output", output, *options]


def watched(command: Sequence[str], beside: Sequence[int]) -> tuple[float, int, int]:
    """As `measure.run_watched`, with a new folder in the place of OUTPUT."""
    with tempfile.TemporaryDirectory() as folder:
        return measure.run_watched([p.replace("OUTPUT", folder) for p in command], beside)


def measured(
    tiny: Sequence[str], command: Sequence[str], beside: Sequence[int], repeat: int
) -> Measured:
    started = min(watched(tiny, beside)[0] for _ in range(repeat))
    whole, resident, own = min(watched(command, beside) for _ in range(repeat))
    return Measured(started, whole, resident / 2**30, own / 2**30)


def count(tokens: str, size: int, *options: str) -> list[str]:
    # Runs enough for two workers to share.
    cut = ("--max-order", str(_MAX_ORDER), "--run-tokens", str(size // 8))
    return job("count", tokens, "OUTPUT/counts", *cut, *options)


def against_processes(spark: Spark, tokens: str, tiny: str, size: int, repeat: int) -> None:
    local = ("--workers", "2")
    rows = {
        "two local processes": measured(
            count(tiny, size, *local), count(tokens, size, *local), (), repeat
        ),
        "Spark, two workers": measured(
            count(tiny, size, *spark.options),
            count(tokens, size, *spark.options),
            spark.leaders,
            repeat,
        ),
    }
    print_rows(f"count, contexts of up to {_MAX_ORDER} tokens, {size:,} tokens", rows)
    processes, on_spark = rows.values()
    ratio = on_spark.work / processes.work
    measure.print_goal("count on Spark over local processes, once started", ratio, at_most=1.5)


def against_dataframes(spark: Spark, tokens: str, tiny: str, size: int, repeat: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        counts = {source: f"{folder}/{number}" for number, source in enumerate((tokens, tiny))}
        for source, output in counts.items():
            options = ("--max-order", str(_MAX_ORDER))
            subprocess.run(job("count", source, output, *options), check=True, capture_output=True)

        def distributions(source: str) -> list[str]:
            return job("distributions", counts[source], "OUTPUT/tables", *_KEEP, *spark.options)

        def dataframe(source: str) -> list[str]:
            sizes = ("--max-order", str(_MAX_ORDER), "--top-k", str(_TOP_K))
            plain = plain_copy(source, f"{counts[source]}-plain")
            return [*_PYTHON, "benchmarks.dataframe", plain, "OUTPUT/contexts", *sizes]

        rows = {
            "count": measured(
                count(tiny, size, *spark.options),
                count(tokens, size, *spark.options),
                spark.leaders,
                repeat,
            ),
            "distributions": measured(
                distributions(tiny), distributions(tokens), spark.leaders, repeat
            ),
            "a job with DataFrames": measured(dataframe(tiny), dataframe(tokens), spark.leaders, 1),
        }
    print_rows(
        f"on Spark, two workers: the {_TOP_K} most frequent tokens after each context of 1 to"
        f" {_MAX_ORDER} tokens, {size:,} tokens",
        rows,
    )
    ours, tables, plain = rows.values()
    measure.print_goal(
        "count against DataFrames, times as fast", plain.work / ours.work, at_least=30
    )
    both = plain.work / (ours.work + tables.work)
    print(f"count and distributions together: {both:.3g} times as fast as DataFrames")


def plain_copy(tokens: str, folder: str) -> str:
    """The tokens as integers in Parquet as pyarrow writes it; Spark 3.5 lacks our encoding."""
    pathlib.Path(folder).mkdir()
    for path in sorted(pathlib.Path(tokens).glob("*.parquet")):
        column = pq.read_table(path, columns=["tokens"])["tokens"].cast(pa.list_(pa.int32()))
        pq.write_table(pa.table({"tokens": column}), f"{folder}/{path.name}")
    return folder


def print_rows(title: str, rows: dict[str, Measured]) -> None:
    columns = ("", "started, s", "whole, s", "difference, s", "peak, GiB", "without files, GiB")
    measure.print_table(
        f"{title}; started: the same on {_TINY:,} tokens",
        columns,
        [(n, r.started, r.whole, r.work, r.gib, r.own_gib) for n, r in rows.items()],
    )


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("spark", __doc__, 10_000_000)
    parser.add_argument("--slice-tokens", type=int, default=5_000_000, help="for DataFrames")
    arguments = parser.parse_args(argv)
    tiny, tokens, part = (
        data.tokens_dataset(size, arguments.corpus)
        for size in (_TINY, arguments.tokens, arguments.slice_tokens)
    )
    with cluster() as spark:
        against_processes(spark, tokens, tiny, arguments.tokens, arguments.repeat)
        against_dataframes(spark, part, tiny, arguments.slice_tokens, arguments.repeat)


if __name__ == "__main__":
    main(sys.argv[1:])
