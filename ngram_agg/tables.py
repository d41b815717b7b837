"""Distribution tables: the Parquet files of a distributions dataset, and look-ups in them."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.corpus import datasets, parquet, storage
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.ragged import offsets_of
from corpusmill.corpus.tokens import check_vocabulary
from corpusmill.ngram_agg.counts_files import token_columns
from corpusmill.ngram_agg.distributions import DistributionRows
from corpusmill.ngram_agg.hash_index import build_index, find_keys
from corpusmill.ngram_agg.packing import Packing, Tokens, Words, pack_columns, unpack_columns
from corpusmill.ngram_agg.saved_columns import Columns, cached_columns
from corpusmill.ngram_agg.table_checks import check_keys, check_offsets, check_types

ROW_GROUP_ROWS = 1 << 17
_ORDER = "order="


def distributions_schema(packing: Packing, order: int) -> pa.Schema:
    token = pa.from_numpy_dtype(packing.token_dtype)

    def values(name: str, kind: pa.DataType) -> pa.Field:
        return pa.field(name, kind, nullable=False)

    return pa.schema(
        [
            *(values(name, token) for name in token_columns(order, "context")),
            values("total", pa.uint64()),
            values("next_tokens", pa.list_(values("element", token))),
            values("next_counts", pa.list_(values("element", pa.uint64()))),
            values("tail_count", pa.uint64()),
            values("tail_distinct", pa.uint32()),
        ]
    )


def order_folder(order: int) -> str:
    """The folder of a distributions dataset that has the contexts of so many tokens."""
    return f"{_ORDER}{order}"


def order_of(name: str) -> int:
    """The order of a file of a distributions dataset."""
    return int(name.split("/")[0].removeprefix(_ORDER))


def rows_to_batch(packing: Packing, order: int, rows: DistributionRows) -> pa.RecordBatch:
    """The Arrow form of the rows of one order."""
    schema = distributions_schema(packing, order)
    offsets = pa.array(rows.offsets.astype(np.int32))
    lists = [
        pa.ListArray.from_arrays(offsets, pa.array(values), type=schema.field(name).type)
        for name, values in (("next_tokens", rows.next_tokens), ("next_counts", rows.next_counts))
    ]
    columns = [*rows.contexts, rows.total, *lists, rows.tail_count, rows.tail_distinct]
    return pa.record_batch(columns, schema=schema)


def open_writer(path: str, packing: Packing, order: int) -> parquet.RowGroupWriter:
    """A writer for one file of distributions of contexts of `order` tokens."""
    schema = distributions_schema(packing, order)
    sorted_by = token_columns(order, "context")
    return parquet.RowGroupWriter(path, schema, ROW_GROUP_ROWS, sorted_by)


def check_table(url: str, packing: Packing, order: int, min_count: int) -> tuple[int, int]:
    """Reads a whole file of distributions and checks that it is what it must be.

    Returns:
      Its rows and the sum of its totals.

    Raises:
      DataError: contexts don't rise, or a row's counts don't add up to its total.
    """
    rows = 0
    positions = 0
    previous: tuple[int, ...] | None = None
    with parquet.open_reader(url) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, use_threads=False)
            contexts = [
                parquet.column_values(table, name) for name in token_columns(order, "context")
            ]
            first = tuple(int(column[0]) for column in contexts)
            if order and not (_rising(contexts) and (previous is None or previous < first)):
                raise DataError(f"contexts in row group {group} do not rise")
            previous = tuple(int(column[-1]) for column in contexts)
            _check_rows(table, rows, packing.vocabulary_size, min_count)
            rows += table.num_rows
            positions += int(parquet.column_values(table, "total").sum())
    return rows, positions


def _check_rows(table: pa.Table, row: int, vocabulary_size: int, min_count: int) -> None:
    total = parquet.column_values(table, "total")
    offsets = parquet.list_offsets(table, "next_tokens")
    counts = parquet.column_values(table, "next_counts")
    tokens = parquet.column_values(table, "next_tokens")
    check_vocabulary(tokens, vocabulary_size)
    sums = np.add.reduceat(counts, offsets[:-1]) + parquet.column_values(table, "tail_count")
    # Within a row: counts fall, and ids rise among equal counts.
    falls = (counts[1:] < counts[:-1]) | ((counts[1:] == counts[:-1]) & (tokens[1:] > tokens[:-1]))
    falls[offsets[1:-1] - 1] = True
    if (sums != total).any():
        raise DataError(f"the counts in row {row + int(np.argmax(sums != total))} miss its total")
    if not falls.all():
        raise DataError(f"next tokens are out of order after entry {int(np.argmin(falls))}")
    if total.min() < min_count:
        raise DataError(f"a context was seen {total.min()} times, fewer than {min_count}")


def _rising(columns: Sequence[Tokens]) -> bool:
    """Whether rows, compared column by column, rise strictly."""
    rising = np.zeros(len(columns[0]) - 1, bool)
    equal = np.ones(len(columns[0]) - 1, bool)
    for column in columns:
        rising |= equal & (column[1:] > column[:-1])
        equal &= column[1:] == column[:-1]
    return bool(rising.all())


@dataclass(frozen=True)
class Distribution:
    """What follows one context.

    Attributes:
      context: its token ids.
      total: how often it was seen.
      next_tokens: int64 [<= k], the most frequent next tokens, by count then by id.
      next_counts: their counts.
      tail_count: how often other tokens followed.
      tail_distinct: how many other tokens there were.
    """

    context: tuple[int, ...]
    total: int
    next_tokens: Tokens
    next_counts: Words
    tail_count: int
    tail_distinct: int


@dataclass(frozen=True)
class DistributionTable:
    """All distributions of one order, in memory or memory-mapped, with a hash index of contexts.

    Attributes:
      packing: of the contexts, `order` tokens each.
      columns: `high` and `low` (the contexts' keys), `total`, `offsets`, `next_tokens`,
        `next_counts`, `tail_count`, `tail_distinct` as in `DistributionRows`, and `slots`, the
        index.
    """

    packing: Packing
    columns: Mapping[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["total"])

    def find(self, contexts: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Rows of many contexts at once.

        Args:
          contexts: token ids of shape [n, order], the oldest token first.

        Returns:
          int64 [n]; -1 where a context is not in the table.
        """
        contexts = np.asarray(contexts)
        order = self.packing.length
        if contexts.ndim != 2 or contexts.shape[1] != order:
            raise ValueError(f"contexts have the shape {contexts.shape}, not [n, {order}]")
        keys = pack_columns(self.packing, [contexts[:, position] for position in range(order)])
        return find_keys(self.columns["slots"], self.columns["high"], self.columns["low"], *keys)

    def distribution(self, row: int) -> "Distribution":
        """The distribution in one row."""
        word = slice(row, row + 1)
        tokens = unpack_columns(self.packing, self.columns["high"][word], self.columns["low"][word])
        first, last = self.columns["offsets"][row : row + 2].tolist()
        return Distribution(
            context=tuple(int(column[0]) for column in tokens),
            total=int(self.columns["total"][row]),
            next_tokens=np.array(self.columns["next_tokens"][first:last]),
            next_counts=np.array(self.columns["next_counts"][first:last]),
            tail_count=int(self.columns["tail_count"][row]),
            tail_distinct=int(self.columns["tail_distinct"][row]),
        )


@dataclass(frozen=True)
class Distributions:
    """A distributions dataset, as `open_distributions` opens it.

    Attributes:
      folder: its path or URL.
      manifest: its own.
    """

    folder: str
    manifest: datasets.Manifest

    @property
    def max_order(self) -> int:
        """Tokens in the longest contexts."""
        return int(self.manifest.properties["max_order"])

    @property
    def min_count(self) -> int:
        """Contexts seen fewer times were dropped."""
        return int(self.manifest.properties["min_count"])

    def packing(self, order: int) -> Packing:
        """How contexts of `order` tokens are packed to keys."""
        return Packing.of(self.manifest.tokenizer, order)

    def find(self, context: Sequence[int]) -> Distribution | None:
        """What follows a context, or None if the dataset hasn't got it.

        Reads only the row groups that may hold it; for many look-ups use `load`.
        """
        order = len(context)
        wanted = list(context)
        for url in self._files(order):
            with self._open(url, order) as file:
                for group in range(file.num_row_groups):
                    columns = token_columns(order, "context")
                    first, last = parquet.sorted_bounds(file.metadata.row_group(group), columns)
                    if not first <= wanted[: len(first)] or wanted[: len(last)] > last:
                        continue
                    table = file.read_row_group(group, use_threads=False)
                    found = _find_row(table, columns, wanted)
                    if found is not None:
                        return found
        return None

    def longest_match(self, context: Sequence[int]) -> Distribution | None:
        """What follows the longest end of `context` that the dataset has."""
        for order in range(min(len(context), self.max_order), -1, -1):
            found = self.find(context[len(context) - order :])
            if found is not None:
                return found
        return None

    def load(self, order: int, cache: str | None = None) -> DistributionTable:
        """All contexts of `order` (at least 1) tokens, for look-ups of many at once.

        Args:
          order: tokens in a context.
          cache: a local folder; the table is unpacked there once and then memory-mapped, so that
            processes share it. Without it the table is in this process' memory.
        """
        packing = self.packing(order)
        if cache is None:
            return DistributionTable(packing, self._read_columns(order))
        folder = os.path.join(cache, self.manifest.content_hash, order_folder(order))
        check = partial(_check_columns, packing=packing)
        columns = cached_columns(folder, lambda: self._read_columns(order), check)
        return DistributionTable(packing, columns)

    @contextlib.contextmanager
    def _open(self, url: str, order: int) -> Iterator[pq.ParquetFile]:
        with parquet.open_reader(url) as file:
            # Contexts of order 0 have no columns, whatever packs them.
            schema = distributions_schema(self.packing(max(1, order)), order)
            parquet.check_schema(url, file, schema)
            yield file

    def _files(self, order: int) -> list[str]:
        prefix = f"{order_folder(order)}/"
        names = [file.name for file in self.manifest.files if file.name.startswith(prefix)]
        return [storage.join(self.folder, name) for name in names]

    def _read_columns(self, order: int) -> dict[str, npt.NDArray[Any]]:
        if not 1 <= order <= self.max_order:
            raise UsageError(f"order {order} is not between 1 and {self.max_order}")
        packing = self.packing(order)
        parts = []
        for url in self._files(order):
            with self._open(url, order) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, use_threads=False)
                    parts.append(_table_columns(packing, table))
        columns = {
            name: np.concatenate([part[name] for part in parts]) if parts else empty
            for name, empty in _no_columns(packing).items()
        }
        sizes = columns.pop("sizes")
        columns["offsets"] = offsets_of(sizes)
        columns["slots"] = build_index(columns["high"], columns["low"])
        return columns


