"""Targets datasets: for each file of a tokens dataset a file of positions and one of their heads.

The positions stand row for row beside the tokens. Their heads are numbered through the file; those
of a *segment*, some neighbouring row groups, stand together in one row group of the heads, so that
writing and reading take the memory of a segment, however long the file is.
"""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.corpus import parquet, storage
from corpusmill.corpus.datasets import Manifest
from corpusmill.corpus.errors import DataError
from corpusmill.corpus.ragged import offsets_of, row_sums
from corpusmill.corpus.tokens import check_vocabulary
from corpusmill.ngram_agg.compiled import compiled, prefetch
from corpusmill.ngram_agg.hashing import mix
from corpusmill.ngram_agg.heads import NO_CONTEXT, WEIGHT_UNITS, Heads, Targets
from corpusmill.ngram_agg.packing import Packing, Tokens, Words

HEADS_FOLDER = "heads"
# In a file's footer: the SHA-256 of the file of tokens, and of the heads' columns. So no file is
# read together with one that it wasn't written with.
_TOKENS = "corpusmill.tokens_sha256"
_HEADS = "corpusmill.heads_sha256"
# A segment ends with the row group that brings it to so many numbers: one for each position, drawn
# token and token of a head.
_SEGMENT_NUMBERS = 1 << 25
_UNKNOWN = np.uint32(0xFFFFFFFF)
_MOST_HEADS = 0xFFFFFFFF
# Decoded heads that a process keeps: tens of megabytes each.
_HELD_SEGMENTS = 4
_BLOCK = 256


def heads_name(name: str) -> str:
    """The file of heads that belongs to a file of positions."""
    return f"{HEADS_FOLDER}/{name}"


def positions_schema(packing: Packing) -> pa.Schema:
    token = pa.from_numpy_dtype(packing.token_dtype)
    return pa.schema([_list("head", pa.uint32()), _list("drawn", token)])


def heads_schema(packing: Packing) -> pa.Schema:
    token = pa.from_numpy_dtype(packing.token_dtype)
    return pa.schema(
        [
            _list("tokens", token),
            _list("weights", pa.uint16()),
            pa.field("order", pa.uint8(), nullable=False),
            pa.field("draws", pa.uint16(), nullable=False),
        ]
    )


def _list(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, pa.list_(pa.field("element", kind, nullable=False)), nullable=False)


class TargetsWriter:
    """Writes the targets of one file of tokens, whose bytes depend on the targets alone."""

    def __init__(self, path: str, heads_path: str, packing: Packing, tokens_sha256: str) -> None:
        """Prepares two files at local paths, of positions and of heads."""
        self.positions = self.heads = 0
        self.by_order = np.zeros(NO_CONTEXT + 1, np.int64)
        self._packing = packing
        self._sha256 = hashlib.sha256()
        self._tokens_sha256 = tokens_sha256
        self._files = tuple(
            parquet.RowGroupWriter(each, schema, parquet.NO_ROW_LIMIT)
            for each, schema in (
                (path, positions_schema(packing)),
                (heads_path, heads_schema(packing)),
            )
        )
        self._segment = _Segment(packing)

    @property
    def rows(self) -> int:
        """Rows of positions written."""
        return self._files[0].rows

    def __enter__(self) -> "TargetsWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            self.close()
        else:
            for file in self._files:
                file.__exit__(*exception)

    def close(self) -> None:
        """Writes what is held back and the files' ends; harmless the second time."""
        self._end_segment()
        digest = {_HEADS: self._sha256.hexdigest()}
        self._files[0].metadata = {_TOKENS: self._tokens_sha256, **digest}
        self._files[1].metadata = digest
        for file in self._files:
            file.close()

    def write(self, targets: Targets, ends: npt.NDArray[np.int64]) -> None:
        """Adds a row group.

        Args:
          targets: of its positions.
          ends: int64 [rows], the position before which each row ends.

        Raises:
          DataError: the file has more heads than can be numbered.
        """
        self._segment.add(targets, ends)
        if self._segment.numbers >= _SEGMENT_NUMBERS:
            self._end_segment()

    def _end_segment(self) -> None:
        positions, heads_file = self._files
        heads, uses, groups = self._segment.end()
        if self.heads + len(heads) > _MOST_HEADS:
            raise DataError(
                f"targets with more than {_MOST_HEADS:,} heads in one file; tokenize the corpus"
                " into smaller files"
            )
        if len(heads):
            for values in (np.diff(heads.offsets), *heads.values):
                self._sha256.update(np.ascontiguousarray(values).data)
            heads_file.write(_heads_batch(self._packing, heads))
            heads_file.end_row_group()
        for targets, ends in groups:
            positions.write(_positions_batch(self._packing, targets, ends, self.heads))
            positions.end_row_group()
        self.positions += sum(len(targets) for targets, _ in groups)
        self.by_order += np.bincount(heads.orders, uses, NO_CONTEXT + 1).astype(np.int64)
        self.heads += len(heads)


