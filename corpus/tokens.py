"""Tokens datasets: documents as token ids, each ended by the end-of-document token."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpus import parquet
from corpus.tokenizers import Tokenizer

ROW_GROUP_TOKENS = 1 << 20
# Row groups end by tokens, not by rows.
_NO_ROW_LIMIT = 1 << 62


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


def tokenize_batch(tokenizer: Tokenizer, documents: pa.RecordBatch) -> pa.RecordBatch:
    """A token batch from a document batch.

    `byte_length` counts the document's text in UTF-8, without the end-of-document token.
    """
    texts = documents.column("text")
    tokens, lengths = tokenizer.encode_batch(texts)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]).astype(np.int32)
    schema = tokens_schema(tokenizer.dtype)
    lists = pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(tokens), type=schema.field("tokens").type
    )
    sizes = pc.binary_length(texts).cast(pa.uint32())
    return pa.record_batch([documents.column("doc_id"), lists, sizes], schema=schema)


class TokensWriter:
    """Writes token batches as one file with row groups of about a million tokens."""

    def __init__(self, path: str, dtype: npt.DTypeLike) -> None:
        """Prepares a file at a local path for token ids of `dtype`."""
        self.tokens = 0
        self._group_tokens = 0
        self._writer = parquet.RowGroupWriter(path, tokens_schema(dtype), _NO_ROW_LIMIT)

    @property
    def rows(self) -> int:
        """Documents written."""
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
        added = len(batch.column("tokens").flatten())
        self._writer.write(batch)
        self.tokens += added
        self._group_tokens += added
        if self._group_tokens >= ROW_GROUP_TOKENS:
            self._writer.end_row_group()
            self._group_tokens = 0


def row_group_tokens(url: str) -> list[int]:
    """How many tokens each row group of a file has, from its footer."""
    with parquet.open_reader(url) as file:
        groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
        column = file.schema_arrow.get_field_index("tokens")
        return [group.column(column).num_values for group in groups]


def read_row_groups(url: str, first: int, last: int) -> Iterator[npt.NDArray[np.generic]]:
    """The token ids of row groups `first` to `last` (exclusive), a flat array a row group."""
    with parquet.open_reader(url) as file:
        for group in range(first, last):
            table = file.read_row_group(group, columns=["tokens"], use_threads=False)
            yield parquet.column_values(table, "tokens")
