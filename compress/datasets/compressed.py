"""Compressed datasets: documents as the ids of a codec, in files like those of tokens datasets.

A document has no id at its end: its last row is the one with a `byte_length`, or without ids where
the document is empty.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.compress.byte_strings import ByteStrings, Ids, Offsets
from corpusmill.compress.codecs import Codec
from corpusmill.corpus import parquet
from corpusmill.corpus.errors import DataError


@dataclass(frozen=True)
class CodecEncoder:
    """A codec as `corpus.tokens.tokenize_batch` wants it: documents are their texts in UTF-8."""

    codec: Codec

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.codec.dtype

    def encode_batch(self, texts: pa.LargeStringArray) -> tuple[Ids, npt.NDArray[np.int64]]:
        """The ids of all texts one after the other, and how many ids each has."""
        ids, bounds = self.codec.encode_batch(ByteStrings.of_array(texts))
        return ids, np.diff(bounds)

    def check(self, doc_ids: Sequence[str], texts: Sequence[str]) -> None:
        self.codec.check(doc_ids, texts)


def read_documents(url: str, codec: Codec) -> Iterator[tuple[list[str], ByteStrings]]:
    """The documents in a file of a compressed dataset, in its order.

    Those of a codec that loses text are what it makes of them.

    Yields:
      Ids and contents of documents, about a row group at a time; a document is in memory as a
      whole.

    Raises:
      DataError: the file can't be read, or what it holds of a document, which is named, isn't what
        `compress` writes.
    """
    for names, documents, lengths in decoded_documents(url, codec):
        wrong = np.flatnonzero(documents.lengths() != lengths)
        if len(wrong) and codec.is_lossless:
            number = int(wrong[0])
            raise DataError(
                f"document {names[number]!r}: its ids are of {documents.lengths()[number]} bytes,"
                f" its byte_length is {lengths[number]}"
            )
        yield names, documents


def decoded_documents(
    url: str, codec: Codec
) -> Iterator[tuple[list[str], ByteStrings, npt.NDArray[np.uint32]]]:
    """As `read_documents`, with the length that each document had, whether it has it or not."""
    # Of a document whose last row is still to come.
    held: list[Ids] = []
    for names, ids, offsets, lengths in read_rows(url):
        is_last = (lengths > 0) | (np.diff(offsets) == 0)
        if is_last.any():
            ends = offsets[1:][is_last]
            bounds = np.concatenate([[0], ends + sum(map(len, held))])
            ended = names.filter(pa.array(is_last)).to_pylist()
            whole = np.concatenate([*held, ids[: ends[-1]]])
            yield ended, _decode(codec, ended, whole, bounds), lengths[is_last]
            held, ids = [], ids[ends[-1] :]
        if len(ids):
            held.append(ids)
    if held:
        raise DataError(f"document {names[-1].as_py()!r}: its last row is missing in {url}")


def read_rows(
    url: str,
) -> Iterator[tuple[pa.ChunkedArray, Ids, Offsets, npt.NDArray[np.uint32]]]:
    """The rows in a file of a compressed or examples dataset, a row group at a time.

    Yields:
      Their `doc_id`, the ids of all rows, int64 [rows + 1] where those of each are, and their
      `byte_length`.

    Raises:
      DataError: the file can't be read.
    """
    for table in parquet.read_tables(url, ["doc_id", "tokens", "byte_length"]):
        with parquet.naming(url):
            ids = parquet.column_values(table, "tokens")
            offsets = parquet.list_offsets(table, "tokens")
            lengths = parquet.column_values(table, "byte_length")
        yield table.column("doc_id"), ids, offsets, lengths


def _decode(codec: Codec, names: Sequence[str], ids: Ids, bounds: Offsets) -> ByteStrings:
    """Documents of these names and ids."""
    try:
        return codec.decode_batch(ids, bounds)
    except DataError:
        for number, name in enumerate(names):
            one = ids[bounds[number] : bounds[number + 1]]
            try:
                codec.decode_batch(one, np.array([0, len(one)]))
            except DataError as error:
                raise DataError(f"document {name!r}: {error}") from error
        raise
