"""Document batches from segments of input files.

Whatever is wrong with a record or a file becomes a `BadRecord`; only errors of disks and networks
are raised, because trying again may cure them.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpusmill.corpus import storage
from corpusmill.corpus.documents import DOCUMENT_SCHEMA, BadRecord, is_unicode
from corpusmill.corpus.errors import one_line
from corpusmill.corpus.formats import (
    BOM,
    TABLE_FORMATS,
    DamagedStreamError,
    check_table,
    decompressed,
    is_damage,
    load_json,
    open_table,
)
from corpusmill.corpus.inputs import ReadOptions, Segment, row_group_bytes

BATCH_BYTES = 1 << 20
BATCH_DOCUMENTS = 8192

_BLOCK = 1 << 20
# Of a record that lacks one.
_SHOWN_FIELDS = 8
_JSON_TYPES = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}

Delivery = tuple[pa.RecordBatch, list[BadRecord]]


def read_segment(
    segment: Segment, options: ReadOptions, read: Callable[[int], None] = lambda _: None
) -> Iterator[Delivery]:
    """Reads the documents of a segment in the order of the file, in bounded memory.

    A document's id is the file's name and the byte offset of its line in the decompressed content
    (row number in tables, 0 where the file is the document), unless `options` name an id field.

    Args:
      segment: what to read.
      options: how.
      read: told again and again how many more bytes, as stored, have been read.

    Yields:
      Document batches (`DOCUMENT_SCHEMA`) of about `BATCH_BYTES` of text, or `BATCH_DOCUMENTS`
      documents, each with the records that were bad since the batch before. A damaged file ends
      with a bad record after the documents before the fault; what a decompressor had not given
      out yet at a corrupt place, a few kilobytes, is lost.

    Raises:
      UsageError: a table has no column of the wanted name.
      OSError: the file can't be read at all, or not now.
    """
    if segment.format in TABLE_FORMATS:
        return _read_table(segment, options, read)
    if segment.format == "text" and options.text_unit == "file":
        return _read_whole(segment, options, read)
    return _read_lines(segment, options, read)


class _Counted:
    """A file that tells how much is read from it."""

    def __init__(self, file: IO[bytes], read: Callable[[int], None]) -> None:
        self._file = file
        self._read = read

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._read(len(data))
        return data


class _BadRecordError(Exception):
    """Why a record isn't a document."""


@dataclass
class _Batch:
    """Documents and bad records that wait to be delivered."""

    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    size: int = 0

    def add(self, doc_id: str, text: str) -> None:
        self.ids.append(doc_id)
        self.texts.append(text)
        self.size += len(text)

    @property
    def is_full(self) -> bool:
        return (
            self.size >= BATCH_BYTES
            or len(self.ids) >= BATCH_DOCUMENTS
            or len(self.bad) >= BATCH_DOCUMENTS
        )

    def deliver(self) -> Iterator[Delivery]:
        """Gives out what there is and starts anew."""
        if self.ids or self.bad:
            yield _documents(self.ids, self.texts), self.bad
            self.ids, self.texts, self.bad, self.size = [], [], [], 0


def _documents(ids: Any, texts: Any) -> pa.RecordBatch:
    columns = [pa.array(ids, pa.string()), pa.array(texts, pa.large_string())]
    return pa.record_batch(columns, schema=DOCUMENT_SCHEMA)


# --- lines ---------------------------------------------------------------------------------------


def _read_lines(
    segment: Segment, options: ReadOptions, read: Callable[[int], None]
) -> Iterator[Delivery]:
    parse = partial(_parse_json if segment.format == "jsonl" else _parse_text, options)
    lines = _Lines(segment, options.max_document_bytes, read)
    batch = _Batch()
    try:
        for offset, line in lines:
            if line is not None and (not line or line.isspace()):
                continue
            try:
                doc_id, text = parse(line)
            except _BadRecordError as error:
                batch.bad.append(BadRecord(segment.url, offset, str(error)))
            else:
                batch.add(f"{segment.name}:{offset}" if doc_id is None else doc_id, text)
            if batch.is_full:
                yield from batch.deliver()
    except DamagedStreamError as error:
        batch.bad.append(BadRecord(segment.url, lines.next_offset, str(error), True))
    yield from batch.deliver()


def _parse_text(options: ReadOptions, line: bytes | None) -> tuple[str | None, str]:
    return None, _decode(_require_line(line, options).removesuffix(b"\r"))


