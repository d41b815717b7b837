"""Tokens datasets: documents as token ids, each ended by the end-of-document token.

Compressed datasets have the same files, but no token at the end of a document.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.corpus import parquet
from corpusmill.corpus.datasets import Manifest
from corpusmill.corpus.errors import DataError
from corpusmill.corpus.ragged import offsets_of

ROW_GROUP_TOKENS = 1 << 20
# So that reading a document of any length takes little memory.
MAX_ROW_TOKENS = 1 << 20


class TextEncoder(Protocol):
    """What makes ids of texts: every tokenizer, among others."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of ids: uint16 where they fit, else uint32."""

    def encode_batch(
        self, texts: pa.LargeStringArray
    ) -> tuple[npt.NDArray[np.unsignedinteger[Any]], npt.NDArray[np.int64]]:
        """The ids of all texts one after the other, and how many ids each has."""

    def check(self, doc_ids: Sequence[str], texts: Sequence[str]) -> None:
        """Compares a fast way to encode with a slow one that is right, on a few documents.

        Raises:
          DataError: they have different ids.
        """


def id_dtype(vocabulary_size: int) -> np.dtype[Any]:
    """The type of the ids of a vocabulary: uint16 where they fit, else uint32."""
    return np.dtype(np.uint16 if vocabulary_size <= 1 << 16 else np.uint32)


def tokens_schema(dtype: npt.DTypeLike) -> pa.Schema:
    token = pa.from_numpy_dtype(np.dtype(dtype))
    return pa.schema(
        [
            pa.field("doc_id", pa.string(), nullable=False),
            pa.field(
                "tokens", pa.list_(pa.field("element", token, nullable=False)), nullable=False
            ),
            pa.field("byte_length", pa.uint32(), nullable=False),
        ]
    )


def tokenize_batch(encoder: TextEncoder, documents: pa.RecordBatch) -> pa.RecordBatch:
    """A token batch from a document batch.

    A document of more than `MAX_ROW_TOKENS` tokens takes several rows with its id, one after the
    other; the last one has the document's `byte_length` (of its text in UTF-8), the others have 0.
    """
    texts = documents.column("text")
    tokens, lengths = encoder.encode_batch(texts)
    rows_of = np.maximum(1, -(-lengths // MAX_ROW_TOKENS))
    last_rows = np.cumsum(rows_of) - 1
    row_lengths = np.full(rows_of.sum(), MAX_ROW_TOKENS)
    row_lengths[last_rows] = lengths - (rows_of - 1) * MAX_ROW_TOKENS
    byte_lengths = np.zeros(len(row_lengths), np.uint32)
    byte_lengths[last_rows] = pc.binary_length(texts).to_numpy()
    offsets = offsets_of(row_lengths).astype(np.int32)
    schema = tokens_schema(encoder.dtype)
    lists = pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(tokens), type=schema.field("tokens").type
    )
    documents_of_rows = np.repeat(np.arange(len(lengths)), rows_of)
    ids = documents.column("doc_id").take(pa.array(documents_of_rows))
    return pa.record_batch([ids, lists, pa.array(byte_lengths)], schema=schema)


class TokensWriter:
    """Writes token batches as one file with row groups of about a million tokens."""

    def __init__(self, path: str, dtype: npt.DTypeLike) -> None:
        """Prepares a file at a local path for token ids of `dtype`."""
        self.tokens = 0
        self._group_tokens = 0
        self._writer = parquet.RowGroupWriter(path, tokens_schema(dtype), parquet.NO_ROW_LIMIT)

    @property
    def rows(self) -> int:
        """Rows written, one or more a document."""
        return self._writer.rows

    def __enter__(self) -> "TokensWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.__exit__(*exception)

    def close(self) -> None:
        """Writes what is held back; nothing can be added after it."""
        self._writer.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Adds a token batch."""
        ends = np.cumsum(pc.list_value_length(batch.column("tokens")).to_numpy(), dtype=np.int64)
        first, written = 0, 0
        while first < batch.num_rows:
            room = ROW_GROUP_TOKENS - self._group_tokens
            last = min(int(np.searchsorted(ends, written + room)) + 1, batch.num_rows)
            self._writer.write(batch.slice(first, last - first))
            added = int(ends[last - 1]) - written
            self.tokens += added
            self._group_tokens += added
            if self._group_tokens >= ROW_GROUP_TOKENS:
                self._writer.end_row_group()
                self._group_tokens = 0
            first, written = last, int(ends[last - 1])


def row_group_sizes(url: str) -> tuple[list[int], list[int]]:
    """How many tokens and rows each row group of a tokens dataset's file has, from its footer.

    Of a compressed dataset there is a token more for each empty document.

    Raises:
      DataError: the file is missing or damaged, or has no tokens.
    """
    with parquet.open_reader(url) as file:
        column = file.schema_arrow.get_field_index("tokens")
        groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
        try:
            tokens = [group.column(column).num_values for group in groups]
        except IndexError as error:
            raise DataError(f"{url} has no column tokens") from error
        return tokens, [group.num_rows for group in groups]


def text_bytes(folder: str, manifest: Manifest) -> int:
    """The bytes of text that a tokens dataset stands for, from its column of lengths."""
    return sum(
        int(parquet.column_values(table, "byte_length").sum(dtype=np.int64))
        for url in manifest.data_urls(folder)
        for table in parquet.read_tables(url, ["byte_length"])
    )


def read_rows(
    url: str, groups: range | None = None
) -> Iterator[tuple[npt.NDArray[np.generic], npt.NDArray[np.int64]]]:
    """Row groups of a tokens dataset's file, by default all of them.

    Yields:
      Token ids, and where each row's end, int64 [rows].
    """
    with parquet.open_reader(url) as file:
        for group in range(file.num_row_groups) if groups is None else groups:
            table = file.read_row_group(group, columns=["tokens"], use_threads=False)
            yield parquet.column_values(table, "tokens"), parquet.list_offsets(table, "tokens")[1:]


def read_row_groups(url: str, groups: range | None = None) -> Iterator[npt.NDArray[np.generic]]:
    """The token ids that `read_rows` yields, a flat array a row group."""
    return (tokens for tokens, _ in read_rows(url, groups))


def check_vocabulary(
    tokens: npt.NDArray[Any], vocabulary_size: int, place: str | None = None
) -> None:
    """Raises DataError where an id is not in a vocabulary.

    Args:
      tokens: ids, of shape [positions].
      vocabulary_size: ids are from 0 to below it.
      place: where they are from, for the message, which names the first wrong one's position.
    """
    if len(tokens) and (tokens.max() >= vocabulary_size or tokens.min() < 0):
        position = int(np.flatnonzero((tokens >= vocabulary_size) | (tokens < 0))[0])
        prefix = "" if place is None else f"{place}: "
        raise DataError(
            f"{prefix}token id {tokens[position]} at position {position} is outside the"
            f" vocabulary of {vocabulary_size}"
        )
