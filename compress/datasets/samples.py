"""Samples of text, for what is fitted on it, and of ids, for what is measured on them."""

from collections.abc import Iterator, Sequence

import numpy as np

from corpusmill.compress.byte_strings import ByteStrings, Ids, Offsets
from corpusmill.corpus import parquet, storage
from corpusmill.corpus.datasets import Manifest
from corpusmill.corpus.documents import BadRecord
from corpusmill.corpus.errors import DataError
from corpusmill.corpus.inputs import ReadOptions, check_columns, find_inputs, plan_shards
from corpusmill.corpus.ragged import offsets_of
from corpusmill.corpus.readers import read_segment
from corpusmill.corpus.tokenizers.raw_bytes import END
from corpusmill.corpus.tokens import ROW_GROUP_TOKENS, read_row_groups, row_group_sizes

_SAMPLED_GROUPS = 16


def sample_text(folder: str, manifest: Manifest, most_bytes: int) -> ByteStrings:
    """Text from everywhere in a tokens dataset of bytes.

    Args:
      folder: path or URL of the dataset.
      manifest: of the dataset.
      most_bytes: about how much is read of it, in row groups of a MiB that lie equally far apart.

    Returns:
      Documents; some are parts of documents, because row groups end anywhere.
    """
    groups = _row_groups(folder, manifest)
    wanted = max(1, most_bytes // ROW_GROUP_TOKENS)
    step = max(1, -(-len(groups) // wanted))
    tokens = np.concatenate(list(_read(groups[::step])))
    is_end = tokens == END
    ends = np.flatnonzero(is_end)
    # The bytes before each end; what follows the last one is a document too.
    lengths = np.diff(np.concatenate([[-1], ends, [len(tokens)]])) - 1
    offsets = offsets_of(lengths)
    return ByteStrings(tokens[~is_end].astype(np.uint8), offsets)


def _row_groups(folder: str, manifest: Manifest) -> list[tuple[str, int]]:
    """Places and numbers of all row groups of a dataset."""
    urls = manifest.data_urls(folder)
    sizes = storage.in_threads(row_group_sizes, urls)
    return [
        (url, group)
        for url, (tokens, _) in zip(urls, sizes, strict=True)
        for group in range(len(tokens))
    ]


def documents_text(patterns: Sequence[str], most_bytes: int) -> ByteStrings:
    """The text of documents as `corpusmill tokenize` reads them, with its defaults.

    Args:
      patterns: as `corpusmill.corpus.inputs.find_inputs` takes them.
      most_bytes: once so much is read, the rest is left.

    Raises:
      UsageError: a pattern matches nothing, or a file can't be read.
      DataError: a record is no document.
    """
    parts, size = [ByteStrings.of([])], 0
    for text in _texts(patterns):
        parts.append(text)
        size += len(text.data)
        if size >= most_bytes:
            break
    return ByteStrings.join(parts)


def _texts(patterns: Sequence[str]) -> Iterator[ByteStrings]:
    options = ReadOptions()
    files = find_inputs(patterns, options)
    check_columns(files, options)
    for segment in (segment for shard in plan_shards(files, options) for segment in shard):
        for documents, bad_records in read_segment(segment, options):
            _refuse(bad_records)
            # A copy, so that the batch can let go of its memory.
            yield ByteStrings.join([ByteStrings.of_array(documents.column("text"))])


def _refuse(bad_records: Sequence[BadRecord]) -> None:
    if bad_records:
        bad = bad_records[0]
        raise DataError(
            f"{bad.source}, offset {bad.offset}: {bad.reason}; make a tokens dataset with"
            " --tokenizer bytes, which sets bad records aside"
        )


def _read(groups: list[tuple[str, int]]) -> Iterator[np.typing.NDArray[np.generic]]:
    for url, group in groups:
        yield from read_row_groups(url, range(group, group + 1))
        # A document may end here or not: the next group is from elsewhere.
        yield np.full(1, END, np.uint16)


def sample_ids(folder: str, manifest: Manifest, most_bytes: int) -> tuple[Ids, Offsets]:
    """Documents from everywhere in a dataset whose rows have `tokens` and `byte_length`.

    Args:
      folder: path or URL of the dataset.
      manifest: of the dataset.
      most_bytes: about how much text they have: the same amount from each of at most 16 row groups
        that lie equally far apart, and at least one document of each.

    Returns:
      Ids of documents one after the other, and int64 [documents + 1]: document i has the ids from
      offsets[i] to offsets[i + 1]. Documents of several rows and empty ones are not among them.

    Raises:
      DataError: a file can't be read.
    """
    groups = _row_groups(folder, manifest)
    chosen = groups[:: max(1, -(-len(groups) // _SAMPLED_GROUPS))]
    parts = [_read_whole(url, group, most_bytes // len(chosen)) for url, group in chosen]
    lengths = np.concatenate([lengths for _, lengths in parts])
    offsets = offsets_of(lengths)
    return np.concatenate([ids for ids, _ in parts]), offsets


def _read_whole(url: str, group: int, most_bytes: int) -> tuple[Ids, Offsets]:
    """The ids of the first documents that lie in a row of a row group, and how many each has."""
    with parquet.naming(url), parquet.open_reader(url) as file:
        table = file.read_row_group(group, columns=["tokens", "byte_length"], use_threads=False)
        # If the row before ends its document can be told from its length, unless that is empty.
        before = 1
        if group:
            rows = file.read_row_group(group - 1, columns=["byte_length"], use_threads=False)
            before = rows.column("byte_length")[-1].as_py()
    lengths = parquet.column_values(table, "byte_length").astype(np.int64)
    ids_of_rows = np.diff(parquet.list_offsets(table, "tokens"))
    ids = parquet.column_values(table, "tokens")
    # The row after one with ids and without a length goes on with its document.
    goes_on = np.append(before == 0, (lengths == 0) & (ids_of_rows > 0))[:-1]
    whole = (lengths > 0) & ~goes_on
    known = np.cumsum(lengths * whole)
    whole &= (known <= most_bytes) | (known == lengths)
    return ids[np.repeat(whole, ids_of_rows)], ids_of_rows[whole]
