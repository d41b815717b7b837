"""tokens dataset + counts dataset -> targets dataset"""

import dataclasses
import math
from functools import partial
from typing import TYPE_CHECKING

from corpusmill.corpus.datasets import (
    TOKENIZER_FOLDER,
    DatasetWriter,
    Manifest,
    describe_differences,
    read_manifest,
)
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.progress import Stage
from corpusmill.ngram_agg.counts_files import counts_packing
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.ngram_agg.targets import TargetTable
from corpusmill.pipelines.launching.here import LocalJob
from corpusmill.pipelines.launching.options import RunOptions
from corpusmill.pipelines.target_joins import TokenFiles, write_with_table
from corpusmill.pipelines.target_tables import (
    TargetTables,
    make_one_table,
    open_one_table,
    write_one_table,
)

if TYPE_CHECKING:
    import apache_beam as beam

# Of a table, for each n-gram of a counts dataset (python -m benchmarks.enrich).
_BYTES_PER_NGRAM = 24
_BYTES_PER_NGRAM_WITH_RARE_CONTEXTS = 64
# What a worker takes besides its table, and what many tables cost:
# python -m benchmarks.enrich_memory, python -m benchmarks.enrich.
WORKER_BYTES = 900 << 20
MANY_TABLES_TIME = 2.1
SPILLED_BYTES_PER_POSITION = 11
# A table of several is smaller than one alone may be: more of them are more even, and more workers
# have something to do.
_TABLES_IN_ALLOWED = 4
_SCRATCH_PARTS = ("table-", "ask-", "answer-")


@dataclasses.dataclass(frozen=True)
class EnrichOptions:
    """Options of the `enrich` job.

    Attributes:
      tokens: folder of a tokens dataset.
      counts: folder of a counts dataset of the same tokenizer.
      output: folder of the targets dataset.
      targets: what the targets are made of.
      table_mib: what a worker's table may take in memory; where one of all contexts would take
        more, there are several. It doesn't change what is written.
    """

    tokens: str
    counts: str
    output: str
    targets: TargetOptions = dataclasses.field(default_factory=TargetOptions)
    table_mib: float = 512


