"""The transforms of `enrich`: see `target_tables` and `target_joins`."""

from typing import Any

import apache_beam as beam

from corpusmill.ngram_agg.counts_runs import CountsRun
from corpusmill.ngram_agg.partitions import Cut
from corpusmill.pipelines.counts_merging import Slice, slices
from corpusmill.pipelines.counts_parts import FindCuts, MergeRuns, SumRuns
from corpusmill.pipelines.target_joins import (
    Answered,
    Asked,
    Chunk,
    TokenFiles,
    answer,
    ask,
    chunks,
    write_answered,
    write_with_table,
)
from corpusmill.pipelines.target_tables import (
    TargetTables,
    spill_backward,
    split_pieces,
    to_tables,
    write_one_table,
)
from corpusmill.pipelines.transforms import SpreadOut


class BuildTable(beam.PTransform):
    """(A pipeline) -> an element when the one table is on storage."""

    def __init__(self, tables: TargetTables) -> None:
        super().__init__()
        self._tables = tables

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        one = pipeline | "One" >> beam.Create([self._tables], reshuffle=False)
        return one | "Build" >> beam.Map(write_one_table)


class FindSources(beam.PTransform):
    """(A pipeline) -> what each of many tables is made of.

    `slices` of runs and `split` contexts, both by the number of a table; `cuts`, the list between
    these.
    """

    def __init__(self, tables: TargetTables) -> None:
        super().__init__()
        self._tables = tables

    def expand(self, pipeline: beam.Pipeline) -> Any:
        tables = self._tables
        runs = (
            pipeline
            | "CountsFiles" >> SpreadOut(range(len(tables.counts_urls)))
            | "Backward" >> beam.FlatMap(spill_backward, tables)
        )
        found = runs | "FindCuts" >> FindCuts(tables.parts)
        cuts = beam.pvalue.AsSingleton(found)
        whole = (
            runs
            | "Slice" >> beam.FlatMap(slices, cuts).with_output_types(tuple[int, Slice])
            | "Combine" >> beam.CombinePerKey(MergeRuns(tables.parts))
        )
        split = (
            runs
            | "Split"
            >> beam.FlatMap(split_pieces, tables, cuts).with_output_types(tuple[Cut, CountsRun])
            | "CombineSplit"
            >> beam.CombinePerKey(SumRuns()).with_output_types(tuple[Cut, CountsRun])
            | "ToTables" >> beam.FlatMap(to_tables, cuts).with_output_types(tuple[int, CountsRun])
        )
        return {"slices": whole, "split": split, "cuts": found}


class JoinOne(beam.PTransform):
    """Numbers of files -> the same, with their targets written from the one table."""

    def __init__(self, files: TokenFiles, table: beam.PCollection) -> None:
        super().__init__()
        self._files = files
        self._table = table

    def expand(self, numbers: beam.PCollection) -> beam.PCollection:
        ready = beam.pvalue.AsList(self._table)
        return numbers | "Write" >> beam.Map(_write_after, ready, self._files)


class JoinMany(beam.PTransform):
    """Numbers of files -> the same, with their targets written from tables of bounded size."""

    def __init__(self, files: TokenFiles, sources: dict[str, beam.PCollection]) -> None:
        super().__init__()
        self._files = files
        self._sources = sources

    def expand(self, numbers: beam.PCollection) -> beam.PCollection:
        files = self._files
        cuts = beam.pvalue.AsSingleton(self._sources["cuts"])
        asked = (
            numbers
            | "Chunks" >> beam.FlatMap(chunks, files).with_output_types(Chunk)
            | "ChunksToWorkers" >> SpreadOut()
            | "Ask" >> beam.FlatMap(ask, files, cuts).with_output_types(tuple[int, Asked])
        )
        tables = {"asked": asked, **{name: self._sources[name] for name in ("slices", "split")}}
        return (
            tables
            | "ToTables" >> beam.CoGroupByKey()
            | "Answer" >> beam.FlatMap(answer, files, cuts).with_output_types(tuple[int, Answered])
            | "ToFiles" >> beam.GroupByKey()
            | "Write" >> beam.Map(write_answered, files)
        )


def _write_after(number: int, _ready: list[None], files: TokenFiles) -> int:
    return write_with_table(number, files)
