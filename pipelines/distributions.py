"""counts dataset -> distributions dataset

Every partition of the counts is scanned once for the contexts of all orders. The few contexts that
a cut between partitions divides (the empty one, and the prefixes of the cuts) are combined from all
partitions and written to a last file of their order.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator
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
from corpusmill.corpus.progress import Progress
from corpusmill.ngram_agg import tables
from corpusmill.ngram_agg.counts_files import counts_packing, read_counts, token_columns
from corpusmill.ngram_agg.distributions import (
    DistributionOptions,
    distribution_row,
    scan_distributions,
    split_children,
    split_contexts,
)
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.partitions import Cut
from corpusmill.ngram_agg.runs import CountsRun, merge_runs
from corpusmill.pipelines.counts_merging import add_run
from corpusmill.pipelines.launching.options import RunOptions

if TYPE_CHECKING:
    import apache_beam as beam


@dataclasses.dataclass(frozen=True)
class DistributionsOptions:
    """Options of the `distributions` job.

    Attributes:
      input: folder of a counts dataset.
      output: folder of the distributions dataset.
      tables: what a table keeps.
    """

    input: str
    output: str
    tables: DistributionOptions = dataclasses.field(default_factory=DistributionOptions)


@dataclasses.dataclass(frozen=True)
class DistributionsPlan:
    """What there is to do."""

    options: DistributionsOptions
    manifest: Manifest

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
        return sum(file.rows for file in self.manifest.data_files)

    @property
    def writer(self) -> DatasetWriter:
        config = {
            "input": self.manifest.content_hash,
            **dataclasses.asdict(self.options.tables),
        }
        return DatasetWriter(self.options.output, "distributions", config)

    def describe(self) -> list[str]:
        keep = self.options.tables
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

    def file_name(self, order: int, part: int) -> str:
        """The file of a partition's contexts; part `partitions` has those that a cut divides."""
        return f"order={order}/{part_name(part, self.partitions + 1)}"


def make_plan(options: DistributionsOptions) -> DistributionsPlan:
    """Looks at the input; raises DatasetError where it is no counts dataset."""
    return DistributionsPlan(options, read_manifest(options.input, "counts"))


def build_pipeline(
    options: DistributionsOptions,
    run: RunOptions = RunOptions(),
    plan: DistributionsPlan | None = None,
) -> "beam.Pipeline":
    """The pipeline that writes the distributions into a folder that has been claimed."""
    import apache_beam as beam

    from corpusmill.pipelines.counts_parts import SumRuns
    from corpusmill.pipelines.transforms import SpreadOut, WriteManifest

    plan = plan or make_plan(options)
    plan.writer.copy_tokenizer(options.input, plan.manifest)
    pipeline = run.new_pipeline()
    (
        pipeline
        | "Partitions" >> SpreadOut(range(plan.partitions))
        | "Scan" >> beam.FlatMap(scan_partition, plan).with_output_types(tuple[Cut, CountsRun])
        | "CombineSplit" >> beam.CombinePerKey(SumRuns()).with_output_types(tuple[Cut, CountsRun])
        | "RowOfSplit" >> beam.Map(split_row, plan).with_output_types(tuple[int, pa.RecordBatch])
        | "SplitByOrder" >> beam.GroupByKey()
        | "WriteSplit" >> beam.Map(write_split, plan)
        | "AllComplete" >> beam.combiners.Count.Globally()
        | "WriteManifest" >> WriteManifest(plan.writer, _finish, plan)
    )
    return pipeline


def scan_partition(number: int, plan: DistributionsPlan) -> Iterator[tuple[Cut, CountsRun]]:
    """Writes the distributions of a partition's contexts, unless an earlier run has done it.

    Yields:
      For each context that a cut divides, this partition's part of it, with the tokens that
      follow.
    """
    lower, upper = [(), *plan.cuts][number], [*plan.cuts, ()][number]
    part = part_name(number, plan.partitions)
    pieces: dict[Cut, list[CountsRun]] = {c: [] for c in split_contexts(lower, upper)}

    def blocks() -> Iterator[CountsRun]:
        name = plan.manifest.data_files[number].name
        for block in read_counts(storage.join(plan.options.input, name), plan.packing):
            for context in pieces:
                pieces[context] = add_run(pieces[context], split_children(block, context))
            yield block

    if plan.writer.completion(part) is None:
        plan.writer.complete(part, _write_tables(blocks(), lower, upper, number, plan))
    else:
        for _ in blocks():
            pass
    for context, runs in pieces.items():
        yield context, merge_runs(runs)


def _write_tables(
    blocks: Iterable[CountsRun], lower: Cut, upper: Cut, number: int, plan: DistributionsPlan
) -> Completion:
    started = time.perf_counter()
    part = part_name(number, plan.partitions)
    progress = Progress(plan.writer, "distributions", part)
    orders = range(1, plan.packing.max_order + 1)
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(plan.writer.new_file(plan.file_name(order, number)))
            for order in orders
        ]
        outputs = [
            stack.enter_context(tables.open_writer(file.path, plan.packing, order))
            for file, order in zip(files, orders, strict=True)
        ]
        for rows_by_order in scan_distributions(
            _counted(blocks, progress), plan.options.tables, lower=lower, upper=upper
        ):
            for order, rows in zip(orders, rows_by_order, strict=True):
                outputs[order - 1].write(tables.rows_to_batch(plan.packing, order, rows))
                files[order - 1].tokens += int(rows.total.sum())
        for file, output in zip(files, outputs, strict=True):
            output.close()
            file.rows = output.rows
    progress.note()
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


def split_row(
    context: tuple[Cut, CountsRun], plan: DistributionsPlan
) -> tuple[int, pa.RecordBatch]:
    """The table row of a context that was divided, by its order."""
    order = len(context[0])
    rows = distribution_row(context[1], plan.options.tables)
    return order, tables.rows_to_batch(plan.packing, order, rows)


def write_split(rows: tuple[int, Iterable[pa.RecordBatch]], plan: DistributionsPlan) -> int:
    """Writes the contexts of one order that were divided; returns the order."""
    order, batches = rows
    part = _split_part(order)
    table = pa.Table.from_batches(batches)
    if order:
        table = table.sort_by([(name, "ascending") for name in token_columns(order, "context")])
    with plan.writer.new_file(plan.file_name(order, plan.partitions)) as file:
        with tables.open_writer(file.path, plan.packing, order) as output:
            for batch in table.to_batches():
                output.write(batch)
        file.rows = output.rows
        file.tokens = pc.sum(table["total"]).as_py() or 0
    files = (file.record,) if file.record else ()
    plan.writer.complete(part, Completion(files, {"contexts": file.rows}))
    return order


def _split_part(order: int) -> str:
    return f"split-order={order}"


def _finish(_: int, plan: DistributionsPlan) -> Manifest:
    parts = [part_name(number, plan.partitions) for number in range(plan.partitions)]
    split = plan.writer.completed_parts("split-")
    return plan.writer.finish(
        [TOKENIZER_FOLDER, *parts, *split],
        inputs={plan.options.input: plan.manifest.content_hash},
        tokenizer=plan.manifest.tokenizer,
        properties={
            "max_order": plan.packing.max_order,
            "tokens": plan.manifest.properties["tokens"],
            "top_k": plan.options.tables.top_k,
            "min_count": plan.options.tables.min_count,
        },
    )
