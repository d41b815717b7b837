"""tokens dataset + counts dataset -> targets dataset"""

import dataclasses
from collections.abc import Sequence

import apache_beam as beam

from corpus import storage
from corpus.arguments import integer, make_parser, positive
from corpus.datasets import (
    TOKENIZER_FOLDER,
    DatasetWriter,
    Manifest,
    describe_differences,
    read_manifest,
)
from corpus.errors import DataError, UsageError
from ngram_agg.counts_files import counts_packing
from ngram_agg.targets import ESTIMATORS, SCHEMES, TargetOptions
from pipelines.counts_parts import partition_rows
from pipelines.launch import run_job
from pipelines.options import RunOptions, parse_job
from pipelines.progress import Stage
from pipelines.target_joins import Broadcast, Shuffle, TokenFiles
from pipelines.target_tables import BuildTables, TargetTables
from pipelines.transforms import SpreadOut, WriteManifest

JOINS = ("auto", "broadcast", "shuffle")
# Of a table, for each n-gram of a counts dataset; simplewiki's takes 49 at orders 1 to 4.
_BYTES_PER_NGRAM = 64
_SHUFFLE_TABLE_MIB = 64


@dataclasses.dataclass(frozen=True)
class EnrichOptions:
    """Options of the `enrich` job.

    Attributes:
      tokens: folder of a tokens dataset.
      counts: folder of a counts dataset of the same tokenizer.
      output: folder of the targets dataset.
      targets: what the targets are made of.
      join: `broadcast` (one table of everything on each worker), `shuffle` (positions go to the
        tables and back) or `auto`; it doesn't change what is written.
      table_mib: with `auto`, tables up to this size are broadcast.
    """

    tokens: str
    counts: str
    output: str
    targets: TargetOptions = dataclasses.field(default_factory=TargetOptions)
    join: str = "auto"
    table_mib: int = 4096


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
        return DatasetWriter(storage.absolute(self.options.output), "targets", config)

    @property
    def table_mib(self) -> int:
        """About the size of one table of everything."""
        ngrams = sum(file.rows for file in self.counts.data_files)
        return -(-ngrams * _BYTES_PER_NGRAM >> 20)

    @property
    def join(self) -> str:
        if self.options.join != "auto":
            return self.options.join
        return "broadcast" if self.table_mib <= self.options.table_mib else "shuffle"

    @property
    def tables(self) -> TargetTables:
        names = [file.name for file in self.counts.data_files]
        one_table = self.join == "broadcast"
        return TargetTables(
            self.writer,
            counts_packing(self.counts),
            self.options.targets,
            tuple(storage.join(self.options.counts, name) for name in names),
            None if one_table else partition_rows(_SHUFFLE_TABLE_MIB),
        )

    @property
    def files(self) -> TokenFiles:
        names = tuple(file.name for file in self.tokens.data_files)
        return TokenFiles(self.options.tokens, names, self.tables)

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
            f"join: {self.join}; one table of everything takes up to {self.table_mib:,} MiB",
        ]


def make_plan(options: EnrichOptions) -> EnrichPlan:
    """Looks at the inputs; raises UsageError or DatasetError where they don't fit together."""
    if options.join not in JOINS:
        raise UsageError(f"join {options.join!r} is none of {', '.join(JOINS)}")
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
) -> beam.Pipeline:
    """The pipeline that writes the targets into a folder that has been claimed."""
    plan = plan or make_plan(options)
    plan.writer.copy_tokenizer(options.tokens, plan.tokens)
    pipeline = run.new_pipeline()
    built = pipeline | "Tables" >> BuildTables(plan.tables)
    join = Broadcast if plan.join == "broadcast" else Shuffle
    (
        pipeline
        | "TokenFiles" >> SpreadOut(range(len(plan.files.names)))
        | "Targets" >> join(plan.files, built)
        | "AllComplete" >> beam.combiners.Count.Globally()
        | "WriteManifest" >> WriteManifest(plan.writer, _finish, plan)
    )
    return pipeline