def _heads_batch(packing: Packing, heads: Heads) -> pa.RecordBatch:
    schema = heads_schema(packing)
    offsets = pa.array(heads.offsets.astype(np.int32))
    tokens, weights, *others = heads.values
    lists = [
        pa.ListArray.from_arrays(offsets, pa.array(values), type=schema.field(number).type)
        for number, values in enumerate((tokens, weights))
    ]
    return pa.record_batch([*lists, *map(pa.array, others)], schema=schema)


def _positions_batch(
    packing: Packing, targets: Targets, ends: npt.NDArray[np.int64], first_head: int
) -> pa.RecordBatch:
    schema = positions_schema(packing)
    starts = np.concatenate([np.zeros(1, np.int64), ends])
    draws = offsets_of(targets.heads.draws[targets.head])
    head = targets.head + np.uint32(first_head)
    columns = [
        pa.ListArray.from_arrays(
            pa.array(offsets.astype(np.int32)), pa.array(values), type=schema.field(number).type
        )
        for number, (offsets, values) in enumerate(((starts, head), (draws[starts], targets.drawn)))
    ]
    return pa.record_batch(columns, schema=schema)


class _Segment:
    """Row groups that are held until it is known how often each of their heads is used."""

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._source: Heads | None = None
        self._begin()

    def _begin(self) -> None:
        self.numbers = self._count = self._entries = 0
        self._groups: list[tuple[npt.NDArray[np.uint32], Tokens, npt.NDArray[np.int64]]] = []
        self._number_of = np.empty(0, np.uint32)
        # Room for heads; `_count` of them, with `_entries` tokens, are there.
        self._heads = Heads(
            np.zeros(1, np.int64),
            np.empty(0, self._packing.token_dtype),
            np.empty(0, np.uint16),
            np.empty(0, np.uint8),
            np.empty(0, np.uint16),
        )
        self._hashes = np.empty(0, np.uint64)
        self._uses = np.empty(0, np.int64)
        self._slots = np.full(1, _UNKNOWN)

    def add(self, targets: Targets, ends: npt.NDArray[np.int64]) -> None:
        if targets.heads is not self._source or not self._groups:
            self._source = targets.heads
            self._number_of = np.full(len(targets.heads), _UNKNOWN)
        new = np.empty(len(targets), np.int64)
        new = new[: _unknown_heads(targets.head, self._number_of, new)]
        self._add_heads(targets.heads, new)
        head = np.empty(len(targets), np.uint32)
        _number_heads(targets.head, self._number_of, self._uses, head)
        self._groups.append((head, targets.drawn, ends))
        self.numbers += len(head) + len(targets.drawn)

    def _add_heads(self, source: Heads, rows: npt.NDArray[np.int64]) -> None:
        """Gives numbers to heads by what they are made of."""
        entries = int((source.offsets[rows + 1] - source.offsets[rows]).sum())
        self._make_room(len(rows), entries)
        before = self._entries
        self._count, self._entries = _find_or_add(
            rows,
            source.offsets,
            *source.values,
            self._number_of,
            self._count,
            self._heads.offsets,
            *self._heads.values,
            self._hashes,
            self._slots,
        )
        self.numbers += self._entries - before

    def _make_room(self, heads: int, entries: int) -> None:
        heads += self._count
        if heads > len(self._hashes):
            size = max(heads, 2 * len(self._hashes))
            self._heads = Heads(
                _extended(self._heads.offsets, size + 1),
                self._heads.tokens,
                self._heads.weights,
                _extended(self._heads.orders, size),
                _extended(self._heads.draws, size),
            )
            self._hashes = _extended(self._hashes, size)
            self._uses = _extended(self._uses, size)
            # At most half full, so that a look-up seldom sees a second slot.
            self._slots = np.full(1 << (2 * size).bit_length(), _UNKNOWN)
            _fill_index(self._hashes[: self._count], self._slots)
        entries += self._entries
        if entries > len(self._heads.tokens):
            size = max(entries, 2 * len(self._heads.tokens))
            tokens, weights, orders, draws = self._heads.values
            self._heads = Heads(
                self._heads.offsets,
                _extended(tokens, size),
                _extended(weights, size),
                orders,
                draws,
            )

    def end(
        self,
    ) -> tuple[Heads, npt.NDArray[np.int64], list[tuple[Targets, npt.NDArray[np.int64]]]]:
        """What was added, with heads in their final order; the segment is empty again.

        Returns:
          Heads, how many positions use each, and the row groups with their rows' ends.
        """
        count = self._count
        offsets, (tokens, weights, orders, draws) = self._heads.offsets, self._heads.values
        held = Heads(offsets[: count + 1], tokens, weights, orders[:count], draws[:count])
        order = _final_order(held, self._uses[:count])
        place = np.empty(count, np.uint32)
        place[order] = np.arange(count, dtype=np.uint32)
        heads = held.take(order)
        groups = [(Targets(heads, place[head], drawn), ends) for head, drawn, ends in self._groups]
        uses = self._uses[order]
        self._begin()
        return heads, uses, groups


