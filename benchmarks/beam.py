"""`count` and `distributions` through Beam against the kernel, and against a naive pipeline.

Also: two worker processes without Beam against one, and where the time goes.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from benchmarks import data, kernel, measure
from corpusmill.corpus import storage
from corpusmill.ngram_agg import DistributionOptions, Packing, count_ngrams, merge_streams, tables
from corpusmill.ngram_agg.counts_files import read_counts, read_spilled, spill_runs, write_counts
from corpusmill.ngram_agg.distributions import scan_distributions
from corpusmill.ngram_agg.partitions import merge_samples, sample_stream
from corpusmill.pipelines import count, distributions
from corpusmill.pipelines.launching.launch import run_job
from corpusmill.pipelines.launching.options import RunOptions

_TINY = 20_000
_MAX_ORDER = 4
_BEAM = RunOptions(beam_arguments=("--runner=FnApiRunner",))


def run_jobs(tokens: str, run: RunOptions = _BEAM, **sizes: int) -> tuple[float, float]:
    """Seconds of `count` and of `distributions` into a new folder."""
    with tempfile.TemporaryDirectory() as folder, measure.silence():
        counts = f"{folder}/counts"
        first = count.CountJob(tokens, counts, _MAX_ORDER, **sizes)
        counting = measure.seconds(lambda: run_job(first, run), 1)
        second = distributions.DistributionsJob(counts, f"{folder}/tables")
        return counting, measure.seconds(lambda: run_job(second, run), 1)


def best_of(repeat: int, work: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    return min((work() for _ in range(repeat)), key=sum)


def naive_seconds(tokens: data.Tokens, packing: Packing) -> float:
    """A pipeline as one would write it first: an element an n-gram."""
    ends = (tokens == packing.end_of_document).nonzero()[0] + 1
    starts = [0, *ends[:-1].tolist()]
    documents = [tokens[a:b].tolist() for a, b in zip(starts, ends.tolist(), strict=True)]

    def ngrams(document: list[int]) -> Iterator[tuple[tuple[int, ...], int]]:
        for i in range(len(document)):
            for order in range(1, min(_MAX_ORDER, i) + 1):
                yield tuple(document[i - order : i]), document[i]

    def run() -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            beam.Pipeline("FnApiRunner", PipelineOptions([])) as p,
        ):
            counts = (
                p
                | beam.Create(documents, reshuffle=False)
                | beam.FlatMap(ngrams)
                | beam.combiners.Count.PerElement()
                | beam.MapTuple(lambda ngram, seen: (ngram[0], (seen, -ngram[1])))
            )
            top = counts | beam.combiners.Top.PerKey(8)
            total = counts | beam.MapTuple(lambda c, n: (c, n[0])) | beam.CombinePerKey(sum)
            joined = {"top": top, "total": total} | beam.CoGroupByKey()
            kept = joined | beam.Filter(lambda row: next(iter(row[1]["total"])) > 1)
            _ = kept | beam.Map(str) | beam.io.WriteToText(f"{folder}/tables")

    return measure.seconds(run, 1)


def steps(dataset: str, packing: Packing, repeat: int) -> dict[str, float]:
    """Seconds of what the two jobs do, step by step, without Beam."""
    job = count.CountJob(dataset, "", _MAX_ORDER)
    files = [file.name for file in job.manifest.data_files]
    run_tokens = job.run_tokens
    clock = measure.Clock()
    with tempfile.TemporaryDirectory() as folder:
        spilled: list[str] = []

        def spill(run: object) -> None:
            spilled.append(f"{folder}/{len(spilled)}.arrow")
            spill_runs(spilled[-1], packing, [run])

        for _ in range(repeat):
            measure.touch_memory()
            stretches = list(count.cut_stretches(files, dataset, run_tokens))
            reading = (count.token_blocks(s, dataset, run_tokens, packing) for s in stretches)
            blocks = clock.time("read tokens", lambda r=reading: [b for s in r for b in s])
            spilled.clear()
            runs = clock.time("count", lambda b=blocks: [_count(*each, packing) for each in b])
            del blocks
            clock.time("spill", lambda r=runs: [spill(run) for run in r])
            del runs
            _merge_and_scan(clock, folder, spilled, packing)
    return clock.best


def _count(tokens: data.Tokens, starts: int, packing: Packing) -> object:
    return count_ngrams(
        tokens,
        max_order=packing.max_order,
        vocabulary_size=packing.vocabulary_size,
        end_of_document=packing.end_of_document,
        starts=starts,
    )


def _merge_and_scan(
    clock: measure.Clock, folder: str, spilled: Sequence[str], packing: Packing
) -> None:
    def samples() -> object:
        return merge_samples([sample_stream(read_spilled(path, packing)) for path in spilled])

    def write_tables(blocks: Iterable[list[tables.DistributionRows]]) -> None:
        writers = [
            tables.open_writer(f"{folder}/{order}.parquet", packing, order) for order in orders
        ]
        for block in blocks:
            for writer, order, rows in zip(writers, orders, block, strict=True):
                writer.write(tables.rows_to_batch(packing, order, rows))
        for writer in writers:
            writer.close()

    orders = range(1, packing.length)
    counts = f"{folder}/counts.parquet"
    clock.time("sample", samples)
    streams = [read_spilled(path, packing) for path in spilled]
    merged = clock.time("merge", lambda: list(merge_streams(streams)))
    clock.time("write counts", lambda: write_counts(counts, packing, merged))
    merged = []  # gives its memory back
    blocks = clock.time("read counts", lambda: list(read_counts(counts, packing)))
    keep = DistributionOptions()
    rows = clock.time("scan", lambda: list(scan_distributions(blocks, keep)))
    clock.time("write tables", lambda: write_tables(rows))
    names = [counts, *(f"{folder}/{order}.parquet" for order in orders)]
    clock.time("sha256", lambda: [storage.sha256(name) for name in names])


def compare_workers(arguments: argparse.Namespace, tiny: str) -> float:
    """How many times as fast two worker processes are as one, once they have started."""
    # Starting takes seconds that vary, so the work has to take many more.
    dataset = data.tokens_dataset(arguments.workers_tokens, arguments.corpus)
    rows = []
    for workers in (1, 2):
        run = RunOptions(workers)
        start = best_of(arguments.repeat, lambda run=run: run_jobs(tiny, run))
        jobs = best_of(arguments.repeat, lambda run=run: run_jobs(dataset, run))
        rows.append((f"{workers}", sum(start), sum(jobs), sum(jobs) - sum(start)))
    measure.print_table(
        f"worker processes, {arguments.workers_tokens:,} tokens; started: a run on 20,000 tokens",
        ("workers", "started, s", "whole, s", "difference, s"),
        rows,
    )
    return rows[0][3] / rows[1][3]


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("beam", __doc__, 20_000_000)
    parser.add_argument("--naive-tokens", type=int, default=100_000, help="for the naive pipeline")
    parser.add_argument("--workers-tokens", type=int, default=240_000_000, help="for two workers")
    arguments = parser.parse_args(argv)
    repeat = arguments.repeat
    dataset = data.tokens_dataset(arguments.tokens, arguments.corpus)
    tiny = data.tokens_dataset(min(_TINY, arguments.tokens), arguments.corpus)
    tokens, packing = data.load_tokens(arguments.tokens, arguments.corpus)
    size = len(tokens)
    run_jobs(tiny)  # compiles and imports
    alone = measure.seconds(lambda: kernel.scan(kernel.count(tokens, packing)), repeat)
    started = best_of(repeat, lambda: run_jobs(tiny))
    whole = best_of(repeat, lambda: run_jobs(dataset))
    naive_size = min(arguments.naive_tokens, size)
    few = data.load_tokens(naive_size, arguments.corpus)[0]
    naive = naive_seconds(few, packing) / len(few) * size
    work = sum(whole) - sum(started)
    print_rows = {
        "kernel alone": alone,
        "count through Beam": whole[0],
        "distributions through Beam": whole[1],
        "both": sum(whole),
        "both, less a run on 20,000 tokens": work,
        f"naive Beam (from {len(few):,} tokens)": naive,
    }
    measure.print_table(
        f"contexts of 1 to 4 tokens, {size:,} tokens, FnApiRunner in this process",
        ("", "seconds", "ns/token", "kernel = 1"),
        [(name, s, s * 1e9 / size, s / alone) for name, s in print_rows.items()],
    )
    measure.print_table(
        "the same steps called one after the other, without Beam (whole corpus in memory)",
        ("", "ns/token", "kernel = 1"),
        [(n, s * 1e9 / size, s / alone) for n, s in steps(dataset, packing, repeat).items()],
    )
    speedup = compare_workers(arguments, tiny)
    measure.print_goal("Beam's share of the kernel's speed", alone / work, at_least=0.5)
    measure.print_goal("Beam's share, start-up included", alone / sum(whole), at_least=0.5)
    measure.print_goal("times as fast as naive Beam", naive / sum(whole), at_least=500)
    measure.print_goal("two worker processes, once started", speedup, at_least=1.6)


if __name__ == "__main__":
    main(sys.argv[1:])
