"""counts datasets -> the counts dataset of them all"""

import dataclasses
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from corpusmill.corpus.datasets import DatasetWriter, Manifest, describe_differences, read_manifest
from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.options import FOLDER, option
from corpusmill.corpus.progress import Stage
from corpusmill.ngram_agg.counts_files import counts_packing
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.partitions import Cut
from corpusmill.pipelines.count import CountJob
from corpusmill.pipelines.counts_merging import (
    CountsParts,
    finish_counts,
    partition_rows,
    write_parts,
)
from corpusmill.pipelines.launching.local_workers import Workers

if TYPE_CHECKING:
    import apache_beam as beam


@dataclasses.dataclass(frozen=True)
class MergeJob:
    """Adds up counts datasets.

    Raises:
      DatasetError: one is no counts dataset.
      UsageError: they don't fit together.
    """

    counts: tuple[str, ...] = option(
        "folder or URL of a counts dataset; at least two", metavar=FOLDER
    )
    output: str = option("folder or URL of the counts dataset of them all", metavar=FOLDER)
    partition_mib: int = option(
        "size in memory of the n-grams in one output file",
        CountJob.partition_mib,
        metavar="MIB",
        least=1,
    )

    def __post_init__(self) -> None:
        folders = self.counts
        if len(set(folders)) < max(2, len(folders)):
            given = ", ".join(folders)
            raise UsageError(f"merge needs two or more different datasets; given: {given}")
        first_folder, first = next(iter(self.manifests.items()))
        for folder, manifest in self.manifests.items():
            differences = describe_differences(_identity(first), _identity(manifest))
            if differences:
                raise UsageError(
                    f"{folder} can't be added to {first_folder}: {'; '.join(differences)}"
                )
        found: dict[str, str] = {}
        for folder, manifest in self.manifests.items():
            for tokens in manifest.config["counted"]:
                other = found.setdefault(tokens, folder)
                if other != folder:
                    raise UsageError(
                        f"{other} and {folder} count the same data, or some of it; leave one out"
                    )

    @cached_property
    def manifests(self) -> dict[str, Manifest]:
        return {folder: read_manifest(folder, "counts") for folder in sorted(self.counts)}

    @property
    def packing(self) -> Packing:
        return counts_packing(next(iter(self.manifests.values())))

    @property
    def writer(self) -> DatasetWriter:
        manifests = self.manifests.values()
        config = {
            "counted": sorted(chain.from_iterable(each.config["counted"] for each in manifests)),
            "merged": sorted(each.content_hash for each in manifests),
            "partition_mib": self.partition_mib,
        }
        return DatasetWriter(self.output, "counts", config)

    @property
    def parts(self) -> CountsParts:
        return CountsParts(self.writer, self.packing, partition_rows(self.partition_mib))

    @property
    def ngrams(self) -> int:
        return sum(manifest.rows for manifest in self.manifests.values())

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (Stage("merge", "n-grams", self.ngrams),)

    def describe(self) -> list[str]:
        tokens = sum(manifest.properties["tokens"] for manifest in self.manifests.values())
        return [
            (
                f"input: {len(self.manifests)} counts datasets with {self.ngrams:,} n-grams of"
                f" {tokens:,} tokens"
            )
        ]

    def prepare(self) -> None:
        self.writer.copy_tokenizer(*next(iter(self.manifests.items())))

    def work_here(self, workers: Workers) -> list[Cut]:
        return write_parts(list(self.manifests), self.parts, workers)

    def expand(self, pipeline: "beam.Pipeline") -> "beam.PCollection":
        from corpusmill.pipelines.counts_parts import WriteCountsParts
        from corpusmill.pipelines.transforms import SpreadOut

        datasets = pipeline | "Datasets" >> SpreadOut(self.manifests)
        return datasets | "Parts" >> WriteCountsParts(self.parts)

    def finish(self, cuts: list[Cut]) -> Manifest:
        return finish_counts(cuts, self.parts, self.manifests)


def _identity(manifest: Manifest) -> dict[str, object]:
    return {"max_order": manifest.properties["max_order"], **manifest.tokenizer}
