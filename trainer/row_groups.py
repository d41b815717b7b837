"""The row groups of a dataset of tokens, and what their targets come from."""

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.corpus import parquet, storage
from corpusmill.corpus.datasets import (
    ID_KINDS,
    FileRecord,
    Manifest,
    describe_differences,
    read_manifest,
)
from corpusmill.corpus.errors import DataError, DatasetError, UsageError
from corpusmill.corpus.ragged import places
from corpusmill.corpus.tokens import check_vocabulary, id_dtype, read_row_groups, row_group_sizes
from corpusmill.ngram_agg.full_tables import FullTable
from corpusmill.ngram_agg.heads import Targets
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.positions import Positions, positions_of, read_place
from corpusmill.ngram_agg.targets import TargetTable, make_targets
from corpusmill.ngram_agg.targets_files import TargetsReader
from corpusmill.trainer.batches import start_id
from corpusmill.trainer.order import DataOptions
from corpusmill.trainer.sequence_pools import (
    Pool,
    RowGroup,
    SequenceTargets,
    empty_array,
    fill_pool,
    number_of_sequences,
)

_FOOTERS_AT_ONCE = 16

Array = npt.NDArray[Any]


class CompactTargets(NamedTuple):
    """What compact targets are computed from."""

    table: TargetTable

    @property
    def packing(self) -> Packing:
        return self.table.packing

    @property
    def seed(self) -> int:
        return self.table.options.seed


class FullDistributions(NamedTuple):
    """Where the full distributions of contexts are looked up."""

    table: FullTable
    orders: range
    seed: int = 0

    @property
    def packing(self) -> Packing:
        return self.table.packing

    def rows_of(self, positions: Positions) -> Array:
        """The table's row of the longest kept context of each position."""
        keys = positions.high, positions.low, positions.lengths
        return self.table.index.longest(*keys, self.orders)


Table = CompactTargets | FullDistributions | None


@dataclass(frozen=True)
class RowGroups:
    """The row groups of a tokens dataset, one file after the other, and where their targets are.

    Attributes:
      folder: of the tokens dataset.
      sha256: of the files.
      targets: what reads their targets.
      vocabulary_size: token ids are below it.
      start: the `start_id`.
      is_of_codec: whether the ids are a codec's.
      rows_are_sequences: whether each row is a sequence.
      names: of the files.
      file: the file of each row group, as index into `names`.
      number: of each row group in its file.
      tokens: in each row group; row groups without are left out.
      rows: in each row group.
    """

    folder: str
    sha256: list[str]
    targets: TargetsReader | None
    vocabulary_size: int
    start: int
    is_of_codec: bool
    rows_are_sequences: bool
    names: list[str]
    file: Array
    number: Array
    tokens: Array
    rows: Array

    @classmethod
    def of(cls, folder: str, manifest: Manifest, targets: TargetsReader | None) -> "RowGroups":
        """Reads the footers of the files with tokens.

        Raises:
          DataError: a file is missing or damaged.
          DatasetError: there are no tokens.
        """
        records = manifest.data_files
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as threads:
            sizes = list(threads.map(functools.partial(_row_group_sizes, folder), records))
        groups = np.array([len(tokens) for tokens, _ in sizes], np.int64)
        file = np.repeat(np.arange(len(sizes)), groups)
        number = places(groups)
        tokens, rows = (np.concatenate([groups[:0], *(pair[i] for pair in sizes)]) for i in (0, 1))
        used = tokens > 0
        if not used.any():
            raise DatasetError(f"{folder} has no tokens to train on")
        return cls(
            folder,
            [record.sha256 for record in records],
            targets,
            manifest.tokenizer["vocabulary_size"],
            start_id(manifest.tokenizer),
            manifest.kind != "tokens",
            manifest.properties.get("length") is not None,
            [record.name for record in records],
            file[used],
            number[used],
            tokens[used],
            rows[used],
        )

    def sequences(self, options: DataOptions) -> Array:
        """How many sequences each row group gives."""
        if self.rows_are_sequences:
            return self.rows
        return number_of_sequences(self.tokens, options.length, options.step)

    def read_pool(self, groups: Array, options: DataOptions, table: Table) -> Pool:
        """The sequences of row groups, in their order.

        Raises:
          DataError: a file is missing or damaged.
        """
        ends = np.cumsum(self.sequences(options)[groups])
        length = options.length
        pool = self._empty_pool(int(ends[-1]), length, table)
        for group, first in zip(groups.tolist(), [0, *ends.tolist()], strict=False):
            found = self._read_row_group(group, table)
            if self.rows_are_sequences:
                found = found.filled_up(length)
            fill_pool(pool, first, found, options.step)
        return pool

    def _empty_pool(self, sequences: int, length: int, table: Table) -> Pool:
        dtype = id_dtype(self.vocabulary_size)
        slots = None
        if self.targets is not None:
            properties = self.targets.manifest.properties
            slots = properties["head"], properties["tail_draws"]
        elif isinstance(table, CompactTargets):
            slots = table.table.options.head, table.table.options.tail_draws
        contexts = None
        if isinstance(table, FullDistributions):
            contexts = empty_array((sequences, length), np.int64), table.table
        return Pool(
            order=np.arange(sequences),
            next_tokens=empty_array((sequences, length), dtype),
            before=np.empty(sequences, np.int64),
            predictions=np.empty(sequences, np.int64),
            known=np.empty(sequences, np.int64),
            bytes=np.empty(sequences, np.int64),
            targets=None
            if slots is None
            else SequenceTargets(
                *slots,
                empty_array((sequences, length), np.uint32),
                np.empty(sequences, np.int64),
                np.empty(sequences, np.int64),
                [],
            ),
            contexts=contexts,
            places=empty_array((sequences, length), np.int32) if self.is_of_codec else None,
            start=self.start,
        )

    def _read_row_group(self, group: int, table: Table) -> RowGroup:
        name, number = self.names[self.file[group]], int(self.number[group])
        url = storage.join(self.folder, name)
        columns = ["tokens", "byte_length", *(["doc_id"] if table else [])]
        rows = _read_columns(url, number, columns)
        found = RowGroup(
            self._read_ids(url, rows, int(self.tokens[group])),
            parquet.list_offsets(rows, "tokens")[1:],
            parquet.column_values(rows, "byte_length"),
        )
        if self.targets is not None:
            return found._replace(targets=self._read_targets(group, found.row_ends))
        if table is None:
            return found
        place = read_place(url, number, table.packing)
        positions = positions_of(table.packing, rows, place, table.seed).positions
        if isinstance(table, CompactTargets):
            return found._replace(targets=make_targets(table.table, positions))
        return found._replace(contexts=table.rows_of(positions))

    def _read_targets(self, group: int, row_ends: Array) -> Targets:
        """The targets of a row group's tokens."""
        assert self.targets is not None
        file = self.file[group]
        return self.targets.read(
            self.names[file], int(self.number[group]), self.sha256[file], row_ends
        )[1]

    def _read_ids(self, url: str, table: pa.Table, count: int) -> Array:
        """The tokens of a row group, of which there must be `count`."""
        ids: Array = parquet.column_values(table, "tokens")
        if len(ids) != count:
            raise DataError(f"{url} has {len(ids)} tokens in a row group, not {count}")
        check_vocabulary(ids, self.vocabulary_size, url)
        return ids


