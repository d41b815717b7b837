"""counts datasets -> the counts dataset of them all"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from corpus.arguments import add_folder, location, make_parser, positive
from corpus.datasets import DatasetWriter, Manifest, describe_differences, read_manifest
from corpus.errors import UsageError
from ngram_agg.counts_files import counts_packing
from ngram_agg.packing import Packing
from ngram_agg.partitions import Cut
from pipelines.counts_merging import CountsParts, finish_counts, partition_rows
from pipelines.launch import run_job
from pipelines.options import RunOptions, parse_job
from pipelines.progress import Stage

if TYPE_CHECKING:
    import apache_beam as beam


@dataclasses.dataclass(frozen=True)
class MergeOptions:
    """Options of the `merge` job.

    Attributes:
      input: folders of counts datasets.
      output: folder of their sum.
      partition_mib: n-grams in one file of the output, as MiB in memory.
    """

    input: tuple[str, ...]
    output: str
    partition_mib: int = 64


@dataclasses.dataclass(frozen=True)
class MergePlan:
    """What there is to do."""

    options: MergeOptions
    manifests: dict[str, Manifest]

    @property
    def packing(self) -> Packing:
        return counts_packing(next(iter(self.manifests.values())))

    @property
    def parts(self) -> CountsParts:
        config = {
            "inputs": sorted(manifest.content_hash for manifest in self.manifests.values()),
            "partition_mib": self.options.partition_mib,
        }
        writer = DatasetWriter(self.options.output, "counts", config)
        return CountsParts(writer, self.packing, partition_rows(self.options.partition_mib))

    @property
    def ngrams(self) -> int:
        return sum(
            file.rows for manifest in self.manifests.values() for file in manifest.data_files
        )

    def describe(self) -> list[str]:
        tokens = sum(manifest.properties["tokens"] for manifest in self.manifests.values())
        return [
            (
                f"input: {len(self.manifests)} counts datasets with {self.ngrams:,} n-grams of"
                f" {tokens:,} tokens"
            )
        ]


def make_plan(options: MergeOptions) -> MergePlan:
    """Looks at the inputs; raises UsageError where they don't fit together."""
    folders = options.input
    if len(set(folders)) < max(2, len(folders)):
        raise UsageError(f"merge needs two or more different datasets; given: {', '.join(folders)}")
    manifests = {folder: read_manifest(folder, "counts") for folder in sorted(folders)}
    first_folder, first = next(iter(manifests.items()))
    for folder, manifest in manifests.items():
        differences = describe_differences(_identity(first), _identity(manifest))
        if differences:
            raise UsageError(f"{folder} can't be added to {first_folder}: {'; '.join(differences)}")
    return MergePlan(options, manifests)


def build_pipeline(
    options: MergeOptions, run: RunOptions = RunOptions(), plan: MergePlan | None = None
) -> "beam.Pipeline":
    """The pipeline that writes the sum into a folder that has been claimed."""
    from pipelines.counts_parts import WriteCountsParts
    from pipelines.transforms import SpreadOut, WriteManifest

    plan = plan or make_plan(options)
    plan.parts.writer.copy_tokenizer(*next(iter(plan.manifests.items())))
    pipeline = run.new_pipeline()
    (
        pipeline
        | "Datasets" >> SpreadOut(plan.manifests)
        | "Parts" >> WriteCountsParts(plan.parts)
        | "WriteManifest" >> WriteManifest(plan.parts.writer, _finish, plan)
    )
    return pipeline


def _identity(manifest: Manifest) -> dict[str, object]:
    return {"max_order": manifest.properties["max_order"], **manifest.tokenizer}


def _finish(cuts: list[Cut], plan: MergePlan) -> Manifest:
    return finish_counts(cuts, plan.parts, plan.manifests)


def main(argv: Sequence[str]) -> None:
    """`corpusmill merge`"""
    parser = make_parser(
        "merge",
        "Adds up counts datasets of the same tokenizer and order.",
        "corpusmill merge --input counts-2024 --input counts-2025 --output counts",
    )
    add = parser.add_argument
    add(
        "--input",
        action="append",
        required=True,
        type=location,
        metavar="DIR",
        help="folder or URL of a counts dataset; at least two",
    )
    add_folder(parser, "--output", "the counts dataset")
    add(
        "--partition-mib",
        type=positive,
        default=64,
        metavar="MIB",
        help="size in memory of the n-grams in one output file",
    )
    arguments, run = parse_job(parser, argv)
    options = MergeOptions(tuple(arguments.input), arguments.output, arguments.partition_mib)
    plan = make_plan(options)
    stage = Stage("merge", "n-grams", plan.ngrams)
    run_job(
        plan.parts.writer,
        run,
        plan.describe(),
        lambda: build_pipeline(options, run, plan),
        (stage,),
    )
