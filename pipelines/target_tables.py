"""The first half of `enrich`: counts -> tables in which the target of a position is looked up.

Where they are few the contexts make one table. Where they are not, every part of the counts is
turned into a run of (context backwards, next token) n-grams of all orders, spilled to storage. Cut
by what stands next to a position, these make tables of bounded size that each answer a position
with one look-up, whatever the order that is found. They are made where they are asked, and live as
long as that takes.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from corpusmill.corpus import storage
from corpusmill.corpus.datasets import Completion, DatasetWriter
from corpusmill.corpus.progress import Progress
from corpusmill.ngram_agg.counts_files import read_counts, read_spilled, spill_runs
from corpusmill.ngram_agg.counts_runs import CountsRun, empty_run, joined_runs
from corpusmill.ngram_agg.full_tables import (
    NextTokens,
    backward_contexts,
    backward_key,
    backward_run,
    read_contexts,
)
from corpusmill.ngram_agg.merging import merge_runs, merge_streams
from corpusmill.ngram_agg.packing import Key, Packing
from corpusmill.ngram_agg.partitions import Cut
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.ngram_agg.targets import (
    TargetTable,
    make_target_table,
    open_target_table,
    save_target_table,
)
from corpusmill.pipelines.counts_merging import (
    SPILLED,
    CountsParts,
    find_cuts,
    merge_slices,
    merged_to_few,
    slices,
)
from corpusmill.pipelines.launching.local_workers import Workers, grouped

_ONE_TABLE = "table-one"
# As many as a part of counts has by default.
_STRETCH_NGRAMS = 1 << 22


@dataclasses.dataclass(frozen=True)
class TargetTables:
    """What the tables are made of.

    Attributes:
      writer: the dataset in the making, below which they live while it is made.
      packing: of the n-grams, forwards and backwards.
      options: what the targets are made of.
      counts_urls: the files of the counts dataset, n-grams rising from file to file.
      partition_rows: n-grams in one table; None for one table of all.
    """

    writer: DatasetWriter
    packing: Packing
    options: TargetOptions
    counts_urls: tuple[str, ...]
    partition_rows: int | None

    @property
    def parts(self) -> CountsParts:
        return CountsParts(self.writer, self.packing, self.partition_rows or 0)

    @property
    def layout(self) -> str:
        """Tells what was made for these tables from what an earlier run made for others."""
        return f"{self.partition_rows or 'one'}"

    @property
    def folder(self) -> str:
        """Of the one table."""
        return self.writer.scratch("table")


def make_one_table(tables: TargetTables) -> TargetTable:
    """The table of all contexts, in this process' memory."""
    return _make_table("table-here", tables, _all_contexts(tables))


def write_one_table(tables: TargetTables) -> None:
    """Writes the table of all contexts to storage, unless an earlier run has done it."""

    def save(table: TargetTable) -> None:
        save_target_table(tables.folder, table)

    if tables.writer.completion(_ONE_TABLE) is None:
        _make_table(_ONE_TABLE, tables, _all_contexts(tables), save)


def _all_contexts(tables: TargetTables) -> Iterator[NextTokens]:
    options = tables.options
    return read_contexts(tables.counts_urls, tables.packing, options.orders, options.min_count)


def spill_backward(number: int, tables: TargetTables) -> list[str]:
    """Turns a part of the counts round; returns URLs of the runs that this makes.

    Each is made unless an earlier attempt has done it, of so many n-grams that the memory that it
    takes is the same for parts of any size.
    """
    urls = []
    for stretch, ngrams in enumerate(_stretches(tables.counts_urls[number], tables.packing)):
        url = tables.writer.scratch("backward", f"{number:05d}-{stretch:05d}{SPILLED}")
        if not storage.exists(url):
            backward = backward_run(ngrams, tables.options.orders, tables.options.min_count)
            with storage.publish(url) as path:
                spill_runs(path, tables.packing, [backward])
        urls.append(url)
    return urls


def _stretches(url: str, packing: Packing) -> Iterator[CountsRun]:
    held = [empty_run(packing)]
    for block in read_counts(url, packing):
        held.append(block)
        if sum(map(len, held)) >= _STRETCH_NGRAMS:
            yield joined_runs(held)
            held = [empty_run(packing)]
    yield joined_runs(held)


def contexts_across(cut: Cut, packing: Packing) -> Iterator[Cut]:
    """Contexts, backwards, that positions on both sides of a cut may look up."""
    for length in range(len(cut)):
        if packing.end_of_document not in cut[:length]:
            yield cut[:length]


