"""The numbers of a report: each kind of dataset read once, a row group at a time."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.corpus import parquet, storage
from corpusmill.corpus.datasets import FileRecord, Manifest
from corpusmill.corpus.ragged import places
from corpusmill.ngram_agg.counts_files import counts_packing, read_counts
from corpusmill.ngram_agg.counts_runs import CountsRun
from corpusmill.ngram_agg.packing import Key
from corpusmill.ngram_agg.tables import order_of
from corpusmill.ngram_agg.targets_files import TargetsReader

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_BINS = 64


@dataclass(frozen=True)
class Dataset:
    """A dataset of the report.

    Attributes:
      name: what it is called there.
      folder: where it is.
      manifest: of it.
    """

    name: str
    folder: str
    manifest: Manifest

    @property
    def tokens(self) -> int:
        """Tokens of the corpus that it was made from."""
        return int(self.manifest.properties["tokens"])

    @property
    def bytes(self) -> int:
        """Size of its Parquet files."""
        return sum(file.bytes for file in self.manifest.data_files)

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens

    def data_files(self) -> Iterator[tuple[str, FileRecord]]:
        """Places and records of the Parquet files."""
        for record in self.manifest.data_files:
            yield storage.join(self.folder, record.name), record


def _no_bins() -> Integers:
    return np.zeros(_BINS, np.int64)


@dataclass(frozen=True)
class Frequencies:
    """How often things were seen, in bins by powers of two.

    Attributes:
      things: int64 [64]; bin b has the number of things seen 2**b to 2**(b + 1) - 1 times.
      positions: int64 [64]; how often they were seen in all.
    """

    things: Integers = field(default_factory=_no_bins)
    positions: Integers = field(default_factory=_no_bins)

    def add(self, seen: Integers) -> None:
        """Takes in things that were seen so often, each at least once."""
        # The exponent is exact below 2**53, unlike a logarithm.
        bins = np.frexp(seen.astype(np.float64))[1] - 1
        self.things[:] += np.bincount(bins, minlength=_BINS)
        self.positions[:] += np.bincount(bins, seen, minlength=_BINS).astype(np.int64)

    @property
    def used_bins(self) -> int:
        """One more than the highest bin that holds anything."""
        return int(np.flatnonzero(self.things).max(initial=-1)) + 1

    def things_from(self, times: int = 1) -> int:
        """How many were seen at least so often, a power of two."""
        return int(self.things[times.bit_length() - 1 :].sum())

    def positions_from(self, times: int = 1) -> int:
        """How often those were seen in all."""
        return int(self.positions[times.bit_length() - 1 :].sum())


@dataclass(frozen=True)
class OrderCounts:
    """The n-grams of one order.

    Attributes:
      ngrams: how often each (context, next token) was seen.
      contexts: how often each context was seen.
    """

    ngrams: Frequencies
    contexts: Frequencies


@dataclass(frozen=True)
class OrderDistributions:
    """The distributions of one order.

    Attributes:
      contexts: how many were kept.
      positions: how often they were seen in all.
      head_counts: int64 [top_k]; how often, in all, a context was followed by its most frequent
        next token, by its second, and so on.
      tail_count: how often by a token that isn't among these.
    """

    contexts: int
    positions: int
    head_counts: Integers
    tail_count: int

    @property
    def head_mass(self) -> Floats:
        """Mean probability of the r most frequent next tokens, over positions; r = 1, 2, ..."""
        return np.cumsum(self.head_counts) / self.positions

    @property
    def tail_mass(self) -> float:
        """Mean probability of all tokens that were not kept, over positions."""
        return self.tail_count / self.positions


@dataclass(frozen=True)
class TargetNumbers:
    """What a targets dataset holds.

    Attributes:
      positions_of_order: int64 [256]; by the length of the context used, 255 for none.
      slot_weights: int64 [slots]; sums of the weights, in units of 1/65535.
      slots_used: int64 [slots]; at how many positions a slot's weight isn't 0.
    """

    positions_of_order: Integers
    slot_weights: Integers
    slots_used: Integers


def read_column_bytes(dataset: Dataset) -> dict[str, int]:
    """Compressed bytes of each column, over all files, from their footers."""
    sizes: Counter[str] = Counter()
    for url, _ in dataset.data_files():
        with parquet.naming(url), parquet.open_reader(url) as file:
            for group in range(file.num_row_groups):
                metadata = file.metadata.row_group(group)
                for index in range(metadata.num_columns):
                    column = metadata.column(index)
                    sizes[column.path_in_schema.split(".")[0]] += column.total_compressed_size
    return dict(sizes)


def read_document_lengths(dataset: Dataset) -> Frequencies:
    """Documents of a tokens or compressed dataset by the bytes of their text; no empty ones."""
    lengths = Frequencies()
    for url, _ in dataset.data_files():
        for table in parquet.read_tables(url, ["byte_length"]):
            found = parquet.column_values(table, "byte_length")
            # All rows but the last of a document of several rows have none, too.
            lengths.add(found[found > 0])
    return lengths


def read_counts_by_order(dataset: Dataset) -> list[OrderCounts]:
    """The n-grams of each order, from order 0 on, of a counts dataset."""
    packing = counts_packing(dataset.manifest)
    orders = range(packing.length)
    ngrams, contexts = [_Groups() for _ in orders], [_Groups() for _ in orders]
    for url, _ in dataset.data_files():
        with parquet.naming(url):
            for run in read_counts(url, packing):
                for order in orders:
                    seen = run.order(order)
                    ngrams[order].add(seen)
                    # There is no key of no tokens: the empty context is counted below.
                    if order:
                        contexts[order].add(seen.shortened(order))
    found = [OrderCounts(ngrams[order].closed(), contexts[order].closed()) for order in orders]
    positions = found[0].ngrams.positions_from()
    found[0].contexts.add(np.array([positions] if positions else [], np.int64))
    return found


class _Groups:
    """How often each key was seen, over runs that follow each other and may share a key."""

    def __init__(self) -> None:
        self._frequencies = Frequencies()
        self._last: tuple[Key, int] | None = None

    def add(self, run: CountsRun) -> None:
        """Takes in the next run, whose first key may be the last one of the run before."""
        if not len(run):
            return
        seen = run.counts.astype(np.int64)
        if self._last is not None and self._last[0] == run.key(0):
            seen[0] += self._last[1]
        else:
            self._add_last()
        self._frequencies.add(seen[:-1])
        self._last = run.key(len(run) - 1), int(seen[-1])

    def closed(self) -> Frequencies:
        """The frequencies, after all runs."""
        self._add_last()
        self._last = None
        return self._frequencies

    def _add_last(self) -> None:
        if self._last is not None:
            self._frequencies.add(np.array([self._last[1]]))


def read_distributions_by_order(dataset: Dataset) -> dict[int, OrderDistributions]:
    """The distributions of each order of which contexts were kept."""
    top_k = dataset.manifest.properties["top_k"]
    heads: dict[int, Integers] = {}
    others: dict[int, Integers] = {}
    for url, record in dataset.data_files():
        order = order_of(record.name)
        head = heads.setdefault(order, np.zeros(top_k, np.int64))
        # Contexts, positions, positions in the tail.
        other = others.setdefault(order, np.zeros(3, np.int64))
        for table in parquet.read_tables(url, ["total", "next_counts", "tail_count"]):
            head += _sums_by_rank(table, top_k)
            positions = parquet.column_values(table, "total").sum()
            tail = parquet.column_values(table, "tail_count").sum()
            other += np.array([table.num_rows, positions, tail], np.int64)
    return {
        order: OrderDistributions(int(contexts), int(positions), heads[order], int(tail))
        for order, (contexts, positions, tail) in sorted(others.items())
    }


def _sums_by_rank(table: pa.Table, top_k: int) -> Integers:
    """Sums of the first, the second, ... of each row's counts: int64 [top_k]."""
    offsets = parquet.list_offsets(table, "next_counts")
    counts = parquet.column_values(table, "next_counts")
    return np.bincount(places(np.diff(offsets)), counts, minlength=top_k).astype(np.int64)


def read_targets(dataset: Dataset) -> TargetNumbers:
    """Contexts used and weights of a targets dataset."""
    properties = dataset.manifest.properties
    slots = properties["head"], properties["tail_draws"]
    numbers = TargetNumbers(
        np.zeros(256, np.int64), np.zeros(sum(slots), np.int64), np.zeros(sum(slots), np.int64)
    )
    reader = TargetsReader(dataset.folder, dataset.manifest)
    for name in reader.names:
        for _, targets in reader.read_file(name):
            # What it adds up doesn't depend on which tokens were drawn: once for each head.
            targets = targets.compact()
            uses = np.bincount(targets.head, minlength=len(targets.heads))
            weights = targets.heads.slot_weights(*slots)
            numbers.positions_of_order[:] += np.bincount(
                targets.heads.orders, uses, minlength=256
            ).astype(np.int64)
            numbers.slot_weights[:] += uses @ weights
            numbers.slots_used[:] += uses @ (weights > 0)
    return numbers
