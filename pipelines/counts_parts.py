"""The second half of `count` and of `merge`: sorted sources become the parts of a counts dataset.

See `corpusmill.pipelines.counts_merging`.
"""

import itertools
from collections.abc import Iterable

import apache_beam as beam

from corpusmill.ngram_agg.counts_runs import CountsRun
from corpusmill.ngram_agg.merging import merge_runs
from corpusmill.ngram_agg.partitions import Cut, KeySample, add_sample, empty_sample, merge_samples
from corpusmill.pipelines import coders
from corpusmill.pipelines.counts_merging import (
    CountsParts,
    Slice,
    add_run,
    cut_partitions,
    merged_alike,
    sample_file,
    slices,
    source_files,
    write_part,
)
from corpusmill.pipelines.transforms import SpreadOut


class WriteCountsParts(beam.PTransform):
    """Names of sources -> (number of parts, cuts), after all parts are complete."""

    def __init__(self, parts: CountsParts) -> None:
        super().__init__()
        self._parts = parts

    def expand(self, sources: beam.PCollection) -> beam.PCollection:
        cuts = beam.pvalue.AsSingleton(sources | "FindCuts" >> FindCuts(self._parts))
        return (
            sources
            | "Slice" >> beam.FlatMap(slices, cuts).with_output_types(tuple[int, Slice])
            | "Combine" >> beam.CombinePerKey(MergeRuns(self._parts))
            | "WritePart" >> beam.Map(write_part, self._parts, cuts)
            | "AllComplete" >> beam.combiners.Count.Globally()
            | "Cuts" >> beam.Map(_after_all, cuts)
        )


class FindCuts(beam.PTransform):
    """Names of sources -> the cuts between partitions of equal size."""

    def __init__(self, parts: CountsParts) -> None:
        super().__init__()
        self._parts = parts

    def expand(self, sources: beam.PCollection) -> beam.PCollection:
        return (
            sources
            | "Files" >> beam.FlatMap(source_files)
            | "FilesToWorkers" >> SpreadOut()
            | "Sample" >> beam.Map(sample_file, self._parts.packing).with_output_types(KeySample)
            | "MergeSamples" >> beam.CombineGlobally(MergeSamples())
            | "Cut" >> beam.Map(cut_partitions, self._parts)
        )


class MergeSamples(beam.CombineFn):
    """KeySamples -> the sample of all of them."""

    def get_accumulator_coder(self) -> beam.coders.Coder:
        return beam.coders.IterableCoder(coders.KeySampleCoder())

    def create_accumulator(self) -> list[KeySample]:
        return [empty_sample()]

    def add_input(self, accumulator: list[KeySample], sample: KeySample) -> list[KeySample]:
        return add_sample(accumulator, sample)

    def merge_accumulators(self, accumulators: Iterable[list[KeySample]]) -> list[KeySample]:
        return [merge_samples(list(itertools.chain.from_iterable(accumulators)))]

    def extract_output(self, accumulator: list[KeySample]) -> KeySample:
        return merge_samples(accumulator)


class MergeRuns(beam.CombineFn):
    """Slices of sorted sources -> fewer slices that count the same n-grams.

    The accumulator is a list of slices; of those merged equally often, `FAN_IN` are merged into one
    spilled run, a block of each at a time.
    """

    def __init__(self, parts: CountsParts) -> None:
        self._parts = parts

    def create_accumulator(self) -> list[Slice]:
        return []

    def add_input(self, accumulator: list[Slice], part: Slice) -> list[Slice]:
        return merged_alike([*accumulator, part], self._parts)

    def merge_accumulators(self, accumulators: Iterable[list[Slice]]) -> list[Slice]:
        return merged_alike(itertools.chain.from_iterable(accumulators), self._parts)

    def extract_output(self, accumulator: list[Slice]) -> list[Slice]:
        return accumulator


class SumRuns(beam.CombineFn):
    """Counts runs of one context -> their sum."""

    def get_accumulator_coder(self) -> beam.coders.Coder:
        return beam.coders.IterableCoder(coders.CountsRunCoder())

    def create_accumulator(self) -> list[CountsRun]:
        return []

    def add_input(self, accumulator: list[CountsRun], run: CountsRun) -> list[CountsRun]:
        return add_run(accumulator, run)

    def merge_accumulators(self, accumulators: Iterable[list[CountsRun]]) -> list[CountsRun]:
        merged: list[CountsRun] = []
        for run in itertools.chain.from_iterable(accumulators):
            merged = add_run(merged, run)
        return merged

    def extract_output(self, accumulator: list[CountsRun]) -> CountsRun:
        return merge_runs(accumulator)


def _after_all(_parts: int, cuts: list[Cut]) -> list[Cut]:
    return cuts