def _finish(_: int, plan: EnrichPlan) -> Manifest:
    parts = [TOKENIZER_FOLDER, *plan.files.names]
    expected = plan.tokens.properties["tokens"]
    found = sum(plan.writer.completed(name).counters["positions"] for name in plan.files.names)
    if found != expected:
        raise DataError(f"{plan.writer.folder}: {found} positions, {expected} are in the input")
    return plan.writer.finish(
        [*parts, *plan.writer.completed_parts("table-")],
        inputs={
            storage.absolute(plan.options.tokens): plan.tokens.content_hash,
            storage.absolute(plan.options.counts): plan.counts.content_hash,
        },
        tokenizer=plan.tokens.tokenizer,
        properties={
            "tokens": expected,
            "tokens_hash": plan.tokens.content_hash,
            "slots": plan.options.targets.slots,
            **dataclasses.asdict(plan.options.targets),
        },
    )


def main(argv: Sequence[str]) -> None:
    """`corpusmill enrich`"""
    parser = make_parser(
        "enrich",
        "Gives every position of a tokens dataset a compact target: a few weighted next tokens.",
        "corpusmill enrich --tokens tokens --counts counts --output targets",
    )
    keep = TargetOptions()
    add = parser.add_argument
    add("--tokens", required=True, metavar="DIR", help="folder or URL of a tokens dataset")
    add("--counts", required=True, metavar="DIR", help="folder or URL of a counts dataset")
    add("--output", required=True, metavar="DIR", help="folder or URL of the targets dataset")
    add("--scheme", choices=SCHEMES, default=keep.scheme, help="how the tail is stood for")
    add(
        "--estimator",
        choices=ESTIMATORS,
        default=keep.estimator,
        help="which contexts a distribution is of",
    )
    add(
        "--head",
        type=integer,
        default=keep.head,
        metavar="R",
        help="most frequent next tokens in a target",
    )
    add(
        "--tail-draws",
        type=integer,
        metavar="D",
        help=f"tokens drawn for all others ({keep.tail_draws}; 0 if the scheme draws nothing)",
    )
    add(
        "--max-order",
        type=integer,
        metavar="N",
        help="tokens in the longest context (default: that of the counts)",
    )
    add(
        "--min-order",
        type=integer,
        default=keep.min_order,
        metavar="N",
        help="tokens in the shortest context",
    )
    add(
        "--min-count",
        type=positive,
        default=keep.min_count,
        metavar="N",
        help="contexts seen fewer times are not used",
    )
    add("--seed", type=integer, default=keep.seed, help="of the draws")
    add("--join", choices=JOINS, default="auto", help="how positions and counts meet")
    add(
        "--table-mib",
        type=positive,
        default=4096,
        metavar="MIB",
        help="with --join auto, tables up to this size are held by every worker",
    )
    arguments, run = parse_job(parser, argv)
    draws, longest = arguments.tail_draws, arguments.max_order
    if draws is None:
        draws = keep.tail_draws if arguments.scheme == "retain" else 0
    if longest is None:
        longest = read_manifest(arguments.counts, "counts").properties["max_order"]
    options = EnrichOptions(
        tokens=storage.absolute(arguments.tokens),
        counts=storage.absolute(arguments.counts),
        output=arguments.output,
        targets=TargetOptions(
            scheme=arguments.scheme,
            estimator=arguments.estimator,
            head=arguments.head,
            tail_draws=draws,
            min_order=arguments.min_order,
            max_order=longest,
            min_count=arguments.min_count,
            seed=arguments.seed,
        ),
        join=arguments.join,
        table_mib=arguments.table_mib,
    )
    plan = make_plan(options)
    run_job(
        plan.writer,
        run,
        plan.describe(),
        lambda: build_pipeline(options, run, plan),
        (
            Stage("tables", "n-grams"),
            Stage("targets", "positions", plan.tokens.properties["tokens"]),
        ),
    )
