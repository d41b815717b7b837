"""counts dataset -> distributions dataset

Every partition of the counts is scanned once for the contexts of all orders. The few contexts that
a cut between partitions divides (the empty one, and the prefixes of the cuts) are combined from all
partitions and written to a last file of their order.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.corpus import storage
from corpusmill.corpus.datasets import (
    TOKENIZER_FOLDER,
    Completion,
    DatasetWriter,
    Manifest,
    part_name,
    read_manifest,
)
from corpusmill.corpus.options import FOLDER, option
from corpusmill.corpus.progress import Progress, Stage
from corpusmill.ngram_agg import tables
from corpusmill.ngram_agg.counts_files import counts_packing, read_counts, token_columns
from corpusmill.ngram_agg.counts_runs import CountsRun
from corpusmill.ngram_agg.distributions import (
    DistributionOptions,
    distribution_row,
    scan_distributions,
    split_children,
    split_contexts,
)
from corpusmill.ngram_agg.merging import merge_runs
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.partitions import Cut
from corpusmill.pipelines.counts_merging import add_run
from corpusmill.pipelines.launching.local_workers import Workers, grouped

if TYPE_CHECKING:
    import apache_beam as beam

_SPLIT = "split-"


@dataclasses.dataclass(frozen=True)
class DistributionsJob:
    """Writes the most frequent next tokens of every context of a counts dataset.

    Attributes:
      tables: what a table keeps.

    Raises:
      DatasetError: there is no counts dataset.
    """

    counts: str = option("folder or URL of a counts dataset", metavar=FOLDER)
    output: str = option("folder or URL of the distributions dataset", metavar=FOLDER)
    tables: DistributionOptions = dataclasses.field(default_factory=DistributionOptions)

    def __post_init__(self) -> None:
        _ = self.manifest

    @cached_property
    def manifest(self) -> Manifest:
        return read_manifest(self.counts, "counts")

    @property
    def packing(self) -> Packing:
        return counts_packing(self.manifest)

    @property
    def cuts(self) -> list[Cut]:
        return [tuple(cut) for cut in self.manifest.properties["cuts"]]

    @property
    def partitions(self) -> int:
        return len(self.cuts) + 1

    @property
    def ngrams(self) -> int:
        return self.manifest.rows

    @property
    def writer(self) -> DatasetWriter:
        config = {"input": self.manifest.content_hash, **dataclasses.asdict(self.tables)}
        return DatasetWriter(self.output, "distributions", config)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (Stage("distributions", "n-grams", self.ngrams),)

    def describe(self) -> list[str]:
        keep = self.tables
        return [
            (
                f"input: {self.ngrams:,} n-grams of {self.manifest.properties['tokens']:,} tokens"
                f" in {self.partitions} partitions"
            ),
            (
                f"keeping the {keep.top_k} most frequent next tokens of contexts of 0 to"
                f" {self.packing.max_order} tokens seen {keep.min_count} times or more"
            ),
        ]

    def prepare(self) -> None:
        self.writer.copy_tokenizer(self.counts, self.manifest)

    def work_here(self, workers: Workers) -> None:
        scanned = workers.map(scan_partition, range(self.partitions), self)
        split = grouped(itertools.chain.from_iterable(scanned))
        rows = grouped(split_row((each, merge_runs(runs)), self) for each, runs in split.items())
        for each in rows.items():
            write_split(each, self)

    def expand(self, pipeline: "beam.Pipeline") -> "beam.PCollection":
        import apache_beam as beam

        from corpusmill.pipelines.counts_parts import SumRuns
        from corpusmill.pipelines.transforms import SpreadOut

        split, row = tuple[Cut, CountsRun], tuple[int, pa.RecordBatch]
        return (
            pipeline
            | "Partitions" >> SpreadOut(range(self.partitions))
            | "Scan" >> beam.FlatMap(scan_partition, self).with_output_types(split)
            | "CombineSplit" >> beam.CombinePerKey(SumRuns()).with_output_types(split)
            | "RowOfSplit" >> beam.Map(split_row, self).with_output_types(row)
            | "SplitByOrder" >> beam.GroupByKey()
            | "WriteSplit" >> beam.Map(write_split, self)
            | "AllComplete" >> beam.combiners.Count.Globally()
        )

    def finish(self, _: object) -> Manifest:
        parts = [part_name(number, self.partitions) for number in range(self.partitions)]
        split = self.writer.completed_parts(_SPLIT)
        return self.writer.finish(
            self.writer.completed([TOKENIZER_FOLDER, *parts, *split]),
            inputs={self.counts: self.manifest.content_hash},
            tokenizer=self.manifest.tokenizer,
            properties={
                "max_order": self.packing.max_order,
                "tokens": self.manifest.properties["tokens"],
                **dataclasses.asdict(self.tables),
            },
        )

    def file_name(self, order: int, part: int) -> str:
        """The file of a partition's contexts; part `partitions` has those that a cut divides."""
        return f"{tables.order_folder(order)}/{part_name(part, self.partitions + 1)}"