def _parse_json(options: ReadOptions, line: bytes | None) -> tuple[str | None, str]:
    line = _require_line(line, options)
    try:
        record, flaw = load_json(line)
    except ValueError as error:
        _decode(line)
        raise _BadRecordError(f"is not JSON: {error}") from error
    if type(record) is not dict:
        raise _BadRecordError(f"is {_JSON_TYPES[type(record)]}, not a JSON object")
    text = _field(record, options.text_field, "--text-field")
    if type(text) is not str:
        raise _BadRecordError(
            f"field {options.text_field!r} is {_JSON_TYPES[type(text)]}, not a string"
        )
    if flaw is not None and not is_unicode(text):
        raise _BadRecordError(f"is not JSON: {flaw}")
    if options.id_field is None:
        return None, text
    doc_id = _field(record, options.id_field, "--id-field")
    if flaw is not None and not is_unicode(str(doc_id)):
        raise _BadRecordError(f"is not JSON: {flaw}")
    is_id = type(doc_id) is str or (type(doc_id) is int and -(1 << 63) <= doc_id < 1 << 64)
    if not is_id:
        raise _BadRecordError(
            f"field {options.id_field!r} is {_JSON_TYPES[type(doc_id)]},"
            " not a string or a 64-bit integer"
        )
    return str(doc_id), text


def _require_line(line: bytes | None, options: ReadOptions) -> bytes:
    if line is None:
        raise _BadRecordError(f"is longer than {options.max_document_bytes} bytes")
    return line


def _field(record: dict[str, Any], name: str, option: str) -> Any:
    try:
        return record[name]
    except KeyError:
        names = ", ".join(map(repr, itertools.islice(record, _SHOWN_FIELDS)))
        more = ", ..." if len(record) > _SHOWN_FIELDS else ""
        there = f"; {option} can name one of {names}{more}" if record else ""
        raise _BadRecordError(f"has no field {name!r}{there}") from None


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _BadRecordError(
            f"is not UTF-8: {error.reason} (byte {error.start} of the record)"
        ) from error


class _Lines:
    """The lines that start in a segment, without their newlines, and where each one starts.

    A line longer than `limit` comes as None; it isn't held in memory.
    """

    def __init__(self, segment: Segment, limit: int, read: Callable[[int], None]) -> None:
        self.next_offset = 0
        self._segment = segment
        self._limit = limit
        self._read = read

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        segment = self._segment
        # What is compressed or read as a whole has no other segments that could own its lines.
        end = segment.end if segment.compression is None else None
        with storage.open_input(segment.url) as file:
            start = _first_line_start(file, segment.start, segment.end) if segment.start else 0
            self.next_offset = start
            if start < segment.end:
                blocks = decompressed(_Counted(file, self._read), segment.compression)
                for size, line in self._split(blocks, end):
                    offset = self.next_offset
                    self.next_offset += size + 1
                    if offset == 0 and line is not None:
                        line = line.removeprefix(BOM)
                    yield offset, line

    def _split(
        self, blocks: Iterator[bytes], end: int | None
    ) -> Iterator[tuple[int, bytes | None]]:
        line = _Line(self._limit)
        for block in blocks:
            first, *others = block.split(b"\n")
            line.add(first)
            if others:
                yield line.size, line.content()
                *whole, rest = others
                for piece in whole:
                    if end is not None and self.next_offset >= end:
                        return
                    size = len(piece)
                    yield size, piece if size <= self._limit else None
                if end is not None and self.next_offset >= end:
                    return
                line = _Line(self._limit)
                line.add(rest)
            if end is not None and line.is_too_long and self.next_offset + line.size >= end:
                # Nothing of it is wanted, and no other line of this segment can follow.
                break
        if line.size:
            yield line.size, line.content()


class _Line:
    """A line in the making."""

    __slots__ = ("_limit", "_pieces", "size")

    def __init__(self, limit: int) -> None:
        self.size = 0
        self._limit = limit
        self._pieces: list[bytes] = []

    @property
    def is_too_long(self) -> bool:
        return self.size > self._limit

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.is_too_long:
            self._pieces.clear()
        else:
            self._pieces.append(piece)

    def content(self) -> bytes | None:
        return None if self.is_too_long else b"".join(self._pieces)


def _first_line_start(file: IO[bytes], start: int, end: int) -> int:
    """Moves to the first line that starts in [start, end); `end` or more where none does."""
    offset = start - 1
    file.seek(offset)
    while block := file.read(min(_BLOCK, end - 1 - offset)):
        newline = block.find(b"\n")
        if newline >= 0:
            offset += newline + 1
            file.seek(offset)
            return offset
        offset += len(block)
    return end


# --- whole files ---------------------------------------------------------------------------------


def _read_whole(
    segment: Segment, options: ReadOptions, read: Callable[[int], None]
) -> Iterator[Delivery]:
    batch = _Batch()
    try:
        data = _whole_content(segment, options.max_document_bytes, read)
        if not data.isspace() and data:
            batch.add(f"{segment.name}:0", _decode(data))
    except (_BadRecordError, DamagedStreamError) as error:
        batch.bad.append(BadRecord(segment.url, 0, str(error)))
    yield from batch.deliver()


def _whole_content(segment: Segment, limit: int, read: Callable[[int], None]) -> bytes:
    content = _Line(limit)
    with storage.open_input(segment.url) as file:
        for block in decompressed(_Counted(file, read), segment.compression):
            content.add(block)
            if content.is_too_long:
                raise _BadRecordError(f"is longer than {limit} bytes")
    return (content.content() or b"").removeprefix(BOM)


# --- tables --------------------------------------------------------------------------------------


