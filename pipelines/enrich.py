"""tokens dataset + counts dataset -> targets dataset"""

import dataclasses
import math
from functools import cached_property
from typing import TYPE_CHECKING

from corpusmill.corpus.datasets import (
    TOKENIZER_FOLDER,
    DatasetWriter,
    Manifest,
    add_up,
    describe_differences,
    read_manifest,
)
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.options import FOLDER, option, positive_number
from corpusmill.corpus.progress import Stage
from corpusmill.ngram_agg.counts_files import counts_packing
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.ngram_agg.targets import TargetTable
from corpusmill.pipelines.launching.local_workers import Workers
from corpusmill.pipelines.target_joins import TokenFiles, join_many, write_with_table
from corpusmill.pipelines.target_tables import (
    TargetTables,
    find_sources,
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
class EnrichJob:
    """Gives every position of a tokens dataset a target.

    Attributes:
      targets: what the targets are made of.

    Raises:
      DatasetError: an input isn't a dataset of its kind.
      UsageError: the inputs don't fit together, or the targets want longer contexts than there are.
    """

    tokens: str = option("folder or URL of a tokens dataset", metavar=FOLDER)
    counts: str = option("folder or URL of a counts dataset of the same tokenizer", metavar=FOLDER)
    output: str = option("folder or URL of the targets dataset", metavar=FOLDER)
    targets: TargetOptions = dataclasses.field(default_factory=TargetOptions)
    table_mib: float = option(
        "memory that a worker's table may take; where one of all contexts takes more, there are"
        " several (the output is the same)",
        512,
        metavar="MIB",
        read=positive_number,
    )

    def __post_init__(self) -> None:
        differences = describe_differences(
            self.tokens_manifest.tokenizer, self.counts_manifest.tokenizer
        )
        if differences:
            raise UsageError(
                f"{self.counts} was not counted with the tokenizer of {self.tokens}:"
                f" {'; '.join(differences)}"
            )
        self.targets.check_counts(self.counts, self.counts_manifest)

    @cached_property
    def tokens_manifest(self) -> Manifest:
        return read_manifest(self.tokens, "tokens")

    @cached_property
    def counts_manifest(self) -> Manifest:
        return read_manifest(self.counts, "counts")

    @property
    def writer(self) -> DatasetWriter:
        config = {
            "tokens": self.tokens_manifest.content_hash,
            "counts": self.counts_manifest.content_hash,
            **dataclasses.asdict(self.targets),
        }
        return DatasetWriter(self.output, "targets", config)

    @property
    def one_table_mib(self) -> float:
        """About the size of one table of all contexts."""
        return self.counts_manifest.rows * bytes_per_ngram(self.targets.min_count) / 2**20

    @property
    def is_one_table(self) -> bool:
        return self.one_table_mib <= self.table_mib

    @property
    def tables(self) -> TargetTables:
        per_ngram = bytes_per_ngram(self.targets.min_count)
        table_bytes = int(self.table_mib * 2**20) // _TABLES_IN_ALLOWED
        return TargetTables(
            self.writer,
            counts_packing(self.counts_manifest),
            self.targets,
            tuple(self.counts_manifest.data_urls(self.counts)),
            None if self.is_one_table else max(1, table_bytes // per_ngram),
        )

    @property
    def files(self) -> TokenFiles:
        return TokenFiles.of(self.tokens, self.tokens_manifest, self.tables)

    @property
    def stages(self) -> tuple[Stage, ...]:
        positions = self.tokens_manifest.properties["tokens"]
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
        targets = self.targets
        orders = targets.orders
        return [
            (
                f"input: {self.tokens_manifest.properties['tokens']:,} tokens, counts of"
                f" {self.counts_manifest.properties['tokens']:,} tokens"
            ),
            (
                f"targets of {targets.slots} tokens: {targets.scheme}, {targets.estimator} context"
                f" of {orders[0]} to {orders[-1]} tokens seen {targets.min_count} times or more"
            ),
            f"one table of all contexts takes about {math.ceil(self.one_table_mib):,} MiB"
            + ("" if self.is_one_table else "; cut into several, which positions are sorted for"),
        ]

    def prepare(self) -> None:
        self.writer.copy_tokenizer(self.tokens, self.tokens_manifest)

    def work_here(self, workers: Workers) -> None:
        if self.is_one_table:
            self._join_one_here(workers)
        else:
            join_many(self.files, *find_sources(self.tables, workers), workers)

    def _join_one_here(self, workers: Workers) -> None:
        numbers = range(len(self.files.names))
        table = None
        if workers.number_for(len(numbers)) == 1:
            table = make_one_table(self.tables)
        else:
            write_one_table(self.tables)
        workers.run(_WriteTargets(self.files), numbers, table)

    def expand(self, pipeline: "beam.Pipeline") -> "beam.PCollection":
        import apache_beam as beam

        from corpusmill.pipelines.target_transforms import (
            BuildTable,
            FindSources,
            JoinMany,
            JoinOne,
        )
        from corpusmill.pipelines.transforms import SpreadOut

        files = self.files
        if self.is_one_table:
            join: beam.PTransform = JoinOne(files, pipeline | "Table" >> BuildTable(self.tables))
        else:
            join = JoinMany(files, pipeline | "Tables" >> FindSources(self.tables))
        return (
            pipeline
            | "TokenFiles" >> SpreadOut(range(len(files.names)))
            | "Targets" >> join
            | "AllComplete" >> beam.combiners.Count.Globally()
        )

    def finish(self, _: object) -> Manifest:
        writer, names = self.writer, self.files.names
        expected = self.tokens_manifest.properties["tokens"]
        scratch = writer.completed_parts(*_SCRATCH_PARTS)
        completions = writer.completed([TOKENIZER_FOLDER, *names, *scratch])
        found = add_up(completion.counters for completion in completions)["positions"]
        if found != expected:
            raise DataError(f"{writer.folder}: {found} positions, {expected} are in the input")
        return writer.finish(
            completions,
            inputs={
                self.tokens: self.tokens_manifest.content_hash,
                self.counts: self.counts_manifest.content_hash,
            },
            tokenizer=self.tokens_manifest.tokenizer,
            properties={
                "tokens": expected,
                "tokens_hash": self.tokens_manifest.content_hash,
                "slots": self.targets.slots,
                **dataclasses.asdict(self.targets),
            },
        )


def bytes_per_ngram(min_count: int) -> int:
    """About the size of a table, for each n-gram of the counts."""
    return _BYTES_PER_NGRAM_WITH_RARE_CONTEXTS if min_count == 1 else _BYTES_PER_NGRAM


@dataclasses.dataclass(frozen=True)
class _WriteTargets:
    """Writes files of targets from the one table, which is there."""

    files: TokenFiles

    def load(self) -> TargetTable:
        return open_one_table(self.files.tables)

    def run(self, table: TargetTable, number: int) -> None:
        write_with_table(number, self.files, table)