def scan_partition(number: int, job: DistributionsJob) -> list[tuple[Cut, CountsRun]]:
    """Writes the distributions of a partition's contexts, unless an earlier run has done it.

    Returns:
      For each context that a cut divides, this partition's part of it, with the tokens that
      follow.
    """
    lower, upper = [(), *job.cuts][number], [*job.cuts, ()][number]
    part = part_name(number, job.partitions)
    pieces: dict[Cut, list[CountsRun]] = {c: [] for c in split_contexts(lower, upper)}

    def blocks() -> Iterator[CountsRun]:
        name = job.manifest.data_files[number].name
        for block in read_counts(storage.join(job.counts, name), job.packing):
            for context in pieces:
                pieces[context] = add_run(pieces[context], split_children(block, context))
            yield block

    if job.writer.completion(part) is None:
        job.writer.complete(part, _write_tables(blocks(), lower, upper, number, job))
    else:
        for _ in blocks():
            pass
    return [(context, merge_runs(runs)) for context, runs in pieces.items()]


def _write_tables(
    blocks: Iterable[CountsRun], lower: Cut, upper: Cut, number: int, job: DistributionsJob
) -> Completion:
    started = time.perf_counter()
    part = part_name(number, job.partitions)
    progress = Progress(job.writer, "distributions", part)
    orders = range(1, job.packing.max_order + 1)
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(job.writer.new_file(job.file_name(order, number)))
            for order in orders
        ]
        outputs = [
            stack.enter_context(tables.open_writer(file.path, job.packing, order))
            for file, order in zip(files, orders, strict=True)
        ]
        for rows_by_order in scan_distributions(
            _counted(blocks, progress), job.tables, lower=lower, upper=upper
        ):
            for order, rows in zip(orders, rows_by_order, strict=True):
                outputs[order - 1].write(tables.rows_to_batch(job.packing, order, rows))
                files[order - 1].tokens += int(rows.total.sum())
        for file, output in zip(files, outputs, strict=True):
            output.close()
            file.rows = output.rows
    progress.finish()
    counters = {
        "ngrams": progress.done,
        "contexts": sum(file.rows for file in files),
        "seconds": time.perf_counter() - started,
    }
    return Completion(tuple(file.record for file in files if file.record), counters)


def _counted(blocks: Iterable[CountsRun], progress: Progress) -> Iterator[CountsRun]:
    for block in blocks:
        yield block
        progress.add(len(block))


def split_row(context: tuple[Cut, CountsRun], job: DistributionsJob) -> tuple[int, pa.RecordBatch]:
    """The table row of a context that was divided, by its order."""
    order = len(context[0])
    rows = distribution_row(context[1], job.tables)
    return order, tables.rows_to_batch(job.packing, order, rows)


def write_split(rows: tuple[int, Iterable[pa.RecordBatch]], job: DistributionsJob) -> int:
    """Writes the contexts of one order that were divided; returns the order."""
    order, batches = rows
    part = f"{_SPLIT}{tables.order_folder(order)}"
    table = pa.Table.from_batches(batches)
    if order:
        table = table.sort_by([(name, "ascending") for name in token_columns(order, "context")])
    with job.writer.new_file(job.file_name(order, job.partitions)) as file:
        with tables.open_writer(file.path, job.packing, order) as output:
            for batch in table.to_batches():
                output.write(batch)
        file.rows = output.rows
        file.tokens = pc.sum(table["total"]).as_py() or 0
    files = (file.record,) if file.record else ()
    job.writer.complete(part, Completion(files, {"contexts": file.rows}))
    return order