@dataclasses.dataclass(frozen=True)
class EnrichPlan:
    """What there is to do."""

    options: EnrichOptions
    tokens: Manifest
    counts: Manifest

    @property
    def writer(self) -> DatasetWriter:
        config = {
            "tokens": self.tokens.content_hash,
            "counts": self.counts.content_hash,
            **dataclasses.asdict(self.options.targets),
        }
        return DatasetWriter(self.options.output, "targets", config)

    @property
    def one_table_mib(self) -> float:
        """About the size of one table of all contexts."""
        ngrams = sum(file.rows for file in self.counts.data_files)
        return ngrams * bytes_per_ngram(self.options.targets.min_count) / 2**20

    @property
    def is_one_table(self) -> bool:
        return self.one_table_mib <= self.options.table_mib

    @property
    def tables(self) -> TargetTables:
        names = tuple(file.name for file in self.counts.data_files)
        per_ngram = bytes_per_ngram(self.options.targets.min_count)
        table_bytes = int(self.options.table_mib * 2**20) // _TABLES_IN_ALLOWED
        return TargetTables(
            self.writer,
            counts_packing(self.counts),
            self.options.targets,
            self.options.counts,
            names,
            None if self.is_one_table else max(1, table_bytes // per_ngram),
        )

    @property
    def files(self) -> TokenFiles:
        return TokenFiles.of(self.options.tokens, self.tokens, self.tables)

    @property
    def stages(self) -> tuple[Stage, ...]:
        positions = self.tokens.properties["tokens"]
        asking = (
            Stage("questions", "positions", positions),
            Stage("answers", "positions", positions),
        )
        return (
            Stage("tables", "contexts"),
            *(() if self.is_one_table else asking),
            Stage("targets", "positions", positions),
        )

    def describe(self) -> list[str]:
        targets = self.options.targets
        orders = targets.orders
        return [
            (
                f"input: {self.tokens.properties['tokens']:,} tokens, counts of"
                f" {self.counts.properties['tokens']:,} tokens"
            ),
            (
                f"targets of {targets.slots} tokens: {targets.scheme}, {targets.estimator} context"
                f" of {orders[0]} to {orders[-1]} tokens seen {targets.min_count} times or more"
            ),
            f"one table of all contexts takes about {math.ceil(self.one_table_mib):,} MiB"
            + ("" if self.is_one_table else "; cut into several, which positions are sorted for"),
        ]


def bytes_per_ngram(min_count: int) -> int:
    """About the size of a table, for each n-gram of the counts."""
    return _BYTES_PER_NGRAM_WITH_RARE_CONTEXTS if min_count == 1 else _BYTES_PER_NGRAM


def make_plan(options: EnrichOptions) -> EnrichPlan:
    """Looks at the inputs; raises UsageError or DatasetError where they don't fit together."""
    tokens = read_manifest(options.tokens, "tokens")
    counts = read_manifest(options.counts, "counts")
    differences = describe_differences(tokens.tokenizer, counts.tokenizer)
    if differences:
        raise UsageError(
            f"{options.counts} was not counted with the tokenizer of {options.tokens}:"
            f" {'; '.join(differences)}"
        )
    longest = counts.properties["max_order"]
    if options.targets.max_order > longest:
        raise UsageError(
            f"max-order {options.targets.max_order} is more than the {longest} tokens of context"
            f" that {options.counts} has"
        )
    return EnrichPlan(options, tokens, counts)


def build_pipeline(
    options: EnrichOptions, run: RunOptions = RunOptions(), plan: EnrichPlan | None = None
) -> "beam.Pipeline":
    """The pipeline that writes the targets into a folder that has been claimed."""
    import apache_beam as beam

    from corpusmill.pipelines.target_transforms import BuildTable, FindSources, JoinMany, JoinOne
    from corpusmill.pipelines.transforms import SpreadOut, WriteManifest

    plan = plan or make_plan(options)
    plan.writer.copy_tokenizer(options.tokens, plan.tokens)
    pipeline = run.new_pipeline()
    files = plan.files
    if plan.is_one_table:
        join: beam.PTransform = JoinOne(files, pipeline | "Table" >> BuildTable(plan.tables))
    else:
        join = JoinMany(files, pipeline | "Tables" >> FindSources(plan.tables))
    (
        pipeline
        | "TokenFiles" >> SpreadOut(range(len(files.names)))
        | "Targets" >> join
        | "AllComplete" >> beam.combiners.Count.Globally()
        | "WriteManifest" >> WriteManifest(plan.writer, _finish, plan)
    )
    return pipeline


@dataclasses.dataclass(frozen=True)
class _WriteTargets:
    """Writes files of targets from the one table, which is there."""

    files: TokenFiles

    def load(self) -> TargetTable:
        return open_one_table(self.files.tables)

    def run(self, table: TargetTable, number: int) -> None:
        write_with_table(number, self.files, table)


def build_job(plan: EnrichPlan, run: RunOptions) -> "LocalJob | beam.Pipeline":
    """What writes the targets into a folder that has been claimed: here, or on a runner."""
    if not (run.is_local and plan.is_one_table) or run.beam_arguments:
        return build_pipeline(plan.options, run, plan)
    plan.writer.copy_tokenizer(plan.options.tokens, plan.tokens)
    numbers = range(len(plan.files.names))
    job = LocalJob(_WriteTargets(plan.files), numbers, run.workers, partial(_finish, 0, plan))
    if job.processes == 1:
        return dataclasses.replace(job, loaded=make_one_table(plan.tables))
    write_one_table(plan.tables)
    return job


def _finish(_: int, plan: EnrichPlan) -> Manifest:
    parts = [TOKENIZER_FOLDER, *plan.files.names]
    expected = plan.tokens.properties["tokens"]
    found = sum(plan.writer.completed(name).counters["positions"] for name in plan.files.names)
    if found != expected:
        raise DataError(f"{plan.writer.folder}: {found} positions, {expected} are in the input")
    return plan.writer.finish(
        [*parts, *(part for each in _SCRATCH_PARTS for part in plan.writer.completed_parts(each))],
        inputs={
            plan.options.tokens: plan.tokens.content_hash,
            plan.options.counts: plan.counts.content_hash,
        },
        tokenizer=plan.tokens.tokenizer,
        properties={
            "tokens": expected,
            "tokens_hash": plan.tokens.content_hash,
            "slots": plan.options.targets.slots,
            **dataclasses.asdict(plan.options.targets),
        },
    )
