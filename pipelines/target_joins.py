"""The second half of `enrich`: every position of the tokens gets its target from a table.

`Broadcast`: each worker holds the one table and reads, looks up and writes file by file. `Shuffle`:
positions go to the table of their context, and their targets back, a batch of a chunk's positions
for each table. Both look up the same rows with the same code, so they write the same bytes.
"""

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpus import parquet, storage
from corpus.datasets import Completion
from ngram_agg import targets_files
from ngram_agg.compiled import compiled
from ngram_agg.packing import Words, pack_one
from ngram_agg.partitions import Cut
from ngram_agg.targets import (
    Positions,
    Targets,
    find_positions,
    hash_strings,
    make_targets,
)
from pipelines.progress import Progress
from pipelines.target_tables import TargetTables, open_table

_CHUNK = "chunk"


@dataclasses.dataclass(frozen=True)
class TokenFiles:
    """The tokens that get targets.

    Attributes:
      folder: of the tokens dataset.
      names: its files.
      tables: where the targets come from.
    """

    folder: str
    names: tuple[str, ...]
    tables: TargetTables


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of one row group of tokens.

    Attributes:
      ends: int64 [rows], where each row's tokens end.
      positions: of all their tokens.
    """

    ends: npt.NDArray[np.int64]
    positions: Positions


def read_rows(files: TokenFiles, number: int) -> Iterator[Rows]:
    """The row groups of a file, one after the other."""
    packing, seed = files.tables.packing, files.tables.options.seed
    position = 0
    before = np.empty(0, packing.token_dtype)
    with parquet.open_reader(storage.join(files.folder, files.names[number])) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["doc_id", "tokens"], use_threads=False)
            tokens = parquet.column_values(table, "tokens")
            ends = parquet.list_offsets(table, "tokens")[1:]
            hashes = _hash_ids(table.column("doc_id").combine_chunks())
            found = find_positions(packing, tokens, ends, hashes, position, before, seed)
            yield Rows(ends, found)
            # A document may go on in the next row group.
            ends_of_documents = np.flatnonzero(tokens == packing.end_of_document)
            if len(ends_of_documents):
                position = len(tokens) - 1 - int(ends_of_documents[-1])
            else:
                position += len(tokens)
            before = tokens[len(tokens) - min(position, packing.max_order, len(tokens)) :]


def _hash_ids(ids: pa.StringArray) -> Words:
    _, offsets, data = ids.buffers()
    starts = np.frombuffer(offsets, np.int32)[ids.offset : ids.offset + len(ids) + 1]
    return hash_strings(starts, np.frombuffer(data or b"", np.uint8))


class Broadcast(beam.PTransform):
    """Numbers of files -> the same, with their targets written from the one table."""

    def __init__(self, files: TokenFiles, built: dict[str, beam.PCollection]) -> None:
        super().__init__()
        self._files = files
        self._built = built

    def expand(self, numbers: beam.PCollection) -> beam.PCollection:
        ready = beam.pvalue.AsList(self._built["tables"])
        return numbers | "Write" >> beam.Map(_write_with_table, self._files, ready)


def _write_with_table(number: int, files: TokenFiles, _ready: list[int]) -> int:
    def targets() -> Iterator[tuple[npt.NDArray[np.int64], Targets]]:
        for rows in read_rows(files, number):
            yield rows.ends, make_targets(open_table(files.tables, 0), rows.positions)

    if files.tables.writer.completion(files.names[number]) is None:
        write_file(files, number, targets())
    return number


def write_file(
    files: TokenFiles, number: int, groups: Iterable[tuple[npt.NDArray[np.int64], Targets]]
) -> None:
    """Writes the targets of a file, a row group after the other, and its completion record."""
    tables, name = files.tables, files.names[number]
    started = time.perf_counter()
    progress = Progress(tables.writer, "targets", name)
    counters = {"positions": 0, "positions_without_context": 0}
    with tables.writer.new_file(name) as file:
        with targets_files.open_writer(file.path, tables.packing) as output:
            for ends, targets in groups:
                output.write(targets_files.targets_to_batch(tables.packing, targets, ends))
                output.end_row_group()
                by_order = np.bincount(targets.orders, minlength=256)
                file.tokens += len(targets.orders)
                for order in tables.options.orders:
                    key = f"positions_of_order_{order}"
                    counters[key] = counters.get(key, 0) + int(by_order[order])
                counters["positions_without_context"] += int(by_order[255])
                progress.add(len(targets.orders))
        file.rows = output.rows
    progress.note()
    counters["positions"] = file.tokens
    seconds = {"target_seconds": time.perf_counter() - started}
    tables.writer.complete(name, Completion((file.written,), counters | seconds))


class Shuffle(beam.PTransform):
    """Numbers of files -> the same, with their targets written from tables of bounded size."""

    def __init__(self, files: TokenFiles, built: dict[str, beam.PCollection]) -> None:
        super().__init__()
        self._files = files
        self._built = built

    def expand(self, numbers: beam.PCollection) -> beam.PCollection:
        files = self._files
        cuts = beam.pvalue.AsSingleton(self._built["cuts"])
        ready = beam.pvalue.AsList(self._built["tables"])
        batches = tuple[int, pa.RecordBatch]
        return (
            numbers
            | "Ask" >> beam.FlatMap(ask, files, cuts).with_output_types(batches)
            | "ToTables" >> beam.GroupByKey()
            | "Answer"
            >> beam.FlatMap(answer, files.tables, ready).with_output_types(
                tuple[str, pa.RecordBatch]
            )
            | "ToChunks" >> beam.GroupByKey()
            | "Collect" >> beam.Map(collect, files).with_output_types(tuple[int, str])
            | "ToFiles" >> beam.GroupByKey()
            | "Write" >> beam.Map(write_chunks, files)
        )


def ask(number: int, files: TokenFiles, cuts: list[Cut]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The positions of a file, a batch for each row group and table that has their contexts."""
    if files.tables.writer.completion(files.names[number]) is not None:
        return
    keys = [pack_one(files.tables.packing, cut) for cut in cuts]
    cut_high, cut_low = np.array([*keys, (0, 0)], np.uint64)[: len(keys)].T.copy()
    for group, rows in enumerate(read_rows(files, number)):
        positions = rows.positions
        table_of = _tables_of(positions.high, positions.low, cut_high, cut_low)
        order = np.argsort(table_of, kind="stable")
        ends = np.cumsum(np.bincount(table_of, minlength=len(cuts) + 1))
        metadata = {_CHUNK: f"{number} {group}"}
        for table, (first, last) in enumerate(itertools.pairwise([0, *ends.tolist()])):
            if last > first:
                yield table, _to_batch(positions, order[first:last], metadata)