def _read_table(
    segment: Segment, options: ReadOptions, read: Callable[[int], None]
) -> Iterator[Delivery]:
    row = 0
    try:
        with open_table(segment.url, segment.format, segment.compression) as table:
            check_table(table, segment.url, options.text_field, options.id_field)
            row, batches = _table_batches(table, segment, options, read)
            for batch in batches:
                yield from _read_rows(batch, row, segment, options)
                row += batch.num_rows
    except (pa.ArrowException, OSError, DamagedStreamError) as error:
        if not is_damage(error):
            raise
        fault = BadRecord(segment.url, row, f"is damaged: {one_line(error)}", True)
        yield _documents([], []), [fault]


def _table_batches(
    table: Any, segment: Segment, options: ReadOptions, read: Callable[[int], None]
) -> tuple[int, Iterator[pa.RecordBatch]]:
    """The row that a segment starts with, and its wanted columns in batches."""
    if isinstance(table, pq.ParquetFile):
        groups = range(segment.start, min(segment.end, table.num_row_groups))
        before = (table.metadata.row_group(i).num_rows for i in range(segment.start))
        return sum(before), _row_group_batches(table, groups, options, read)
    if isinstance(table, pa.RecordBatchFileReader):
        return 0, (table.get_batch(i) for i in range(table.num_record_batches))
    return 0, iter(table)


def _row_group_batches(
    table: pq.ParquetFile, groups: range, options: ReadOptions, read: Callable[[int], None]
) -> Iterator[pa.RecordBatch]:
    columns = [options.text_field]
    if options.id_field not in (None, options.text_field):
        columns.append(options.id_field)
    for index in groups:
        group = table.metadata.row_group(index)
        yield from table.iter_batches(
            batch_size=_rows_of_batch(group, options.text_field),
            row_groups=[index],
            columns=columns,
            use_threads=False,
        )
        read(row_group_bytes(table.metadata, index))


def _rows_of_batch(group: pq.RowGroupMetaData, text_field: str) -> int:
    """How many rows hold about `BATCH_BYTES` of text, at most `BATCH_DOCUMENTS`."""
    columns = (group.column(i) for i in range(group.num_columns))
    size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema == text_field)
    rows = int(BATCH_BYTES * group.num_rows // max(size, 1))
    return max(1, min(BATCH_DOCUMENTS, rows))


def _read_rows(
    batch: pa.RecordBatch, first_row: int, segment: Segment, options: ReadOptions
) -> Iterator[Delivery]:
    """Deliveries from one batch of a table, which may be of any size."""
    reasons: dict[int, str] = {}
    texts = _to_text(batch.column(options.text_field), options.text_field, reasons)
    sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy()
    for row in np.flatnonzero(sizes > options.max_document_bytes).tolist():
        reasons[row] = f"is longer than {options.max_document_bytes} bytes"
    if options.id_field is None:
        rows = range(first_row, first_row + batch.num_rows)
        ids = pa.array([f"{segment.name}:{row}" for row in rows], pa.string())
    else:
        ids = _to_text(batch.column(options.id_field), options.id_field, reasons)
    is_good = np.ones(batch.num_rows, bool)
    is_good[list(reasons)] = False
    for start, end in _slices(sizes):
        good = pa.array(is_good[start:end])
        documents = pa.record_batch(
            [
                ids.slice(start, end - start).filter(good).cast(pa.string()),
                texts.slice(start, end - start).filter(good),
            ],
            schema=DOCUMENT_SCHEMA,
        )
        bad = [
            BadRecord(segment.url, first_row + row, reasons[row])
            for row in (start + np.flatnonzero(~is_good[start:end])).tolist()
        ]
        yield documents, bad


def _to_text(column: pa.Array, name: str, reasons: dict[int, str]) -> pa.Array:
    """A column as `large_string`; rows that have no text get a reason and hold anything."""
    if pa.types.is_integer(column.type):
        column = column.cast(pa.large_string())
    column = column.cast(pa.large_binary())
    for row in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
        reasons[row] = f"column {name!r} is null"
    try:
        # This cast validates, which reading Parquet doesn't: a column of strings may hold anything.
        return column.cast(pa.large_string())
    except pa.ArrowInvalid:
        return pa.array(
            [_valid_or_none(value, row, reasons) for row, value in enumerate(column.to_pylist())],
            pa.large_string(),
        )


def _valid_or_none(value: bytes | None, row: int, reasons: dict[int, str]) -> str | None:
    try:
        return None if value is None else _decode(value)
    except _BadRecordError as error:
        reasons[row] = str(error)
        return None


def _slices(sizes: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Cuts rows of these sizes into runs that a delivery should hold."""
    ends = np.cumsum(sizes, dtype=np.int64)
    start = 0
    while start < len(sizes):
        held = ends[start - 1] if start else 0
        end = int(np.searchsorted(ends, held + BATCH_BYTES)) + 1
        end = min(end, start + BATCH_DOCUMENTS, len(sizes))
        yield start, end
        start = end
