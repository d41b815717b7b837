"""`count` on Spark against two local processes, and against a plain job with DataFrames.

The cluster is that of deploy/cluster.py: two workers of a core each, all on this machine. Each
command runs on a tiny corpus, too, which is its start-up.
"""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import data, measure

_CLUSTER = pathlib.Path(__file__).parents[1] / "deploy" / "cluster.py"
_JAR = _CLUSTER.parent / "spark" / "target" / "spark-job-server.jar"
_MAX_ORDER = 4
_TOP_K = 8
_TINY = 20_000
# The DataFrames' executors work in Java, ours outside of it.
_EXECUTOR_MIB = 3072
_PYTHON = (sys.executable, "-m")
_KEEP = ("--min-count", "1", "--top-k", str(_TOP_K))


class Spark(NamedTuple):
    """A cluster that is up: its processes, and what makes a command of ours run on it."""

    leaders: list[int]
    options: tuple[str, ...]


class Measured(NamedTuple):
    """Seconds of a command on a tiny corpus and on one of `tokens`, and its peak memory."""

    tokens: int
    started: float
    whole: float
    gib: float
    own_gib: float

    @property
    def work(self) -> float:
        """Seconds without the start."""
        # A start takes a second or two more or less each time.
        if self.whole < 1.3 * self.started:
            raise SystemExit(
                f"starting took {self.started:.0f} s, all {self.whole:.0f} s: measure again where"
                " nothing else runs, or with more --tokens"
            )
        return self.whole - self.started

    @property
    def rate(self) -> float:
        """Million tokens a second, without the start."""
        return self.tokens / self.work / 1e6


@contextlib.contextmanager
def cluster() -> Iterator[Spark]:
    """A cluster that this process and its children are configured for."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(_CLUSTER), "spark", "--folder", folder]
        memory = ("--memory", str(_EXECUTOR_MIB))
        subprocess.run([*command, *memory, "up"], check=True, stdout=subprocess.DEVNULL)
        try:
            state = json.loads(pathlib.Path(folder, "cluster.json").read_text())
            os.environ |= {
                "SPARK_LOCAL_IP": "127.0.0.1",
                "PYSPARK_SUBMIT_ARGS": f"--master {state['master']}"
                f" --executor-memory {_EXECUTOR_MIB}m pyspark-shell",
            }
            runner = ("--runner", "SparkRunner", "--spark_job_server_jar", str(_JAR))
            yield Spark(
                [leader for leader, _ in state["sessions"]],
                (*runner, "--spark_master_url", state["master"]),
            )
        finally:
            subprocess.run([*command, "down"], check=True)


def job(name: str, source: str, output: str, *options: str) -> list[str]:
    """A command of corpusmill."""
    return [
        *_PYTHON,
        "corpusmill.commands.cli",
        name,
        "--tokens",
        source,
        "--output",
        output,
        *options,
    ]


def watched(command: Sequence[str], beside: Sequence[int]) -> tuple[float, int, int]:
    """As `measure.run_watched`, with a new folder in the place of OUTPUT."""
    with tempfile.TemporaryDirectory() as folder:
        return measure.run_watched([p.replace("OUTPUT", folder) for p in command], beside)


def measured(
    command: Callable[[str], list[str]],
    datasets: tuple[str, str],
    tokens: int,
    beside: Sequence[int],
    repeat: int,
) -> Measured:
    """A command for a tiny dataset and for one of so many tokens."""
    tiny, whole = map(command, datasets)
    started = min(watched(tiny, beside)[0] for _ in range(repeat))
    seconds, resident, own = min(watched(whole, beside) for _ in range(repeat))
    return Measured(tokens, started, seconds, resident / 2**30, own / 2**30)


def measure_all(
    spark: Spark, tiny: str, whole: str, part: str, arguments: argparse.Namespace
) -> dict[str, Measured]:
    """By what is run; DataFrames get a part of the tokens, with which they are busy long enough."""
    size, repeat = arguments.tokens, arguments.repeat
    order = ("--max-order", str(_MAX_ORDER))

    def count_on(*options: str, beside: Sequence[int] = ()) -> Measured:
        # Runs enough for two workers to share.
        cut = (*order, "--run-tokens", str(size // 8), *options)

        def count(tokens: str) -> list[str]:
            return job("count", tokens, "OUTPUT/counts", *cut)

        return measured(count, (tiny, whole), size, beside, repeat)

    with tempfile.TemporaryDirectory() as folder:
        counts = f"{folder}/tiny", f"{folder}/whole"
        for source, output in zip((tiny, whole), counts, strict=True):
            command = job("count", source, output, *order, "--workers", "2")
            subprocess.run(command, check=True, capture_output=True)

        def distributions(counts: str) -> list[str]:
            return job("distributions", counts, "OUTPUT/tables", *_KEEP, *spark.options)

        def dataframe(tokens: str) -> list[str]:
            plain = f"{folder}/plain-{pathlib.Path(tokens).name}"
            if not pathlib.Path(plain).exists():
                plain_copy(tokens, plain)
            sizes = (*order, "--top-k", str(_TOP_K))
            return [*_PYTHON, "benchmarks.dataframe", plain, "OUTPUT/contexts", *sizes]

        return {
            "count, two local processes": count_on("--workers", "2"),
            "count, Spark": count_on(*spark.options, beside=spark.leaders),
            "distributions, Spark": measured(distributions, counts, size, spark.leaders, repeat),
            "a job with DataFrames, Spark": measured(
                dataframe, (tiny, part), arguments.slice_tokens, spark.leaders, 1
            ),
        }


def plain_copy(tokens: str, folder: str) -> None:
    """The tokens as integers in Parquet as pyarrow writes it; Spark 3.5 lacks our encoding."""
    pathlib.Path(folder).mkdir()
    for path in sorted(pathlib.Path(tokens).glob("*.parquet")):
        column = pq.read_table(path, columns=["tokens"])["tokens"].cast(pa.list_(pa.int32()))
        pq.write_table(pa.table({"tokens": column}), f"{folder}/{path.name}")


def print_results(rows: dict[str, Measured]) -> None:
    columns = ("", "million tokens", "started, s", "whole, s", "million tokens/s, once started")
    measure.print_table(
        f"the {_TOP_K} most frequent tokens after each context of up to {_MAX_ORDER} tokens; Spark"
        f" with two workers; started: the same on {_TINY:,} tokens",
        (*columns, "peak, GiB", "without files, GiB"),
        [
            (name, row.tokens / 1e6, row.started, row.whole, row.rate, row.gib, row.own_gib)
            for name, row in rows.items()
        ],
    )
    processes, count, distributions, dataframes = (row.rate for row in rows.values())
    measure.print_goal("count on Spark, times as long", processes / count, at_most=1.5)
    measure.print_goal("count against DataFrames, times as fast", count / dataframes, at_least=30)
    both = 1 / (1 / count + 1 / distributions)
    print(f"count and distributions together: {both / dataframes:.3g} times as fast as DataFrames")


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("spark", __doc__, 240_000_000, repeat=2)
    parser.add_argument("--slice-tokens", type=int, default=20_000_000, help="for DataFrames")
    arguments = parser.parse_args(argv)
    tiny, whole, part = (
        data.tokens_dataset(size, arguments.corpus)
        for size in (_TINY, arguments.tokens, arguments.slice_tokens)
    )
    with cluster() as spark:
        print_results(measure_all(spark, tiny, whole, part, arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
