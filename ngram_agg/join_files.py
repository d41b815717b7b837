"""What goes between positions and tables that no worker holds all of: questions and answers.

A *question* is a context that some positions of a chunk have, and an answer its head, with what
was drawn for each of these positions. A chunk's questions are Parquet files with a row group for
each table that is asked; a table's answers are files with a row group for each that asked it. These
files live as long as a job.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.corpus import parquet, storage
from corpusmill.corpus.errors import DataError
from corpusmill.corpus.ragged import offsets_of
from corpusmill.ngram_agg.compiled import compiled, prefetch
from corpusmill.ngram_agg.full_tables import context_lengths
from corpusmill.ngram_agg.heads import (
    NO_HEAD,
    Heads,
    Targets,
    join_heads,
    number_rows,
    observed_heads,
)
from corpusmill.ngram_agg.packing import Packing, Tokens, Words, lower_bound, pack_one
from corpusmill.ngram_agg.partitions import Cut
from corpusmill.ngram_agg.positions import Documents, Positions
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.ngram_agg.targets import TargetTable, draw, replace_observed

# In a file at most. Each takes some hundred bytes of the footer, all of which is read for any one.
ROW_GROUPS = 64
_MOST_BUCKET_BITS = 16
_AHEAD = 16


@dataclass(frozen=True)
class Askers:
    """The positions that each of some questions is about.

    Attributes:
      offsets: int64 [questions + 1].
      positions: uint32; question i is about those from offsets[i] to offsets[i + 1], which rise.
    """

    offsets: npt.NDArray[np.int64]
    positions: Words


@dataclass(frozen=True)
class Questions:
    """The distinct contexts of some positions.

    Attributes:
      packing: of their keys.
      high, low: keys of the longest context before each position, rising.
      offsets, positions: as in `Askers`.
    """

    packing: Packing
    high: Words
    low: Words
    offsets: npt.NDArray[np.int64]
    positions: Words

    def __len__(self) -> int:
        return len(self.low)

    def part(self, first: int, last: int) -> "Questions":
        """Contexts `first` to `last` (exclusive)."""
        offsets = self.offsets[first : last + 1]
        positions = self.positions[offsets[0] : offsets[-1]]
        return Questions(
            self.packing,
            self.high[first:last],
            self.low[first:last],
            offsets - offsets[0],
            positions,
        )


def find_questions(packing: Packing, parts: Sequence[Positions]) -> Questions:
    """The questions of positions that follow one another."""
    high = np.concatenate([part.high for part in parts])
    low = np.concatenate([part.low for part in parts])
    order = _sorted_positions(packing, high, low)
    distinct_high, distinct_low = np.empty_like(high), np.empty_like(low)
    offsets = np.zeros(len(low) + 1, np.int64)
    count = _find_distinct(high, low, order, distinct_high, distinct_low, offsets)
    return Questions(
        packing, distinct_high[:count], distinct_low[:count], offsets[: count + 1], order
    )


def _sorted_positions(packing: Packing, high: Words, low: Words) -> Words:
    """Positions by key, then by themselves: uint32."""
    position_bits = max(1, (len(low) - 1).bit_length())
    key_bits = packing.max_order * packing.token_bits
    bucket_bits = max(0, key_bits + position_bits - 64)
    if key_bits > 64 or bucket_bits > _MOST_BUCKET_BITS:
        return np.lexsort((low, high)).astype(np.uint32)
    # numpy sorts single words with SIMD, an order of magnitude faster than it finds an order. So
    # the first bits of the keys choose a bucket, and the others share a word with the position.
    words = np.empty_like(low)
    starts = np.zeros((1 << bucket_bits) + 1, np.int64)
    _fill_buckets(
        high, low, packing.token_bits, key_bits - bucket_bits, position_bits, starts, words
    )
    for first, last in itertools.pairwise(starts.tolist()):
        if last - first > 1:
            words[first:last].sort()
    return (words & np.uint64((1 << position_bits) - 1)).astype(np.uint32)


def divided(questions: Questions, cuts: Sequence[Cut]) -> list[tuple[int, Questions]]:
    """The questions for each table between cuts that has any, with the table's number."""
    keys = questions.high, questions.low
    firsts = (lower_bound(*keys, pack_one(questions.packing, cut)) for cut in cuts)
    bounds = itertools.pairwise([0, *firsts, len(questions)])
    return [
        (table, questions.part(first, last))
        for table, (first, last) in enumerate(bounds)
        if first < last
    ]