def read_tokens_manifest(folder: str, length: int) -> Manifest:
    """The manifest of a dataset of tokens.

    Raises:
      DatasetError: it is of another kind.
      UsageError: it has trimmed examples that aren't `length` long.
    """
    manifest = read_manifest(folder)
    if manifest.kind not in ID_KINDS:
        raise DatasetError(
            f"{folder} is a {manifest.kind} dataset; {', '.join(ID_KINDS)} are accepted"
        )
    trimmed = manifest.properties.get("length")
    if trimmed not in (None, length):
        raise UsageError(
            f"the examples in {folder} are {trimmed} ids long, sequences {length} tokens: give"
            f" --length {trimmed}"
        )
    return manifest


def read_targets_manifest(folder: str, tokens: Manifest) -> Manifest:
    """The manifest of a targets dataset that was made from the dataset `tokens`.

    Raises:
      DatasetError: it was made from another one.
    """
    manifest = read_manifest(folder, "targets")
    made_from = manifest.properties["tokens_hash"]
    if made_from != tokens.content_hash:
        raise DatasetError(
            f"the targets in {folder} were made from other tokens (content hash {made_from:.12},"
            f" not {tokens.content_hash:.12}); make them again with corpusmill enrich"
        )
    return manifest


def read_counts_manifest(folder: str, tokens: Manifest) -> Manifest:
    """The manifest of a counts dataset of the same tokenizer.

    Raises:
      DatasetError: it was counted with another one.
    """
    manifest = read_manifest(folder, "counts")
    differences = describe_differences(tokens.tokenizer, manifest.tokenizer)
    if differences:
        raise DatasetError(
            f"{folder} was not counted with the tokenizer of the tokens: {'; '.join(differences)}"
        )
    return manifest


def _row_group_sizes(folder: str, record: FileRecord) -> tuple[Array, Array]:
    """How many tokens and rows each row group of a file has."""
    url = storage.join(folder, record.name)
    tokens, rows = row_group_sizes(url)
    # The footer counts empty documents, which only codecs have, as if they had a token.
    if sum(tokens) > record.tokens:
        tokens = list(map(len, read_row_groups(url)))
    if sum(tokens) != record.tokens:
        raise DataError(f"{url} has {sum(tokens)} tokens, its manifest says {record.tokens}")
    return np.array(tokens, np.int64), np.array(rows, np.int64)


def _read_columns(url: str, group: int, columns: list[str]) -> pa.Table:
    with parquet.open_reader(url) as file:
        return file.read_row_group(group, columns=columns, use_threads=False)
