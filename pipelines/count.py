"""tokens dataset -> counts dataset

An external merge sort: every worker counts the longest n-grams of its stretch of tokens in memory
and spills them as one sorted run; the runs are then merged, partition by partition. All shorter
n-grams are prefixes of these, so their counts need not be kept.
"""

import dataclasses
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from corpusmill.corpus import storage
from corpusmill.corpus.datasets import Completion, DatasetWriter, Manifest, read_manifest
from corpusmill.corpus.errors import DataError
from corpusmill.corpus.progress import Progress
from corpusmill.corpus.tokens import read_row_groups, row_group_tokens
from corpusmill.ngram_agg.counts_files import spill_runs
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.partitions import Cut
from corpusmill.ngram_agg.runs import count_ngrams
from corpusmill.pipelines.counts_merging import SPILLED, CountsParts, finish_counts, partition_rows
from corpusmill.pipelines.launching.options import RunOptions

if TYPE_CHECKING:
    import apache_beam as beam

Stretch = tuple[str, int, int]
"""A file of a tokens dataset and its row groups from, up to."""


@dataclasses.dataclass(frozen=True)
class CountOptions:
    """Options of the `count` job.

    Attributes:
      input: folder of a tokens dataset.
      output: folder of the counts dataset.
      max_order: tokens in the longest context.
      run_tokens: tokens counted at once by a worker; about 40 bytes of memory each.
      partition_mib: n-grams in one file of the output, as MiB in memory.
    """

    input: str
    output: str
    max_order: int = 3
    run_tokens: int = 1 << 23
    partition_mib: int = 64


@dataclasses.dataclass(frozen=True)
class CountPlan:
    """What there is to do."""

    options: CountOptions
    manifest: Manifest

    @property
    def packing(self) -> Packing:
        return Packing.of(self.manifest.tokenizer, self.options.max_order + 1)

    @property
    def writer(self) -> DatasetWriter:
        config = {
            "input": self.manifest.content_hash,
            "max_order": self.options.max_order,
            "run_tokens": self.options.run_tokens,
            "partition_mib": self.options.partition_mib,
        }
        return DatasetWriter(self.options.output, "counts", config)

    @property
    def parts(self) -> CountsParts:
        return CountsParts(self.writer, self.packing, partition_rows(self.options.partition_mib))

    @property
    def tokens(self) -> int:
        return int(self.manifest.properties["tokens"])

    def describe(self) -> list[str]:
        documents = self.manifest.properties["documents"]
        runs = -(-self.tokens // self.options.run_tokens)
        return [
            (
                f"input: {documents:,} documents, {self.tokens:,} tokens, vocabulary of"
                f" {self.packing.vocabulary_size:,}"
            ),
            f"counting contexts of 0 to {self.options.max_order} tokens in about {runs} runs",
        ]


def make_plan(options: CountOptions) -> CountPlan:
    """Looks at the input; raises UsageError or DatasetError where it can't be counted."""
    plan = CountPlan(options, read_manifest(options.input, "tokens"))
    _ = plan.packing  # refuses an order that doesn't fit
    return plan


def build_pipeline(
    options: CountOptions, run: RunOptions = RunOptions(), plan: CountPlan | None = None
) -> "beam.Pipeline":
    """The pipeline that writes the counts dataset into a folder that has been claimed."""
    import apache_beam as beam

    from corpusmill.pipelines.counts_parts import WriteCountsParts
    from corpusmill.pipelines.transforms import SpreadOut, WriteManifest

    plan = plan or make_plan(options)
    plan.writer.copy_tokenizer(options.input, plan.manifest)
    pipeline = run.new_pipeline()
    (
        pipeline
        | "TokenFiles" >> SpreadOut(group_files(plan.manifest, options.run_tokens))
        | "Stretches" >> beam.FlatMap(cut_stretches, options.input, options.run_tokens)
        | "StretchesToWorkers" >> SpreadOut()
        | "Count" >> beam.FlatMap(count_stretches, options, plan.writer, plan.packing)
        | "Parts" >> WriteCountsParts(plan.parts)
        | "WriteManifest" >> WriteManifest(plan.writer, _finish, plan)
    )
    return pipeline


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
        tokens = row_group_tokens(storage.join(folder, name))
        for group, size in enumerate(tokens):
            if held and held + size > run_tokens:
                yield [*stretches, (name, first, group)] if group > first else stretches
                stretches, held, first = [], 0, group
            held += size
        stretches.append((name, first, len(tokens)))
    yield stretches


def count_stretches(
    stretches: list[Stretch], options: CountOptions, writer: DatasetWriter, packing: Packing
) -> list[str]:
    """Counts some stretches of tokens into spilled runs, unless an earlier run has done it.

    Returns:
      URLs of the spilled runs.
    """
    first_file, first_group, _ = stretches[0]
    part = f"run-{first_file.removesuffix('.parquet')}-{first_group:06d}"
    completion = writer.completion(part)
    if completion is None:
        completion = _count_and_spill(part, stretches, options, writer, packing)
        writer.complete(part, completion)
    runs = int(completion.counters["runs"])
    return [writer.scratch("runs", f"{part}-{number}{SPILLED}") for number in range(runs)]


def _count_and_spill(
    part: str,
    stretches: list[Stretch],
    options: CountOptions,
    writer: DatasetWriter,
    packing: Packing,
) -> Completion:
    started = time.perf_counter()
    progress = Progress(writer, "count", part)
    positions = 0
    runs = 0
    for tokens, starts in token_blocks(stretches, options.input, options.run_tokens, packing):
        try:
            run = count_ngrams(
                tokens,
                max_order=packing.max_order,
                vocabulary_size=packing.vocabulary_size,
                end_of_document=packing.end_of_document,
                starts=starts,
            )
        except DataError as error:
            raise DataError(f"{options.input}, {stretches}: {error}") from error
        with storage.publish(writer.scratch("runs", f"{part}-{runs}{SPILLED}")) as path:
            spill_runs(path, packing, [run])
        runs += 1
        positions += starts
        progress.add(starts)
    progress.note()
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
        for tokens in _cut(read_row_groups(url, first, last), run_tokens):
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
            ahead = next(read_row_groups(url, last, last + 1))[: packing.max_order]
            yield np.concatenate([block, ahead]), len(block)
            held = []
    if any(map(len, held)):
        block = np.concatenate(held)
        yield block, len(block)


def _cut(arrays: Iterable[npt.NDArray[np.generic]], size: int) -> Iterator[npt.NDArray[np.generic]]:
    for array in arrays:
        for start in range(0, len(array), size):
            yield array[start : start + size]


def _finish(cuts: list[Cut], plan: CountPlan) -> Manifest:
    inputs = {plan.options.input: plan.manifest}
    return finish_counts(cuts, plan.parts, inputs, plan.writer.completed_parts("run-"))
