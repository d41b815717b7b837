"""How every dataset writes and reads its Parquet files.

Integers are byte-stream-split and zstd-compressed: on token ids and counts that is both smaller
and faster to write than dictionaries or delta encoding (benchmarks/encodings.py). Every page has a
checksum, and every reader compares it.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpusmill.corpus import storage
from corpusmill.corpus.errors import CorpusmillError, DataError, one_line
from corpusmill.corpus.ragged import offsets_of

COMPRESSION_LEVEL = 1


# For files whose writer ends the row groups, by other measures than rows.
NO_ROW_LIMIT = 1 << 62


class RowGroupWriter:
    """Writes one file whose bytes depend on the rows alone, not on the batches they come in.

    The file comes into being with its first row group: without rows there is no file.

    Attributes:
      rows: how many were written.
      metadata: what the file's end says besides, strings by name.
    """

    def __init__(
        self,
        path: str,
        schema: pa.Schema,
        row_group_rows: int,
        sorted_by: Sequence[str] = (),
    ) -> None:
        """Prepares a file.

        Args:
          path: a local path.
          schema: columns of integers, strings and lists of integers.
          row_group_rows: rows in every row group but the last.
          sorted_by: columns that get statistics, so that readers can skip row groups.
        """
        self.rows = 0
        self.metadata: dict[str, str] = {}
        self._path = path
        self._schema = schema
        self._row_group_rows = row_group_rows
        self._sorted_by = list(sorted_by)
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "RowGroupWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            self.close()
        elif self._writer is not None:
            self._writer.close()

    def close(self) -> None:
        """Writes what is held back and the file's end; harmless the second time."""
        self.end_row_group()
        if self._writer is not None:
            if self.metadata and self._writer.is_open:
                self._writer.add_key_value_metadata(self.metadata)
            self._writer.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Adds rows; full row groups are written at once."""
        while self._held_rows + batch.num_rows >= self._row_group_rows:
            missing = self._row_group_rows - self._held_rows
            self._hold(batch.slice(0, missing))
            self.end_row_group()
            batch = batch.slice(missing)
        self._hold(batch)

    def end_row_group(self) -> None:
        """Writes the rows held back as a row group of their own."""
        if not self._held_rows:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._path,
                self._schema,
                compression="zstd",
                compression_level=COMPRESSION_LEVEL,
                use_dictionary=False,
                column_encoding=dict(encodings(self._schema)),
                write_statistics=self._sorted_by,
                write_page_checksum=True,
            )
        table = pa.Table.from_batches(self._held, self._schema)
        self._writer.write_table(table, row_group_size=self._held_rows)
        self.rows += self._held_rows
        self._held = []
        self._held_rows = 0

    def _hold(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            self._held.append(batch)
            self._held_rows += batch.num_rows


@contextlib.contextmanager
def naming(url: str) -> Iterator[None]:
    """Makes whatever a missing or damaged file leads to a DataError that names it."""
    try:
        yield
    except CorpusmillError:
        raise
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{url} cannot be read: {one_line(error)}") from error


class _NamedFile(pq.ParquetFile):  # type: ignore[misc]
    """A file whose errors name it."""

    def __init__(self, url: str) -> None:
        self._url = url
        with naming(url):
            # Pages are compared with their checksums. Columns that lie side by side in a row group
            # are one request.
            super().__init__(
                storage.open_arrow(url),
                page_checksum_verification=True,
                pre_buffer=not storage.is_local(url),
            )

    def read_row_group(self, *arguments: Any, **options: Any) -> pa.Table:
        with naming(self._url):
            table = super().read_row_group(*arguments, **options)
            # What its pages hold is not bound to what its schema says.
            table.validate()
            for name in options.get("columns") or ():
                table.schema.field(name)
        for name, column in zip(table.column_names, table.columns, strict=True):
            if column.null_count or (
                pa.types.is_list(column.type)
                and any(part.values.null_count for part in column.chunks)
            ):
                raise DataError(f"{self._url} is damaged: the column {name} has nulls")
        return table

    def iter_batches(self, *arguments: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        with naming(self._url):
            yield from super().iter_batches(*arguments, **options)


def open_reader(url: str) -> pq.ParquetFile:
    """A Parquet file of a dataset, local (memory-mapped) or remote.

    Opening it, and reading a row group or batches, raises a DataError of one line that names the
    file where it is missing or cut, where the bytes of a page aren't those that were written, or
    where its columns aren't what they must be.
    """
    return _NamedFile(url)


def check_schema(url: str, file: pq.ParquetFile, schema: pa.Schema) -> None:
    """Raises DataError where a file hasn't these columns, of these types, in this order."""
    found = file.schema_arrow
    if found.names != schema.names or found.types != schema.types:
        columns = ", ".join(f"{field.name} {field.type}" for field in found)
        raise DataError(f"{url} has other columns than it should: {columns}")


def footer_metadata(file: pq.ParquetFile) -> dict[str, str]:
    """`RowGroupWriter.metadata` of a file."""
    found = file.metadata.metadata or {}
    return {
        key.decode(errors="replace"): value.decode(errors="replace") for key, value in found.items()
    }


def read_tables(url: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Columns of a dataset's file, a row group at a time; raises DataError, see `naming`."""
    with naming(url), open_reader(url) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=list(columns), use_threads=False)


def sorted_bounds(
    group: pq.RowGroupMetaData, columns: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Bounds of a row group that is sorted by `columns`, from its statistics alone.

    Returns:
      Prefixes of its first and of its last row, as long as the statistics tell: the columns in
      which all rows agree, and the first one in which they don't.
    """
    statistics = {
        group.column(i).path_in_schema: group.column(i).statistics for i in range(group.num_columns)
    }
    first, last = [], []
    for column in columns:
        known = statistics.get(column)
        if known is None or not known.has_min_max:
            raise DataError(f"row group without the bounds of its column {column}")
        first.append(int(known.min))
        last.append(int(known.max))
        if first[-1] != last[-1]:
            break
    return first, last


def column_values(table: pa.Table, name: str) -> Any:
    """A column without nulls as one numpy array; of a list column the flat values."""
    if name not in table.column_names:
        raise DataError(f"a file has no column {name}; it has {', '.join(table.column_names)}")
    array = table.column(name).combine_chunks()
    if pa.types.is_list(array.type):
        array = array.flatten()
    return array.to_numpy(zero_copy_only=True)


def list_offsets(table: pa.Table, name: str) -> Any:
    """Where each row's values lie in `column_values`: int64 of shape [rows + 1], from 0."""
    if name not in table.column_names or not pa.types.is_list(table.schema.field(name).type):
        raise DataError(f"a file has no lists {name}; it has {', '.join(table.column_names)}")
    return offsets_of(pc.list_value_length(table.column(name)).combine_chunks().to_numpy())


def encodings(schema: pa.Schema) -> Iterator[tuple[str, str]]:
    """How each column of a dataset's files is encoded, by the name of its values."""
    for column in schema:
        if pa.types.is_list(column.type):
            yield f"{column.name}.list.element", "BYTE_STREAM_SPLIT"
        elif pa.types.is_integer(column.type):
            yield column.name, "BYTE_STREAM_SPLIT"
        else:
            yield column.name, "PLAIN"
