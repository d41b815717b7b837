"""The second half of `enrich`: every position of the tokens gets its target from a table.

With one table, each worker maps it and reads, looks up and writes file by file. With several, the
tokens go through in chunks:

1. ask: the distinct contexts of a chunk's positions, sorted, go into files with a row group for
   each table that has some of them.
2. answer: a worker makes a table, reads the table's row group of every chunk, and writes the
   contexts' heads and the positions' draws.
3. write: a file's positions get back what was found for their contexts.

Only the names of these files pass between workers. Both ways look up the same contexts with the
same code, so they write the same bytes.
"""

import dataclasses
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.corpus import parquet, storage
from corpusmill.corpus.datasets import Completion, Manifest
from corpusmill.corpus.errors import DataError
from corpusmill.corpus.progress import Progress
from corpusmill.corpus.tokens import read_rows
from corpusmill.ngram_agg import join_files
from corpusmill.ngram_agg.heads import Targets
from corpusmill.ngram_agg.partitions import Cut
from corpusmill.ngram_agg.positions import PositionRows, joined_documents, read_positions
from corpusmill.ngram_agg.targets import TargetTable, make_targets
from corpusmill.ngram_agg.targets_files import TargetsWriter, heads_name
from corpusmill.pipelines.launching.local_workers import Workers, grouped
from corpusmill.pipelines.target_tables import TargetTables, make_table, open_one_table

# Row groups of tokens in a chunk, of a million tokens each, whose positions are in memory; fewer
# where many tokens are drawn.
_CHUNK_ROW_GROUPS = 8
_CHUNK_DRAWS = 40

Chunk = tuple[int, int]
"""A file of tokens and its first row group, by number."""
Asked = tuple[int, int, int]
"""A chunk, and the place of what it asks of a table."""
Answered = tuple[int, int, int, int]
"""The first row group of a chunk, the place of its questions, a table, the place of its answers."""


