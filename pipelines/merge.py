"""counts datasets -> the counts dataset of them all"""

import dataclasses
from typing import TYPE_CHECKING

from corpusmill.corpus.datasets import DatasetWriter, Manifest, describe_differences, read_manifest
from corpusmill.corpus.errors import UsageError
from corpusmill.ngram_agg.counts_files import counts_packing
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.partitions import Cut
from corpusmill.pipelines.counts_merging import CountsParts, finish_counts, partition_rows
from corpusmill.pipelines.launching.options import RunOptions

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
    from corpusmill.pipelines.counts_parts import WriteCountsParts
    from corpusmill.pipelines.transforms import SpreadOut, WriteManifest

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