def write_questions(path: str, packing: Packing, parts: Iterable[Questions]) -> None:
    """Writes questions, a row group for each part."""
    schema = pa.schema(
        {
            "high": pa.from_numpy_dtype(packing.high_dtype),
            "low": pa.uint64(),
            "positions": pa.list_(pa.uint32()),
        }
    )
    with parquet.RowGroupWriter(path, schema, parquet.NO_ROW_LIMIT) as writer:
        for part in parts:
            lists = pa.ListArray.from_arrays(
                pa.array(part.offsets.astype(np.int32)), pa.array(part.positions)
            )
            writer.write(pa.record_batch([part.high, part.low, lists], schema=schema))
            writer.end_row_group()


def read_questions(url: str, group: int, packing: Packing) -> Questions:
    """The questions in a row group."""
    with parquet.open_reader(url) as file:
        table = file.read_row_group(group, use_threads=False)
        high, low, positions = (parquet.column_values(table, name) for name in table.column_names)
        return Questions(packing, high, low, parquet.list_offsets(table, "positions"), positions)


def read_askers(url: str, group: int) -> Askers:
    """The positions of the questions in a row group."""
    with parquet.open_reader(url) as file:
        table = file.read_row_group(group, columns=["positions"], use_threads=False)
        offsets = parquet.list_offsets(table, "positions")
        return Askers(offsets, parquet.column_values(table, "positions"))


def write_documents(path: str, documents: Documents) -> None:
    """Writes the documents of a chunk."""
    batch = pa.record_batch({"start": documents.starts, "base": documents.bases})
    with pa.ipc.new_file(path, batch.schema) as writer:
        writer.write_batch(batch)


def read_documents(url: str) -> Documents:
    """The inverse of `write_documents`.

    Raises:
      DataError: the file is missing or damaged.
    """
    with parquet.naming(url), storage.open_arrow(url) as source, pa.ipc.open_file(source) as file:
        return Documents(*(column.to_numpy() for column in file.get_batch(0).columns))


@dataclass(frozen=True)
class Answers:
    """What a table says to questions.

    Attributes:
      head: uint32 [contexts], the head of each context, or `NO_HEAD`.
      heads: what `head` counts.
      drawn: ids, for the positions of the first context, of the second, ...
    """

    head: Words
    heads: Heads
    drawn: Tokens


def find_answers(table: TargetTable, questions: Questions, documents: Documents) -> Answers:
    """The answers to questions whose contexts a table has, or nobody has.

    Args:
      table: the table.
      questions: of a chunk.
      documents: of the same chunk.
    """
    keys = questions.high, questions.low
    lengths = context_lengths(questions.packing, *keys)
    rows = table.index.longest(*keys, lengths, table.options.orders)
    head = np.full(len(rows), NO_HEAD)
    is_found = rows >= 0
    used, head[is_found] = number_rows(rows[is_found])
    # Of each position; those that nothing is drawn for need no hash.
    rows = np.repeat(rows, np.diff(questions.offsets))
    drawing = np.flatnonzero((rows >= 0) & (table.heads.draws[rows] > 0))
    rows = rows[drawing]
    hashes = documents.hashes(questions.positions[drawing])
    size = int(table.heads.draws[rows].sum(dtype=np.int64))
    # Nobody's target is the observed token here: whoever asks puts those in.
    drawn = draw(table, rows, hashes, np.empty(0, table.packing.token_dtype), size)
    return Answers(head, table.heads.take(used), drawn)


class AnswersWriter:
    """Writes answers of a table; those to one who asked are a row of lists, a row group."""

    def __init__(self, path: str, packing: Packing) -> None:
        """Prepares a file at a local path."""
        self._schema = _answers_schema(packing)
        self._writer = parquet.RowGroupWriter(path, self._schema, 1)

    def __enter__(self) -> "AnswersWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.__exit__(*exception)

    def write(self, answers: Answers) -> None:
        """Adds the answers to one who asked."""
        heads = answers.heads
        sizes = np.diff(heads.offsets).astype(np.uint16)
        columns = (answers.head, answers.drawn, sizes, *heads.values)
        lists = [
            pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), pa.array(values))
            for values in columns
        ]
        self._writer.write(pa.record_batch(lists, schema=self._schema))


def _answers_schema(packing: Packing) -> pa.Schema:
    token = pa.from_numpy_dtype(packing.token_dtype)
    kinds = {
        "head": pa.uint32(),
        "drawn": token,
        "sizes": pa.uint16(),
        "tokens": token,
        "weights": pa.uint16(),
        "orders": pa.uint8(),
        "draws": pa.uint16(),
    }
    return pa.schema({name: pa.list_(kind) for name, kind in kinds.items()})


def read_answers(url: str, group: int) -> Answers:
    """The answers in a row group."""
    with parquet.open_reader(url) as file:
        table = file.read_row_group(group, use_threads=False)
        head, drawn, sizes, *heads = (
            parquet.column_values(table, name) for name in table.column_names
        )
    return Answers(head, Heads(offsets_of(sizes), *heads), drawn)