def split_pieces(source: str, tables: TargetTables, cuts: list[Cut]) -> list[tuple[Cut, CountsRun]]:
    """A run's part of every context that is split by a cut."""
    found = []
    contexts = {context for cut in cuts for context in contexts_across(cut, tables.packing)}
    for context in sorted(contexts):
        pieces = list(read_spilled(source, tables.packing, *_bounds(context, tables.packing)))
        if any(map(len, pieces)):
            found.append((context, merge_runs(pieces)))
    return found


def to_tables(split: tuple[Cut, CountsRun], cuts: list[Cut]) -> Iterator[tuple[int, CountsRun]]:
    """A split context, to the tables on both sides of the cuts that it is a prefix of."""
    context, run = split
    cut_here = {i for i, cut in enumerate(cuts) if cut[: len(context)] == context}
    for number in sorted(cut_here | {i + 1 for i in cut_here}):
        yield number, run


def make_table(
    number: int, sources: dict[str, list], tables: TargetTables, cuts: list[Cut]
) -> TargetTable:
    """One of several tables, in this process' memory.

    Args:
      number: of the table.
      sources: `slices`, a list of those of the runs turned round, and `split`, contexts that are
        cut.
      tables: what they are made of.
      cuts: between them.
    """
    split = merge_runs([empty_run(tables.packing), *sources["split"]])
    of_runs = merged_to_few(chain.from_iterable(sources["slices"]), tables.parts)
    whole = merge_slices(of_runs, tables.packing)
    bounds = [
        _bounds(context, tables.packing)
        for cut in cuts[max(0, number - 1) : number + 1]
        for context in contexts_across(cut, tables.packing)
    ]
    runs = merge_streams([_without(whole, sorted(set(bounds))), iter([split])])
    contexts = backward_contexts(tables.packing, runs, tables.options.min_count)
    return _make_table(f"table-{tables.layout}-{number:05d}", tables, contexts)


def _make_table(
    part: str,
    tables: TargetTables,
    contexts: Iterator[NextTokens],
    save: Callable[[TargetTable], None] | None = None,
) -> TargetTable:
    """A table of contexts; leaves its completion record."""
    started = time.perf_counter()
    progress = Progress(tables.writer, "tables", part)

    def noted() -> Iterator[NextTokens]:
        for each in contexts:
            yield each
            progress.add(len(each))

    table = make_target_table(tables.packing, tables.options, noted())
    if save is not None:
        save(table)
    progress.finish()
    counters = {
        "contexts_of_tables": len(table),
        "table_bytes": sum(column.nbytes for column in table.columns().values()),
        "table_seconds": time.perf_counter() - started,
    }
    tables.writer.complete(part, Completion((), counters))
    return table


def _bounds(context: Cut, packing: Packing) -> tuple[Key, Key]:
    """The keys between which the n-grams of a context lie that is given backwards."""
    high, low = backward_key(packing, context[::-1])
    beyond = (high << 64 | low) + (1 << packing.token_bits)
    return (high, low), (beyond >> 64, beyond & (1 << 64) - 1)


def _without(runs: Iterator[CountsRun], bounds: Iterable[tuple[Key, Key]]) -> Iterator[CountsRun]:
    """The n-grams outside of some stretches of keys."""
    for run in runs:
        first = 0
        for lower, upper in bounds:
            yield run[first : run.lower_bound(lower)]
            first = run.lower_bound(upper)
        yield run[first:]


def find_sources(
    tables: TargetTables, workers: Workers
) -> tuple[list[Cut], dict[int, dict[str, list]]]:
    """Turns the counts round; gives the cuts between tables, and by number what tables are made of.

    See `make_table`.
    """
    spilled = workers.map(spill_backward, range(len(tables.counts_urls)), tables)
    runs = list(chain.from_iterable(spilled))
    cuts = find_cuts(runs, tables.parts, workers)
    pieces = grouped(chain.from_iterable(workers.map(split_pieces, runs, tables, cuts)))
    divided = ((context, merge_runs(each)) for context, each in pieces.items())
    split = grouped(each for context in divided for each in to_tables(context, cuts))
    of_runs = grouped(each for run in runs for each in slices(run, cuts))
    return cuts, {
        number: {"slices": [of_runs[number]], "split": split.get(number, [])} for number in of_runs
    }


@functools.lru_cache(maxsize=1)
def open_one_table(tables: TargetTables) -> TargetTable:
    """The one table, memory-mapped from storage, or from a copy in the temporary files."""
    return open_target_table(
        tables.folder, tables.packing, tables.options, made_of=tables.writer.config
    )
