"""How fast are `count` and `distributions` through Beam, against the kernel and naive Beam?"""

import contextlib
import io
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import apache_beam as beam

from benchmarks import data, kernel
from benchmarks.measure import best_of, parse_tokens, show
from corpus.datasets import read_manifest
from corpus.storage import size
from pipelines import count, distributions
from pipelines.options import RunOptions

_NAIVE_TOKENS = 20_000


def run_job(tokens: str, *options: str) -> tuple[float, dict[str, float]]:
    """Seconds of `count` and `distributions` together, and their manifests' counters."""
    folder = tempfile.mkdtemp(dir=data.DATA)
    counts, tables = os.path.join(folder, "counts"), os.path.join(folder, "distributions")
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        order = ("--max-order", str(kernel.MAX_ORDER))
        count.main(["--input", tokens, "--output", counts, *order, *options])
        distributions.main(["--input", counts, "--output", tables, *options])
    seconds = time.perf_counter() - started
    counters = dict(read_manifest(counts).counters)
    counters["distribution_seconds"] = read_manifest(tables).counters["seconds"]
    shutil.rmtree(folder)
    return seconds, counters


def run_naively(documents: list[list[int]]) -> float:
    """Seconds of the pipeline that one would write first: an element an n-gram."""

    def ngrams(document: list[int]) -> list[tuple[tuple[int, ...], int]]:
        return [
            (tuple(document[i - order : i]), document[i])
            for order in range(1, kernel.MAX_ORDER + 1)
            for i in range(order, len(document))
        ]

    started = time.perf_counter()
    with RunOptions().new_pipeline() as pipeline:
        _ = (
            pipeline
            | "Documents" >> beam.Create(documents, reshuffle=False)
            | "Ngrams" >> beam.FlatMap(ngrams)
            | "Count" >> beam.combiners.Count.PerElement()
            | "ByContext" >> beam.MapTuple(lambda ngram, n: (ngram[0], (n, -ngram[1])))
            | "Top" >> beam.combiners.Top.LargestPerKey(kernel.TOP_K)
            | "Write" >> beam.io.WriteToText(tempfile.mktemp(dir=data.DATA))
        )
    return time.perf_counter() - started


def fastest(repeats: int, run: Callable[[], tuple[float, dict[str, float]]]):
    return min((run() for _ in range(repeats)), key=lambda result: result[0])


def main(argv: Sequence[str] | None = None) -> None:
    wanted = parse_tokens(argv, __doc__)
    corpus = data.token_array(wanted)
    tokens = data.tokens_dataset(wanted)
    tiny = data.tokens_dataset(10_000)
    rate = len(corpus[0]) / 1e6

    counting, run = best_of(3, lambda: kernel.count(corpus))
    alone = counting + best_of(3, lambda: kernel.scan(run))[0]
    run_job(tiny)
    start_up, _ = fastest(3, lambda: run_job(tiny))
    through_beam, counters = fastest(3, lambda: run_job(tokens))

    documents, first = [], 0
    for last in (corpus[0] == corpus[2]).nonzero()[0] + 1:
        documents.append(corpus[0][first:last].tolist())
        first = last
        if first >= _NAIVE_TOKENS:
            break
    naive_start_up = run_naively(documents[:1])
    naive = (run_naively(documents) - naive_start_up) / first

    per_token = through_beam / len(corpus[0])
    show(
        [
            ("count + distributions", "seconds", "million tokens/s", "of the kernel"),
            ("kernel alone, one core", f"{alone:.2f}", f"{rate / alone:.1f}", "100%"),
            (
                "through Beam, in process",
                f"{through_beam:.2f}",
                f"{rate / through_beam:.1f}",
                f"{alone / through_beam:.0%} (goal 50%)",
            ),
            (
                "  less the start-up of its pipelines",
                f"{through_beam - start_up:.2f}",
                f"{rate / (through_beam - start_up):.1f}",
                f"{alone / (through_beam - start_up):.0%}",
            ),
            (
                f"naive Beam, {first:,} tokens, less start-up",
                "",
                f"{1 / naive / 1e6:.4f}",
                f"through Beam is {naive / per_token:.0f} times faster (goal 500)",
            ),
        ]
    )
    show(
        [
            ("where the time goes", "ns/token"),
            *(
                (name.replace("_", " "), f"{counters[name] * 1e3 / rate:.0f}")
                for name in ("count_seconds", "merge_seconds", "distribution_seconds")
            ),
            ("start-up of two pipelines", f"{start_up * 1e3 / rate:.0f}"),
        ]
    )
    # Once started: a job of a few tokens with as many workers is start-up alone.
    seconds = {}
    for workers in ("1", "2"):
        options = ("--workers", "2") if workers == "2" else ()
        idle, _ = fastest(2, lambda options=options: run_job(tiny, *options))
        busy, _ = fastest(2, lambda options=options: run_job(tokens, *options))
        seconds[workers] = busy - idle
    show(
        [
            ("workers", "seconds once started", "ratio"),
            ("1 (in process)", f"{seconds['1']:.2f}", "1.0"),
            ("2 processes", f"{seconds['2']:.2f}", f"{seconds['1'] / seconds['2']:.2f} (goal 1.6)"),
        ]
    )
    print(
        f"input: {size(os.path.join(tokens, 'part-00000-of-00001.parquet')) / 1e6:.0f} MB of tokens"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
