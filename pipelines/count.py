"""tokens dataset -> counts dataset

An external merge sort: every worker counts the longest n-grams of its stretch of tokens in memory
and spills them as one sorted run; the runs are then merged, partition by partition. All shorter
n-grams are prefixes of these, so their counts need not be kept.
"""

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from corpusmill.corpus import storage
from corpusmill.corpus.datasets import Completion, DatasetWriter, Manifest, read_manifest
from corpusmill.corpus.errors import DataError
from corpusmill.corpus.options import FOLDER, option
from corpusmill.corpus.progress import Progress, Stage
from corpusmill.corpus.tokens import read_row_groups, row_group_sizes
from corpusmill.ngram_agg.counts_files import spill_runs
from corpusmill.ngram_agg.counts_runs import count_ngrams
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.partitions import Cut
from corpusmill.pipelines.counts_merging import (
    SPILLED,
    CountsParts,
    finish_counts,
    partition_rows,
    write_parts,
)
from corpusmill.pipelines.launching.local_workers import Workers

if TYPE_CHECKING:
    import apache_beam as beam

Stretch = tuple[str, int, int]
"""A file of a tokens dataset and its row groups from, up to."""


@dataclasses.dataclass(frozen=True)
class CountJob:
    """Counts the n-grams of a tokens dataset.

    Raises:
      DatasetError: there is no tokens dataset.
      UsageError: the order doesn't fit its vocabulary.
    """

    tokens: str = option("folder or URL of a tokens dataset", metavar=FOLDER)
    output: str = option("folder or URL of the counts dataset", metavar=FOLDER)
    max_order: int = option("tokens in the longest context", 3)
    run_tokens: int = option(
        "tokens that a worker counts at once, about 40 bytes of memory each", 1 << 23, least=1
    )
    partition_mib: int = option(
        "size in memory of the n-grams in one output file", 64, metavar="MIB", least=1
    )

    def __post_init__(self) -> None:
        _ = self.packing  # refuses an order that doesn't fit

    @cached_property
    def manifest(self) -> Manifest:
        return read_manifest(self.tokens, "tokens")

    @property
    def packing(self) -> Packing:
        return Packing.of(self.manifest.tokenizer, self.max_order + 1)

    @property
    def writer(self) -> DatasetWriter:
        config = {
            "counted": [self.manifest.content_hash],
            "max_order": self.max_order,
            "run_tokens": self.run_tokens,
            "partition_mib": self.partition_mib,
        }
        return DatasetWriter(self.output, "counts", config)

    @property
    def parts(self) -> CountsParts:
        return CountsParts(self.writer, self.packing, partition_rows(self.partition_mib))

    @property
    def stages(self) -> tuple[Stage, ...]:
        tokens = int(self.manifest.properties["tokens"])
        return Stage("count", "tokens", tokens), Stage("merge", "n-grams")

    def describe(self) -> list[str]:
        documents, tokens = (self.manifest.properties[name] for name in ("documents", "tokens"))
        return [
            (
                f"input: {documents:,} documents, {tokens:,} tokens, vocabulary of"
                f" {self.packing.vocabulary_size:,}"
            ),
            (
                f"counting contexts of 0 to {self.max_order} tokens in about"
                f" {-(-tokens // self.run_tokens)} runs"
            ),
        ]

    def prepare(self) -> None:
        self.writer.copy_tokenizer(self.tokens, self.manifest)

    def work_here(self, workers: Workers) -> list[Cut]:
        stretches = itertools.chain.from_iterable(
            storage.in_threads(
                lambda group: list(cut_stretches(group, self.tokens, self.run_tokens)),
                group_files(self.manifest, self.run_tokens),
            )
        )
        sources = itertools.chain.from_iterable(workers.map(count_stretches, stretches, self))
        return write_parts(list(sources), self.parts, workers)

    def expand(self, pipeline: "beam.Pipeline") -> "beam.PCollection":
        import apache_beam as beam

        from corpusmill.pipelines.counts_parts import WriteCountsParts
        from corpusmill.pipelines.transforms import SpreadOut

        return (
            pipeline
            | "TokenFiles" >> SpreadOut(group_files(self.manifest, self.run_tokens))
            | "Stretches" >> beam.FlatMap(cut_stretches, self.tokens, self.run_tokens)
            | "StretchesToWorkers" >> SpreadOut()
            | "Count" >> beam.FlatMap(count_stretches, self)
            | "Parts" >> WriteCountsParts(self.parts)
        )

    def finish(self, cuts: list[Cut]) -> Manifest:
        counted = self.writer.completed_parts("run-")
        return finish_counts(cuts, self.parts, {self.tokens: self.manifest}, counted)