@dataclasses.dataclass(frozen=True)
class TokenFiles:
    """The tokens that get targets.

    Attributes:
      folder: of the tokens dataset.
      names: its files.
      sha256: of each of them.
      tables: where the targets come from.
    """

    folder: str
    names: tuple[str, ...]
    sha256: tuple[str, ...]
    tables: TargetTables

    @classmethod
    def of(cls, folder: str, manifest: Manifest, tables: TargetTables) -> "TokenFiles":
        records = manifest.data_files
        names = tuple(record.name for record in records)
        return cls(folder, names, tuple(record.sha256 for record in records), tables)

    @property
    def chunk_row_groups(self) -> int:
        return max(1, min(_CHUNK_ROW_GROUPS, _CHUNK_DRAWS // (1 + self.tables.options.tail_draws)))

    def url(self, number: int) -> str:
        return storage.join(self.folder, self.names[number])

    def read(self, number: int, groups: range | None = None) -> Iterator[PositionRows]:
        """The positions of row groups of a file, by default of all."""
        tables = self.tables
        return read_positions(self.url(number), tables.packing, tables.options.seed, groups)

    def chunk_groups(self, chunk: Chunk) -> range:
        number, first = chunk
        with parquet.open_reader(self.url(number)) as file:
            return range(first, min(first + self.chunk_row_groups, file.num_row_groups))

    def is_written(self, number: int) -> bool:
        return self.tables.writer.completion(self.names[number]) is not None


def write_with_table(number: int, files: TokenFiles, table: TargetTable | None = None) -> int:
    """Writes the targets of a file, unless an earlier run has done it.

    Args:
      number: of the file.
      files: all of them.
      table: of all contexts; by default the one that was saved.
    """

    def targets() -> Iterator[tuple[Targets, npt.NDArray[np.int64]]]:
        opened = open_one_table(files.tables) if table is None else table
        for rows in files.read(number):
            yield make_targets(opened, rows.positions), rows.ends

    if not files.is_written(number):
        _write_file(files, number, targets())
    return number


def join_many(
    files: TokenFiles, cuts: list[Cut], sources: dict[int, dict[str, list]], workers: Workers
) -> None:
    """Writes the targets of all files from tables that are made of `sources`."""
    numbers = range(len(files.names))
    asking = chain.from_iterable(
        storage.in_threads(lambda number: list(chunks(number, files)), numbers)
    )
    asked = grouped(chain.from_iterable(workers.map(ask, asking, files, cuts)))
    tables = [(number, {**sources[number], "asked": asked[number]}) for number in sorted(asked)]
    answered = grouped(chain.from_iterable(workers.map(answer, tables, files, cuts)))
    workers.map(write_answered, answered.items(), files)


def _write_file(
    files: TokenFiles, number: int, groups: Iterable[tuple[Targets, npt.NDArray[np.int64]]]
) -> None:
    """Writes the targets of a file, a row group after the other, and its completion record."""
    tables, name = files.tables, files.names[number]
    started = time.perf_counter()
    progress = Progress(tables.writer, "targets", name)
    with (
        tables.writer.new_file(name) as file,
        tables.writer.new_file(heads_name(name)) as heads,
        TargetsWriter(file.path, heads.path, tables.packing, files.sha256[number]) as output,
    ):
        for targets, ends in groups:
            output.write(targets, ends)
            progress.add(len(targets))
        output.close()
        file.rows, file.tokens, heads.rows = output.rows, output.positions, output.heads
    progress.finish()
    counters = {
        "positions": output.positions,
        "positions_without_context": int(output.by_order[-1]),
        "heads": output.heads,
        "target_seconds": time.perf_counter() - started,
    }
    for order in tables.options.orders:
        counters[f"positions_of_order_{order}"] = int(output.by_order[order])
    tables.writer.complete(name, Completion((file.written, heads.written), counters))


def chunks(number: int, files: TokenFiles) -> Iterator[Chunk]:
    """The chunks of a file without targets."""
    if not files.is_written(number):
        with parquet.open_reader(files.url(number)) as file:
            for first in range(0, file.num_row_groups, files.chunk_row_groups):
                yield number, first


def ask(chunk: Chunk, files: TokenFiles, cuts: list[Cut]) -> list[tuple[int, Asked]]:
    """Writes what a chunk asks, unless an earlier run has done it.

    Returns:
      For each table that is asked, its number and who asks it.
    """
    writer = files.tables.writer
    part = f"ask-{files.tables.layout}-{_chunk_name(chunk)}"
    if writer.completion(part) is None:
        started = time.perf_counter()
        progress = Progress(writer, "questions", part)
        rows = []
        for each in files.read(chunk[0], files.chunk_groups(chunk)):
            rows.append(each)
            progress.add(len(each.positions))
        questions = join_files.find_questions(
            files.tables.packing, [each.positions for each in rows]
        )
        documents = joined_documents([(each.documents, len(each.positions)) for each in rows])
        with storage.publish(_documents_url(files, chunk)) as path:
            join_files.write_documents(path, documents)
            size = os.path.getsize(path)
        asked = join_files.divided(questions, cuts)
        for place in range(0, len(asked), join_files.ROW_GROUPS):
            some = [part for _, part in asked[place : place + join_files.ROW_GROUPS]]
            with storage.publish(_questions_at(files, chunk, place)[0]) as path:
                join_files.write_questions(path, files.tables.packing, some)
                size += os.path.getsize(path)
        _write_list(_asked_url(files, chunk), [table for table, _ in asked])
        progress.finish()
        writer.complete(part, _spilled(size, started))
    tables = _read_list(_asked_url(files, chunk))
    return [(table, (*chunk, place)) for place, table in enumerate(tables)]


def answer(
    table: tuple[int, dict[str, list]], files: TokenFiles, cuts: list[Cut]
) -> list[tuple[int, Answered]]:
    """Makes a table and writes its answers to all chunks, unless an earlier run has done it.

    Args:
      table: its number; what it is made of, as for `make_table`; and `asked`, who asks it.
      files: what gets targets.
      cuts: between the tables.

    Returns:
      For each who asks, the file's number and where the answers are.
    """
    number, sources = table
    asking: list[Asked] = sorted(sources["asked"])
    if not asking:
        return []
    writer = files.tables.writer
    part = f"answer-{files.tables.layout}-{number:05d}"
    answered = _answered_url(files, number)
    if writer.completion(part) is None:
        made = make_table(number, sources, files.tables, cuts)
        started = time.perf_counter()
        progress = Progress(writer, "answers", part)
        size = 0
        for place in range(0, len(asking), join_files.ROW_GROUPS):
            some = asking[place : place + join_files.ROW_GROUPS]
            with storage.publish(_answers_at(files, number, place)[0]) as path:
                _write_answers(path, made, some, files, progress)
                size += os.path.getsize(path)
        _write_list(answered, asking)
        progress.finish()
        writer.complete(part, _spilled(size, started))
    # An earlier run may have answered more: files that are written don't ask again.
    answers = {tuple(each): place for place, each in enumerate(_read_list(answered))}
    return [
        (file, (first, place, number, answers[file, first, place])) for file, first, place in asking
    ]


def _write_answers(
    path: str,
    table: TargetTable,
    asking: Iterable[Asked],
    files: TokenFiles,
    progress: Progress,
) -> None:
    packing = files.tables.packing
    with join_files.AnswersWriter(path, packing) as output:
        for file, first, place in asking:
            chunk = file, first
            questions = join_files.read_questions(*_questions_at(files, chunk, place), packing)
            documents = join_files.read_documents(_documents_url(files, chunk))
            output.write(join_files.find_answers(table, questions, documents))
            progress.add(len(questions.positions))


def write_answered(answered: tuple[int, Iterable[Answered]], files: TokenFiles) -> int:
    """Writes the targets of a file from the answers to its chunks; returns its number."""
    number, found = answered

    def targets() -> Iterator[tuple[Targets, npt.NDArray[np.int64]]]:
        for first, parts in groupby(sorted(found), key=lambda each: each[0]):
            yield from _chunk_targets(files, (number, first), list(parts))

    if not files.is_written(number):
        _write_file(files, number, targets())
    return number


def _chunk_targets(
    files: TokenFiles, chunk: Chunk, answered: list[Answered]
) -> Iterator[tuple[Targets, npt.NDArray[np.int64]]]:
    """The row groups of a chunk."""
    packing = files.tables.packing
    rows = list(read_rows(files.url(chunk[0]), files.chunk_groups(chunk)))
    targets = join_files.collect_targets(
        packing,
        files.tables.options,
        np.concatenate([tokens for tokens, _ in rows]),
        (
            (
                join_files.read_askers(*_questions_at(files, chunk, asked)),
                join_files.read_answers(*_answers_at(files, table, place)),
            )
            for _, asked, table, place in answered
        ),
    )
    parts = targets.split([len(tokens) for tokens, _ in rows])
    return zip(parts, (ends for _, ends in rows), strict=True)


def _chunk_name(chunk: Chunk) -> str:
    number, first = chunk
    return f"{number:05d}-{first:06d}"


def _questions_at(files: TokenFiles, chunk: Chunk, place: int) -> tuple[str, int]:
    """The file, and the row group in it, of the questions at a place among those of a chunk."""
    return _row_group(files, "questions", _chunk_name(chunk), place)


def _asked_url(files: TokenFiles, chunk: Chunk) -> str:
    """Of the numbers of the tables that a chunk asks, rising."""
    return _scratch(files, "questions", f"{_chunk_name(chunk)}.json")


def _documents_url(files: TokenFiles, chunk: Chunk) -> str:
    return _scratch(files, "questions", f"{_chunk_name(chunk)}.arrow")


def _answers_at(files: TokenFiles, table: int, place: int) -> tuple[str, int]:
    """The file, and the row group in it, of the answers at a place among those of a table."""
    return _row_group(files, "answers", f"{table:05d}", place)


def _answered_url(files: TokenFiles, table: int) -> str:
    """Of whom a table answers, in their places."""
    return _scratch(files, "answers", f"{table:05d}.json")


def _row_group(files: TokenFiles, kind: str, name: str, place: int) -> tuple[str, int]:
    number, group = divmod(place, join_files.ROW_GROUPS)
    return _scratch(files, kind, f"{name}-{number:05d}.parquet"), group


def _scratch(files: TokenFiles, kind: str, name: str) -> str:
    return files.tables.writer.scratch(kind, files.tables.layout, name)


def _write_list(url: str, items: Sequence[Any]) -> None:
    storage.write_bytes(url, json.dumps(items).encode())


def _read_list(url: str) -> list[Any]:
    try:
        found: list[Any] = json.loads(storage.read_bytes(url))
    except ValueError as error:
        raise DataError(f"{url} is damaged; remove the output and run it again") from error
    return found


def _spilled(size: int, started: float) -> Completion:
    return Completion((), {"spilled_bytes": size, "join_seconds": time.perf_counter() - started})