def open_distributions(folder: str) -> Distributions:
    """Opens a distributions dataset, local or remote, without reading its tables.

    Raises:
      DatasetError: `folder` holds no complete distributions dataset.
    """
    return Distributions(folder, datasets.read_manifest(folder, "distributions"))


def _find_row(
    table: pa.Table, columns: Sequence[str], wanted: Sequence[int]
) -> Distribution | None:
    matches = np.ones(table.num_rows, bool)
    for name, token in zip(columns, wanted, strict=True):
        matches &= parquet.column_values(table, name) == token
    rows = np.flatnonzero(matches)
    if not len(rows):
        return None
    row = table.slice(int(rows[0]), 1).to_pylist()[0]
    return Distribution(
        context=tuple(wanted),
        total=row["total"],
        next_tokens=np.array(row["next_tokens"], np.int64),
        next_counts=np.array(row["next_counts"], np.uint64),
        tail_count=row["tail_count"],
        tail_distinct=row["tail_distinct"],
    )


def _table_columns(packing: Packing, table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    tokens = [
        parquet.column_values(table, name) for name in token_columns(packing.length, "context")
    ]
    for column in tokens:
        check_vocabulary(column, packing.vocabulary_size)
    high, low = pack_columns(packing, tokens)
    names = ("total", "next_tokens", "next_counts", "tail_count", "tail_distinct")
    columns = {name: parquet.column_values(table, name) for name in names}
    sizes = np.diff(parquet.list_offsets(table, "next_tokens"))
    if len(columns["next_counts"]) != len(columns["next_tokens"]):
        raise DataError("there are other numbers of next tokens than of their counts")
    return {"high": high, "low": low, "sizes": sizes, **columns}


def _check_columns(columns: Columns, packing: Packing) -> None:
    """Checks what `DistributionTable` relies on."""
    check_types(
        columns,
        {
            "high": packing.high_dtype,
            "low": np.uint64,
            "slots": np.uint64,
            "offsets": np.int64,
            "total": np.uint64,
            "next_tokens": packing.token_dtype,
            "next_counts": np.uint64,
            "tail_count": np.uint64,
            "tail_distinct": np.uint32,
        },
    )
    check_offsets(columns, "offsets", len(columns["low"]), ("next_tokens", "next_counts"))
    for name in ("total", "tail_count", "tail_distinct"):
        if len(columns[name]) != len(columns["low"]):
            raise DataError(f"there are {len(columns[name])} {name}, not {len(columns['low'])}")
    check_keys(columns)


def _no_columns(packing: Packing) -> dict[str, npt.NDArray[Any]]:
    empty = distributions_schema(packing, packing.length).empty_table()
    return _table_columns(packing, empty)