def _extended(values: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    extended = np.zeros(size, values.dtype)
    extended[: len(values)] = values
    return extended


def _final_order(heads: Heads, uses: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Most used heads first; equals by number of tokens, first weight, first token, first use.

    Frequent heads get small numbers, and heads alike stand together: both compress better so.
    """
    sizes = np.diff(heads.offsets)
    first = np.minimum(heads.offsets[:-1], max(0, len(heads.tokens) - 1))
    words = sizes.astype(np.uint64) << np.uint64(48)
    if len(heads.tokens):
        has_tokens = np.uint64(1) * (sizes > 0)
        words |= has_tokens * heads.weights[first] << np.uint64(32)
        words |= has_tokens * heads.tokens[first]
    order = np.argsort(words, kind="stable")
    return order[np.argsort(-uses[order], kind="stable")]


@dataclass(frozen=True)
class TargetsReader:
    """Reads the targets of a dataset.

    Attributes:
      folder: of the dataset.
      manifest: its own.
    """

    folder: str
    manifest: Manifest

    @property
    def names(self) -> list[str]:
        """The files of positions, which are called like those of the tokens."""
        names = (record.name for record in self.manifest.data_files)
        return [name for name in names if not name.startswith(f"{HEADS_FOLDER}/")]

    def read_file(self, name: str) -> Iterator[tuple[npt.NDArray[np.int64], Targets]]:
        """All row groups of a file, as `read` returns them."""
        url = storage.join(self.folder, name)
        with parquet.open_reader(url) as file:
            groups = file.num_row_groups
        for group in range(groups):
            yield self.read(name, group)

    def read(
        self,
        name: str,
        group: int,
        tokens_sha256: str | None = None,
        token_ends: npt.NDArray[np.int64] | None = None,
    ) -> tuple[npt.NDArray[np.int64], Targets]:
        """The targets of a row group.

        Args:
          name: of a file of positions.
          group: of its row groups.
          tokens_sha256: of the file of tokens that they must have been made for.
          token_ends: where its rows end in this row group.

        Returns:
          Where each row's positions end, int64 [rows], and the targets; their heads are those of
          the whole segment.

        Raises:
          DataError: the file or that of its heads is missing, damaged or another one than was
            written.
        """
        url = storage.join(self.folder, name)
        with parquet.open_reader(url) as file:
            metadata = parquet.footer_metadata(file)
            table = file.read_row_group(group, use_threads=False)
        if tokens_sha256 is not None and metadata.get(_TOKENS) != tokens_sha256:
            raise DataError(f"{url} was made for another file of tokens; run enrich again")
        with parquet.naming(url):
            head = parquet.column_values(table, "head")
            drawn = parquet.column_values(table, "drawn")
            ends, draws = (parquet.list_offsets(table, each)[1:] for each in ("head", "drawn"))
        if token_ends is not None and not np.array_equal(ends, token_ends):
            raise DataError(f"{url} has other rows in row group {group} than the tokens")
        heads_url = storage.join(self.folder, heads_name(name))
        first, heads = self._heads_of(heads_url, metadata.get(_HEADS, ""), head)
        head = head - np.uint32(first)
        if (np.cumsum(heads.draws[head], dtype=np.int64)[ends - 1] != draws).any():
            raise DataError(
                f"{url} is damaged: a row in row group {group} has more or fewer drawn tokens than"
                " its heads say"
            )
        check_vocabulary(drawn, self._limits.vocabulary_size, url)
        return ends, Targets(heads, head, drawn)

    def _heads_of(self, url: str, sha256: str, head: npt.NDArray[np.uint32]) -> tuple[int, Heads]:
        """The heads of the segment of some positions, and the number of the first one."""
        with parquet.open_reader(url) as file:
            if parquet.footer_metadata(file).get(_HEADS) != sha256:
                raise DataError(f"{url} has the heads of other targets than the file beside it")
            sizes = [
                file.metadata.row_group(segment).num_rows for segment in range(file.num_row_groups)
            ]
        starts = offsets_of(np.array(sizes, np.int64))
        lowest, highest = int(head.min()), int(head.max())
        segment = int(np.searchsorted(starts, lowest, side="right")) - 1
        if segment == len(sizes) or highest >= starts[segment + 1]:
            raise DataError(
                f"{url} has {starts[-1]} heads; positions of one row group have number {lowest}"
                f" and {highest}, which aren't in one of its row groups"
            )
        return int(starts[segment]), _read_heads(url, segment, sha256, self._limits)

    @property
    def _limits(self) -> "_Limits":
        properties = self.manifest.properties
        return _Limits(
            self.manifest.tokenizer["vocabulary_size"],
            properties["head"],
            properties["tail_draws"],
            properties["max_order"],
        )


class _Limits(NamedTuple):
    """What no target of a dataset may be beyond."""

    vocabulary_size: int
    head: int
    tail_draws: int
    max_order: int

    def check_heads(self, url: str, heads: Heads) -> None:
        """Raises DataError unless no target of these heads can be wrong or too wide."""
        check_vocabulary(heads.tokens, self.vocabulary_size, url)
        sizes = np.diff(heads.offsets)
        left = WEIGHT_UNITS - row_sums(heads.weights, heads.offsets)
        # The observed token takes the first slot, where there may be none for drawn ones.
        most_draws = np.where(sizes > 0, self.tail_draws, max(self.tail_draws, 1))
        has_context = heads.orders != NO_CONTEXT
        faults = {
            "a head with too many tokens": sizes > self.head,
            "a head with too many drawn tokens": heads.draws > most_draws,
            f"weights of more than {WEIGHT_UNITS}": left < 0,
            f"weights that don't add up to {WEIGHT_UNITS}": (left > 0) != (heads.draws > 0),
            "drawn tokens without weight": heads.draws > np.maximum(left, 0),
            "a context of too many tokens": has_context & (heads.orders > self.max_order),
        }
        for fault, found in faults.items():
            if found.any():
                raise DataError(f"{url} is damaged: {fault}, number {int(np.argmax(found))}")
        if not heads.weights.all():
            raise DataError(f"{url} is damaged: a token of weight 0 in a head")


@functools.lru_cache(maxsize=_HELD_SEGMENTS)
def _read_heads(url: str, segment: int, sha256: str, limits: _Limits) -> Heads:
    """The heads in a row group; readers of one file's row groups in turn get them once."""
    del sha256  # Tells files apart that were in the same place.
    with parquet.naming(url), parquet.open_reader(url) as file:
        table = file.read_row_group(segment, use_threads=False)
        offsets = parquet.list_offsets(table, "tokens")
        if (offsets != parquet.list_offsets(table, "weights")).any():
            raise DataError(f"{url} is damaged: heads have more or fewer weights than tokens")
        columns = [
            parquet.column_values(table, name) for name in ("tokens", "weights", "order", "draws")
        ]
    heads = Heads(offsets, *columns)
    limits.check_heads(url, heads)
    return heads


@compiled
def _unknown_heads(
    head: npt.NDArray[np.int64], number_of: Words, new: npt.NDArray[np.int64]
) -> int:
    """Heads without a number, each once, in the order in which they come."""
    count = 0
    for row in head:
        if number_of[row] == _UNKNOWN:
            number_of[row] = 0
            new[count] = row
            count += 1
    return count


@compiled
def _find_or_add(
    rows: npt.NDArray[np.int64],
    source_offsets: npt.NDArray[np.int64],
    source_tokens: Tokens,
    source_weights: Words,
    source_orders: Words,
    source_draws: Words,
    number_of: Words,
    count: int,
    offsets: npt.NDArray[np.int64],
    tokens: Tokens,
    weights: Words,
    orders: Words,
    draws: Words,
    hashes: Words,
    slots: Words,
) -> tuple[int, int]:
    # Memory is asked for a block of heads at a time, before the first of them waits for it.
    mask = np.uint64(len(slots) - 1)
    words = np.empty(_BLOCK, np.uint64)
    entries = offsets[count]
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        for row in block:
            prefetch(source_offsets, row)
            prefetch(source_orders, row)
            prefetch(source_draws, row)
        for row in block:
            if source_offsets[row] < len(source_tokens):
                prefetch(source_tokens, source_offsets[row])
                prefetch(source_weights, source_offsets[row])
        for j in range(len(block)):
            row = block[j]
            first = source_offsets[row]
            size = source_offsets[row + 1] - first
            word = np.uint64(source_orders[row]) << np.uint64(32) | np.uint64(source_draws[row])
            word = mix(word << np.uint64(16) | np.uint64(size))
            for i in range(first, first + size):
                entry = np.uint64(source_tokens[i]) << np.uint64(16) | np.uint64(source_weights[i])
                word = mix(word ^ entry)
            words[j] = word
            prefetch(slots, word & mask)
        for j in range(len(block)):
            known = slots[words[j] & mask]
            if known != _UNKNOWN:
                prefetch(hashes, known)
                prefetch(offsets, known)
        for j in range(len(block)):
            row = block[j]
            first = source_offsets[row]
            size = source_offsets[row + 1] - first
            place = words[j] & mask
            while slots[place] != _UNKNOWN:
                known = slots[place]
                is_same = (
                    hashes[known] == words[j]
                    and orders[known] == source_orders[row]
                    and draws[known] == source_draws[row]
                    and offsets[known + 1] - offsets[known] == size
                )
                if is_same:
                    for i in range(size):
                        is_same &= tokens[offsets[known] + i] == source_tokens[first + i]
                        is_same &= weights[offsets[known] + i] == source_weights[first + i]
                if is_same:
                    break
                place = (place + np.uint64(1)) & mask
            if slots[place] == _UNKNOWN:
                for i in range(size):
                    tokens[entries + i] = source_tokens[first + i]
                    weights[entries + i] = source_weights[first + i]
                orders[count] = source_orders[row]
                draws[count] = source_draws[row]
                hashes[count] = words[j]
                slots[place] = count
                count += 1
                entries += size
                offsets[count] = entries
            number_of[row] = slots[place]
    return count, entries


@compiled
def _fill_index(hashes: Words, slots: Words) -> None:
    mask = np.uint64(len(slots) - 1)
    for number in range(len(hashes)):
        place = hashes[number] & mask
        while slots[place] != _UNKNOWN:
            place = (place + np.uint64(1)) & mask
        slots[place] = number


@compiled
def _number_heads(
    head: npt.NDArray[np.int64], number_of: Words, uses: npt.NDArray[np.int64], numbers: Words
) -> None:
    for i in range(len(head)):
        number = number_of[head[i]]
        uses[number] += 1
        numbers[i] = number