def _to_batch(positions: Positions, chosen: Any, metadata: dict[str, str]) -> pa.RecordBatch:
    columns = {
        field.name: getattr(positions, field.name) for field in dataclasses.fields(Positions)
    }
    arrays = {"position": chosen.astype(np.uint32)}
    arrays |= {name: values[chosen] for name, values in columns.items()}
    return pa.record_batch(arrays).replace_schema_metadata(metadata)


def answer(
    asked: tuple[int, Iterable[pa.RecordBatch]], tables: TargetTables, _ready: list[int]
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The targets of all positions whose contexts are in one table."""
    number, batches = asked
    table = open_table(tables, number)
    for batch in batches:
        columns = {name: batch.column(name).to_numpy() for name in batch.schema.names}
        asked_at = columns.pop("position")
        targets = make_targets(table, Positions(**columns))
        slots = pa.list_(pa.from_numpy_dtype(targets.tokens.dtype), tables.options.slots)
        weights = pa.list_(pa.uint16(), tables.options.slots)
        found = {
            "position": asked_at,
            "tokens": pa.FixedSizeListArray.from_arrays(targets.tokens.reshape(-1), type=slots),
            "weights": pa.FixedSizeListArray.from_arrays(targets.weights.reshape(-1), type=weights),
            "orders": targets.orders,
        }
        chunk = batch.schema.metadata[_CHUNK.encode()].decode()
        yield chunk, pa.record_batch(found)


def collect(answered: tuple[str, Iterable[pa.RecordBatch]], files: TokenFiles) -> tuple[int, str]:
    """Puts the targets of a row group in their places, into a file of its own."""
    number, group = map(int, answered[0].split())
    tables = files.tables
    with parquet.open_reader(storage.join(files.folder, files.names[number])) as file:
        table = file.read_row_group(group, columns=["tokens"], use_threads=False)
        ends = parquet.list_offsets(table, "tokens")[1:]
    shape = ends[-1], tables.options.slots
    tokens = np.empty(shape, tables.packing.token_dtype)
    weights = np.empty(shape, np.uint16)
    orders = np.empty(shape[0], np.uint8)
    for batch in answered[1]:
        places = batch.column("position").to_numpy()
        tokens[places] = batch.column("tokens").flatten().to_numpy().reshape(-1, shape[1])
        weights[places] = batch.column("weights").flatten().to_numpy().reshape(-1, shape[1])
        orders[places] = batch.column("orders").to_numpy()
    targets = Targets(tokens, weights, orders)
    rows = targets_files.targets_to_batch(tables.packing, targets, ends)
    url = tables.writer.scratch("chunks", f"{number:05d}-{group:05d}.arrow")
    with storage.publish(url) as path, pa.ipc.new_file(path, rows.schema) as file:
        file.write_batch(rows)
    return number, url


def write_chunks(chunks: tuple[int, Iterable[str]], files: TokenFiles) -> int:
    """Writes a file from its row groups."""
    number, urls = chunks

    def groups() -> Iterator[tuple[npt.NDArray[np.int64], Targets]]:
        for url in sorted(urls):
            with storage.open_arrow(url) as source, pa.ipc.open_file(source) as file:
                yield targets_files.targets_of_batch(file.get_batch(0), files.tables.options.slots)

    if files.tables.writer.completion(files.names[number]) is None:
        write_file(files, number, groups())
    for url in urls:
        storage.remove_tree(url)
    return number


@compiled
def _tables_of(high: Words, low: Words, cut_high: Words, cut_low: Words) -> Words:
    numbers = np.empty(len(low), np.int64)
    for i in range(len(low)):
        first = 0
        last = len(cut_low)
        while first < last:
            middle = (first + last) // 2
            above = np.uint64(high[i])
            if cut_high[middle] < above or (
                cut_high[middle] == above and cut_low[middle] <= low[i]
            ):
                first = middle + 1
            else:
                last = middle
        numbers[i] = first
    return numbers