def collect_targets(
    packing: Packing,
    options: TargetOptions,
    observed: Tokens,
    parts: Iterable[tuple[Askers, Answers]],
) -> Targets:
    """The targets of a chunk.

    Args:
      packing: of the contexts.
      options: what the targets are made of.
      observed: the token at each position of the chunk.
      parts: who asked all its questions, and the answers.

    Raises:
      DataError: these don't go together, or not with the chunk.
    """
    found = list(parts)
    for askers, answers in found:
        _check_answers(askers, answers, len(observed))
    if sum(len(askers.positions) for askers, _ in found) != len(observed):
        raise DataError("not all positions of a chunk have been answered; run it again")
    rows = np.empty(len(observed), np.int64)
    first_head = 0
    for askers, answers in found:
        _place_heads(askers.offsets, askers.positions, answers.head, first_head, rows)
        first_head += len(answers.heads)
    heads = join_heads([*(answers.heads for _, answers in found), observed_heads(packing)])
    size = replace_observed(options, heads, rows, observed)
    starts = offsets_of(heads.draws[rows])
    drawn = np.empty(size, packing.token_dtype)
    is_observed = rows >= first_head
    drawn[starts[:-1][is_observed]] = observed[is_observed]
    for askers, answers in found:
        _place_drawn(
            askers.offsets,
            askers.positions,
            answers.head,
            answers.heads.draws,
            answers.drawn,
            starts,
            drawn,
        )
    return Targets(heads, rows, drawn)


def _check_answers(askers: Askers, answers: Answers, positions: int) -> None:
    head = answers.head[answers.head != NO_HEAD]
    is_sound = len(answers.head) == len(askers.offsets) - 1 and (
        not len(askers.positions) or askers.positions.max() < positions
    )
    is_sound = is_sound and (not len(head) or int(head.max()) < len(answers.heads))
    if is_sound:
        uses = np.diff(askers.offsets)[answers.head != NO_HEAD]
        is_sound = int(answers.heads.draws[head] @ uses) == len(answers.drawn)
    if not is_sound:
        raise DataError("answers don't fit their questions; remove the output and run it again")


@compiled
def _fill_buckets(
    high: Words,
    low: Words,
    token_bits: int,
    rest_bits: int,
    position_bits: int,
    starts: npt.NDArray[np.int64],
    words: Words,
) -> None:
    shift = np.uint64(token_bits)
    carry = np.uint64(64 - token_bits)
    rest = np.uint64(rest_bits)
    mask = ~np.uint64(0) if rest_bits == 64 else (np.uint64(1) << rest) - np.uint64(1)
    buckets = len(starts) - 1
    for i in range(len(low)):
        key = (low[i] >> shift) | (np.uint64(high[i]) << carry)
        starts[1 + (np.int64(key >> rest) if buckets > 1 else 0)] += 1
    for j in range(buckets):
        starts[j + 1] += starts[j]
    free = starts[:-1].copy()
    for i in range(len(low)):
        key = (low[i] >> shift) | (np.uint64(high[i]) << carry)
        bucket = np.int64(key >> rest) if buckets > 1 else np.int64(0)
        words[free[bucket]] = (key & mask) << np.uint64(position_bits) | np.uint64(i)
        free[bucket] += 1


@compiled
def _find_distinct(
    high: Words,
    low: Words,
    order: Words,
    distinct_high: Words,
    distinct_low: Words,
    offsets: npt.NDArray[np.int64],
) -> int:
    count = 0
    for i in range(len(order)):
        if i + _AHEAD < len(order):
            prefetch(low, order[i + _AHEAD])
            prefetch(high, order[i + _AHEAD])
        position = order[i]
        if (
            count == 0
            or low[position] != distinct_low[count - 1]
            or high[position] != distinct_high[count - 1]
        ):
            distinct_high[count] = high[position]
            distinct_low[count] = low[position]
            count += 1
        offsets[count] = i + 1
    return count


@compiled
def _place_heads(
    offsets: npt.NDArray[np.int64],
    positions: Words,
    head: Words,
    first_head: int,
    rows: npt.NDArray[np.int64],
) -> None:
    for context in range(len(head)):
        row = -1 if head[context] == NO_HEAD else first_head + np.int64(head[context])
        for i in range(offsets[context], offsets[context + 1]):
            rows[positions[i]] = row


@compiled
def _place_drawn(
    offsets: npt.NDArray[np.int64],
    positions: Words,
    head: Words,
    draws: Words,
    answered: Tokens,
    starts: npt.NDArray[np.int64],
    drawn: Tokens,
) -> None:
    at = 0
    for context in range(len(head)):
        if head[context] == NO_HEAD:
            continue
        count = draws[head[context]]
        for i in range(offsets[context], offsets[context + 1]):
            for j in range(count):
                drawn[starts[positions[i]] + j] = answered[at]
                at += 1