def group_files(manifest: Manifest, run_tokens: int) -> list[list[str]]:
    """Neighbouring files with about `run_tokens` tokens together; a larger file stands alone."""
    groups: list[list[str]] = []
    held = run_tokens
    for file in manifest.data_files:
        if held + file.tokens > run_tokens:
            groups.append([])
            held = 0
        groups[-1].append(file.name)
        held += file.tokens
    return groups


def cut_stretches(files: list[str], folder: str, run_tokens: int) -> Iterator[list[Stretch]]:
    """Cuts a group of files, by row groups, to lists of stretches of about `run_tokens` tokens."""
    stretches: list[Stretch] = []
    held = 0
    for name in files:
        first = 0
        tokens, _ = row_group_sizes(storage.join(folder, name))
        for group, size in enumerate(tokens):
            if held and held + size > run_tokens:
                yield [*stretches, (name, first, group)] if group > first else stretches
                stretches, held, first = [], 0, group
            held += size
        stretches.append((name, first, len(tokens)))
    yield stretches


def count_stretches(stretches: list[Stretch], job: CountJob) -> list[str]:
    """Counts some stretches of tokens into spilled runs, unless an earlier run has done it.

    Returns:
      URLs of the spilled runs.
    """
    writer = job.writer
    first_file, first_group, _ = stretches[0]
    part = f"run-{first_file.removesuffix('.parquet')}-{first_group:06d}"
    completion = writer.completion(part)
    if completion is None:
        completion = _count_and_spill(part, stretches, job)
        writer.complete(part, completion)
    runs = int(completion.counters["runs"])
    return [_spilled_run(writer, part, number) for number in range(runs)]


def _spilled_run(writer: DatasetWriter, part: str, number: int) -> str:
    return writer.scratch("runs", f"{part}-{number}{SPILLED}")


def _count_and_spill(part: str, stretches: list[Stretch], job: CountJob) -> Completion:
    started = time.perf_counter()
    writer, packing = job.writer, job.packing
    progress = Progress(writer, "count", part)
    positions = 0
    runs = 0
    for tokens, starts in token_blocks(stretches, job.tokens, job.run_tokens, packing):
        try:
            run = count_ngrams(
                tokens,
                max_order=packing.max_order,
                vocabulary_size=packing.vocabulary_size,
                end_of_document=packing.end_of_document,
                starts=starts,
            )
        except DataError as error:
            raise DataError(f"{job.tokens}, {stretches}: {error}") from error
        with storage.publish(_spilled_run(writer, part, runs)) as path:
            spill_runs(path, packing, [run])
        runs += 1
        positions += starts
        progress.add(starts)
    progress.finish()
    seconds = time.perf_counter() - started
    counters = {"runs": runs, "positions": positions, "count_seconds": seconds}
    return Completion((), counters)


def token_blocks(
    stretches: list[Stretch], folder: str, run_tokens: int, packing: Packing
) -> Iterator[tuple[npt.NDArray[np.generic], int]]:
    """The tokens of some stretches in blocks of about `run_tokens`, to be counted at once.

    Yields:
      Token ids and at how many of them n-grams start. Those beyond are the beginning of the next
      block or stretch, in the middle of a long document: they are only looked at.
    """
    held: list[npt.NDArray[np.generic]] = []
    for name, first, last in stretches:
        url = storage.join(folder, name)
        for tokens in _cut(read_row_groups(url, range(first, last)), run_tokens):
            held.append(tokens)
            if sum(map(len, held)) >= run_tokens:
                block = np.concatenate(held)
                starts = len(block)
                if block[-1] != packing.end_of_document:
                    starts -= min(packing.max_order, starts)
                if starts:
                    yield block, starts
                held = [block[starts:].copy()]
        if held and len(held[-1]) and held[-1][-1] != packing.end_of_document:
            block = np.concatenate(held)
            ahead = next(read_row_groups(url, range(last, last + 1)))[: packing.max_order]
            yield np.concatenate([block, ahead]), len(block)
            held = []
    if any(map(len, held)):
        block = np.concatenate(held)
        yield block, len(block)


def _cut(arrays: Iterable[npt.NDArray[np.generic]], size: int) -> Iterator[npt.NDArray[np.generic]]:
    for array in arrays:
        for start in range(0, len(array), size):
            yield array[start : start + size]
