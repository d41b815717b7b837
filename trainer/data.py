"""Streams batches of token sequences, in an order that depends on neither ranks nor workers.

A row group of a dataset of tokens is cut into sequences; where examples were trimmed to a length,
each of them is one. The row groups of an epoch are shuffled and
dealt to a few *lanes*; a lane goes through its row groups in *pools*, whose sequences are shuffled
together, and is cut into batches. The batches 0, 1, 2, ... are taken from the lanes in turn, epoch
after epoch. All of this follows from the seed and from the files' footers alone, so any batch is
found without reading what comes before it, and whoever wants a share of the batches (a rank, a
worker of a rank) takes every so many-th. With at least as many lanes as such readers, and a
multiple of their number, each of them reads only its own files.
"""

import bisect
import dataclasses
import functools
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from corpusmill.corpus import parquet, storage
from corpusmill.corpus.datasets import FileRecord, Manifest, describe_differences, read_manifest
from corpusmill.corpus.errors import CorpusmillError, DataError, DatasetError, UsageError
from corpusmill.corpus.tokens import read_row_groups, row_group_rows, row_group_tokens
from corpusmill.ngram_agg.full_tables import FullTable, full_distributions, load_full_table
from corpusmill.ngram_agg.packing import Packing, token_dtype
from corpusmill.ngram_agg.positions import Positions, positions_of, read_place
from corpusmill.ngram_agg.ragged import offsets_of
from corpusmill.ngram_agg.slots import Slots
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.ngram_agg.targets import (
    NO_HEAD,
    Heads,
    Targets,
    TargetTable,
    load_target_table,
    make_targets,
)
from corpusmill.ngram_agg.targets_files import TargetsReader

IGNORED = -100
KINDS = ("tokens", "compressed", "examples")
_DEFAULT_LANES = 8
# Of what a batch is made of: what is more is a slip, and doesn't fit in memory.
_MOST = 1 << 24
_FOOTERS_AT_ONCE = 16
# Of heads that were used last.
_HELD_SLOTS = 4
# Rarer contexts say nothing that the observed token doesn't.
_MIN_COUNT = 2

Item = TypeVar("Item")
Array = npt.NDArray[Any]


def start_id(tokenizer: Mapping[str, Any]) -> int:
    """The id that a model reads before a row: the end of the document before it.

    Codecs have no such id; theirs is the first one that isn't in the vocabulary.

    Args:
      tokenizer: as in a manifest.
    """
    end_of_document = tokenizer["end_of_document"]
    return int(tokenizer["vocabulary_size"] if end_of_document is None else end_of_document)


def model_vocabulary(tokenizer: Mapping[str, Any]) -> int:
    """How many ids a model of such tokens reads: those of the vocabulary, and the `start_id`."""
    return max(int(tokenizer["vocabulary_size"]), start_id(tokenizer) + 1)


class Batch(NamedTuple):
    """Sequences to learn from.

    Attributes:
      tokens: what the model reads, int64 of shape [batch, length].
      next_tokens: what it predicts, int64 of shape [batch, length]; `IGNORED` where there is
        nothing to predict.
      target_tokens: int32 of shape [batch, length, slots]; None without targets.
      target_weights: float32 of shape [batch, length, slots], of sum 1 where there is something to
        predict, else 0; None without targets.
      bytes: int64 of shape [batch], the UTF-8 lengths of the documents that end in each sequence.
      target_offsets: with full distributions, whose lengths differ, target tokens and weights are
        flat, of shape [entries], and position i of the flattened batch has the entries
        target_offsets[i] to target_offsets[i + 1]: int64 of shape [batch * length + 1]; else None.
      places: of the ids of a codec, the place of each next token in its row, from 0: int64 of shape
        [batch, length]; None for a tokenizer's.
    """

    tokens: Tensor
    next_tokens: Tensor
    target_tokens: Tensor | None
    target_weights: Tensor | None
    bytes: Tensor
    target_offsets: Tensor | None = None
    places: Tensor | None = None


@dataclass(frozen=True)
class DataOptions:
    """What decides the order of the batches, besides the dataset.

    Attributes:
      batch_size: sequences in a batch; the last one of a lane may have fewer.
      length: tokens of a sequence.
      seed: of the shuffling.
      shuffle: False gives the order of the files, in one lane.
      lanes: streams that batches are taken from in turn; by default 8, or the number of row groups
        if that is smaller. Each rank holds about 1.5 pools a lane in memory.
      pool: row groups of a lane whose sequences are shuffled together.
      stride: tokens from one sequence to the next, up to `length`. Each but a row group's first one
        then predicts only its last so many tokens, so that every token is predicted once, with at
        least length - stride tokens before it. None for sequences that don't overlap.

    Raises:
      UsageError: a number is too small or far too large, or there are several lanes without
        shuffling.
    """

    batch_size: int
    length: int
    seed: int = 0
    shuffle: bool = True
    lanes: int | None = None
    pool: int = 2
    stride: int | None = None

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "length": 1, "seed": 0, "pool": 1, "lanes": 1, "stride": 1}
        for name, minimum in least.items():
            value = getattr(self, name)
            if value is None and name in ("lanes", "stride"):
                continue
            if type(value) is not int or value < minimum:
                raise UsageError(f"{name} is {value}; {minimum} or more is needed")
            if name != "seed" and value > _MOST:
                raise UsageError(f"{name} is {value}; {_MOST:,} or less is needed")
        if self.stride is not None and self.stride > self.length:
            raise UsageError(f"stride is {self.stride}; {self.length}, the length, is the most")
        if not self.shuffle and self.lanes not in (None, 1):
            raise UsageError(f"lanes is {self.lanes}; without shuffling there is one lane")

    @property
    def step(self) -> int:
        """Tokens from one sequence to the next."""
        return self.stride or self.length

    def lanes_of(self, row_groups: int) -> int:
        """The number of lanes in a dataset of so many row groups."""
        return self.lanes or (min(row_groups, _DEFAULT_LANES) if self.shuffle else 1)


class TokenDataset(IterableDataset[Batch]):
    """The batches of a dataset of tokens, optionally with targets.

    It is a tokens dataset, or one of a codec's ids: `compressed` or `examples`. Codecs have no id
    for a document's end. There the `start_id` is read before the first id of every row, and nothing
    is predicted after the last one. Trimmed examples are a sequence each, filled up where they are
    shorter; else sequences run across rows, too.

    Targets are those of a sidecar; or computed from a counts dataset, the same ones as `enrich`
    writes; or the full distributions of the positions' contexts, looked up in a counts dataset.

    The iteration after `load_state_dict` begins where that put it, all others at the beginning.
    Every token is predicted once an epoch. `state_dict` says what the consumer has got: of the
    dataset itself, or of a `Loader` around it. A plain `DataLoader(dataset, batch_size=None,
    num_workers=2)` delivers the same batches, but then the count is the workers' own, and each of
    its iterations begins where a state was loaded.
    """

    def __init__(
        self,
        tokens: str,
        options: DataOptions,
        targets: str | None = None,
        *,
        counts: str | None = None,
        compact: TargetOptions | None = None,
        rank: int = 0,
        ranks: int = 1,
        epochs: int | None = None,
    ) -> None:
        """Opens datasets; reads manifests and the footers of the files with tokens.

        Args:
          tokens: path or URL of a dataset of one of the `KINDS`.
          options: what decides the order.
          targets: path or URL of a targets dataset that was made from it.
          counts: path or URL of a counts dataset of the same tokenizer, instead of `targets`. Its
            table is memory-mapped and shared by all processes of a machine.
          compact: with counts, what targets are made of; without it, there are full distributions.
          rank: which share of the batches this is: the batches rank, rank + ranks, ...
          ranks: how many shares there are. The last ranks may get a batch fewer at the very end.
          epochs: how often to go through the dataset; None for ever.

        Raises:
          DatasetError: there is no such dataset, or the targets belong to other tokens.
          DataError: a file is missing or damaged.
          UsageError: ranks or epochs make no sense, there are targets or counts for a codec's ids,
            or trimmed examples have another length.
        """
        if not 0 <= rank < ranks:
            raise UsageError(f"rank is {rank} of {ranks}; 0 to {ranks - 1} are accepted")
        if targets is not None and counts is not None:
            raise UsageError(f"targets {targets} and counts {counts} are given; one is accepted")
        if epochs is not None and epochs < 1:
            raise UsageError(f"epochs is {epochs}; 1 or more, or None, is needed")
        self.manifest = _read_tokens_manifest(tokens, options.length)
        if self.manifest.kind != "tokens" and (targets or counts):
            raise UsageError(
                f"{targets or counts} goes with a tokens dataset; {tokens} is of the kind"
                f" {self.manifest.kind}"
            )
        if options.stride is not None and (targets or counts):
            raise UsageError("sequences that overlap (stride) have no targets or counts")
        if options.stride is not None and self.manifest.properties.get("length") is not None:
            raise UsageError(f"the examples in {tokens} are a sequence each: there is no stride")
        self.targets_manifest = (
            None if targets is None else read_targets_manifest(targets, self.manifest)
        )
        self.counts_manifest = (
            None if counts is None else _read_counts_manifest(counts, self.manifest)
        )
        if compact is not None and counts is None:
            raise UsageError("targets are computed from counts; give counts, too")
        self._counts, self._compact = counts, compact
        reader = None
        if targets is not None and self.targets_manifest is not None:
            reader = TargetsReader(targets, self.targets_manifest)
        self._files = _Files.of(tokens, self.manifest, reader)
        self._sequences = self._files.sequences(options)
        self._lanes = options.lanes_of(len(self._sequences))
        self.options = options
        self._rank, self._ranks, self._epochs = rank, ranks, epochs
        self._start = self._next = 0

    @functools.cached_property
    def _table(self) -> "_CompactTargets | _FullDistributions | None":
        """Opened where it is used: in the worker."""
        if self._counts is None or self.counts_manifest is None:
            return None
        if self._compact is not None:
            return _CompactTargets(load_target_table(self._counts, self._compact))
        orders = range(1, self.counts_manifest.properties["max_order"] + 1)
        return _FullDistributions(load_full_table(self._counts, orders, _MIN_COUNT), orders)

    def state_dict(self) -> dict[str, Any]:
        """The position behind the last batch delivered, as JSON.

        It counts the batches of all ranks, so it is good for any number of ranks and workers. After
        the last epoch it is the same for all ranks, those that had no batch in the last round too.
        """
        return {"batch": self._next, "data": self._fingerprint()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Makes the next iteration go on where `state` was taken.

        Raises:
          UsageError: the state is of another dataset, or of other options.
        """
        differences = describe_differences(state["data"], self._fingerprint())
        if differences:
            raise UsageError(
                f"the position is one in other data ({'; '.join(differences)}); use the same"
                " datasets and options"
            )
        self._start = self._next = state["batch"]

    def __iter__(self) -> Iterator[Batch]:
        return self._counted(self._batches)

    def _fingerprint(self) -> dict[str, Any]:
        targets, counts = self.targets_manifest, self.counts_manifest
        return {
            "tokens": self.manifest.content_hash,
            "targets": None if targets is None else targets.content_hash,
            "counts": None if counts is None else counts.content_hash,
            "compact": None if self._compact is None else dataclasses.asdict(self._compact),
            **dataclasses.asdict(self.options),
            "lanes": self._lanes,
        }

    def _counted(self, batches_from: Callable[[int], Iterator[Batch]]) -> Iterator[Batch]:
        """What `batches_from` gives for where the iteration begins, the state going along."""
        start, self._start = self._start, 0
        self._next = start
        for batch in batches_from(start):
            self._next += self._ranks
            # Only in the last round of all can it be beyond the end.
            if self._epochs is not None and self._next > self._fewest_batches:
                self._next = min(self._next, self._all_batches)
            yield batch
        # The ranks that had no batch in the last round were not told.
        self._next = max(start, self._all_batches)

    @functools.cached_property
    def _fewest_batches(self) -> int:
        """The batches of all epochs are not fewer; known without planning them."""
        sequences = int(self._sequences.sum())
        return (self._epochs or 0) * -(-sequences // self.options.batch_size)

    @functools.cached_property
    def _all_batches(self) -> int:
        """The batches of all epochs."""
        epoch = _Epoch(self._sequences, self.options, self._lanes)
        while self._epochs is not None and epoch.number + 1 < self._epochs:
            epoch = epoch.next()
        return epoch.end

    def _batches(self, start: int) -> Iterator[Batch]:
        """This rank's batches from `start` on, or those of this worker of it."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        stride = self._ranks * workers
        pieces = self._pieces(start + self._rank + worker * self._ranks, stride)
        with _Pools(self._load) as pools:
            for each in _ahead(pieces, self._batches_ahead(stride), pools.request):
                yield _join([pools.get(piece).batch(piece.first, piece.last) for piece in each])

    def _pieces(self, first: int, stride: int) -> Iterator[list["_Piece"]]:
        """What the batches first, first + stride, ... are made of."""
        epoch = _Epoch(self._sequences, self.options, self._lanes)
        for batch in itertools.count(first, stride):
            while batch >= epoch.end:
                if epoch.number + 1 == self._epochs:
                    return
                epoch = epoch.next()
            yield epoch.pieces(batch)

    def _batches_ahead(self, stride: int) -> int:
        """How far to read ahead: a reader's share of half a pool of each lane."""
        pools = self._lanes * self.options.pool * float(self._sequences.mean())
        return 1 + int(pools / (2 * self.options.batch_size * stride))

    def _load(self, piece: "_Piece") -> "_Pool":
        pool = self._files.read_pool(piece.groups, self.options, self._table)
        if not self.options.shuffle:
            return pool
        return pool._replace(order=_permutation(len(pool.order), self.options.seed, piece.pool))


class Loader:
    """A `TokenDataset` read by worker processes, with a state that is the consumer's."""

    def __init__(self, dataset: TokenDataset, workers: int = 0) -> None:
        """Prepares to read `dataset` with so many processes; 0 reads in this one."""
        self.dataset = dataset
        self._workers = workers

    def state_dict(self) -> dict[str, Any]:
        """`TokenDataset.state_dict`; batches that workers hold ready don't count."""
        return self.dataset.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """`TokenDataset.load_state_dict`"""
        self.dataset.load_state_dict(state)

    def __iter__(self) -> Iterator[Batch]:
        return self.dataset._counted(self._received)

    def _received(self, start: int) -> Iterator[Batch]:
        loader = DataLoader(
            _Relay(self.dataset, start),
            batch_size=None,
            num_workers=self._workers,
            # Else each iteration would draw a number from the generator that dropout uses.
            generator=torch.Generator(),
        )
        for item in loader:
            if isinstance(item, CorpusmillError):
                raise item
            yield item


class _Relay(IterableDataset[Batch | CorpusmillError]):
    """A dataset in a worker, whose errors arrive as they are, not wrapped in a traceback's text."""

    def __init__(self, dataset: TokenDataset, start: int) -> None:
        self._dataset, self._start = dataset, start

    def __iter__(self) -> Iterator[Batch | CorpusmillError]:
        try:
            yield from self._dataset._batches(self._start)
        except CorpusmillError as error:
            yield error


class _PoolKey(NamedTuple):
    epoch: int
    lane: int
    number: int


class _Piece(NamedTuple):
    """Sequences `first` to `last` (exclusive) of a pool, which is made of row groups `groups`."""

    pool: _PoolKey
    groups: Array
    first: int
    last: int


class _Lane:
    """The order of one lane in one epoch."""

    def __init__(self, groups: Sequence[int], sequences: Array, options: DataOptions) -> None:
        """Cuts the row groups `groups`, which have so many sequences each, into pools."""
        self._groups = np.array(groups, np.int64)
        self._pool = options.pool
        self._batch_size = options.batch_size
        ends = np.cumsum(sequences[self._groups]).tolist()
        # Where each pool begins in the lane, and where the last one ends.
        self._starts = [0, *ends[options.pool - 1 : -1 : options.pool], *ends[-1:]]
        self.batches = -(-self._starts[-1] // options.batch_size)

    def pieces(self, epoch: int, lane: int, batch: int) -> list[_Piece]:
        first = batch * self._batch_size
        last = min(first + self._batch_size, self._starts[-1])
        pool = bisect.bisect_right(self._starts, first) - 1
        found = []
        while first < last:
            start, end = self._starts[pool : pool + 2]
            groups = self._groups[pool * self._pool : (pool + 1) * self._pool]
            key = _PoolKey(epoch, lane, pool)
            found.append(_Piece(key, groups, first - start, min(last, end) - start))
            first, pool = end, pool + 1
        return found


class _Epoch:
    """The order of one epoch."""

    def __init__(
        self,
        sequences: Array,
        options: DataOptions,
        lanes: int,
        number: int = 0,
        first_batch: int = 0,
    ) -> None:
        """Plans an epoch over row groups with so many sequences each."""
        self.number = number
        self._planned_from = sequences, options, lanes
        order = np.arange(len(sequences))
        if options.shuffle:
            order = _permutation(len(sequences), options.seed, (number,))
        dealt = _deal(order.tolist(), sequences.tolist(), lanes)
        self._lanes = [_Lane(groups, sequences, options) for groups in dealt]
        # Rounds in which the same lanes take part form a stage: its lanes, first round and batch.
        self._stages: list[tuple[list[int], int, int]] = []
        first_round = 0
        for end in sorted({lane.batches for lane in self._lanes if lane.batches}):
            taking_part = [i for i, lane in enumerate(self._lanes) if lane.batches >= end]
            self._stages.append((taking_part, first_round, first_batch))
            first_batch += (end - first_round) * len(taking_part)
            first_round = end
        self.end = first_batch

    def next(self) -> "_Epoch":
        return _Epoch(*self._planned_from, self.number + 1, self.end)

    def pieces(self, batch: int) -> list[_Piece]:
        """What a batch is made of, which is counted over all epochs."""
        stage = bisect.bisect_right(self._stages, batch, key=lambda stage: stage[2]) - 1
        lanes, first_round, first_batch = self._stages[stage]
        rounds, turn = divmod(batch - first_batch, len(lanes))
        lane = lanes[turn]
        return self._lanes[lane].pieces(self.number, lane, first_round + rounds)


def _permutation(count: int, seed: int, key: Sequence[int]) -> Array:
    """Numbers 0 to `count` - 1 in an order that no version of numpy changes."""
    # The raw numbers of a bit generator are promised to stay as they are, shuffles are not.
    source = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=tuple(key)))
    return np.argsort(source.random_raw(count), kind="stable")


def _deal(order: Iterable[int], sequences: Sequence[int], lanes: int) -> list[list[int]]:
    """Gives each row group to the lane that has the fewest sequences so far."""
    dealt: list[list[int]] = [[] for _ in range(lanes)]
    loads = [(0, lane) for lane in range(lanes)]
    for group in order:
        load, lane = loads[0]
        dealt[lane].append(group)
        heapq.heapreplace(loads, (load + sequences[group], lane))
    return dealt


class _CompactTargets(NamedTuple):
    """What compact targets are computed from."""

    table: TargetTable

    @property
    def packing(self) -> Packing:
        return self.table.packing

    @property
    def seed(self) -> int:
        return self.table.options.seed


class _FullDistributions(NamedTuple):
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


_Table = _CompactTargets | _FullDistributions | None


class _SequenceTargets(NamedTuple):
    """Compact targets of sequences.

    Attributes:
      head_slots: slots for the tokens of a head.
      draw_slots: slots for drawn tokens.
      head: uint32 of shape [sequences, length], each position's head, `NO_HEAD` for filling.
      starts: where the drawn tokens of each sequence begin, of shape [sequences].
      source: the row group of each sequence, as index into `sources`, of shape [sequences].
      sources: of each row group, the slots of its heads, and its drawn tokens.
    """

    head_slots: int
    draw_slots: int
    head: Array
    starts: Array
    source: Array
    sources: list[tuple[Slots, Array]]

    def fill(self, rows: slice, targets: Targets) -> None:
        """Takes the targets of a row group for those of some sequences."""
        _fill_flat(self.head[rows], targets.head, NO_HEAD)
        drawn = offsets_of(targets.heads.draws[targets.head])
        self.starts[rows] = drawn[: len(targets) : self.head.shape[1]]
        self.source[rows] = len(self.sources)
        self.sources.append((_slots_of(targets.heads, self.head_slots), targets.drawn))

    def slots(self, rows: Array) -> tuple[Tensor, Tensor]:
        """Tokens and weights of some sequences, as in a `Batch`."""
        shape = len(rows), self.head.shape[1], self.head_slots + self.draw_slots
        tokens, weights = _empty(shape, np.int32), _empty(shape, np.float32)
        tokens.fill(0)
        weights.fill(0)
        for source in np.unique(self.source[rows]).tolist():
            places = np.flatnonzero(self.source[rows] == source)
            some = rows[places]
            slots, drawn = self.sources[source]
            slots.fill(self.head[some], drawn, self.starts[some], places, tokens, weights)
        return torch.from_numpy(tokens), torch.from_numpy(weights)


_held_slots: deque[tuple[Heads, Slots]] = deque(maxlen=_HELD_SLOTS)


def _slots_of(heads: Heads, head_slots: int) -> Slots:
    """Those of heads that row groups have in common are made once."""
    for held, slots in _held_slots:
        if held is heads:
            return slots
    _held_slots.append((heads, Slots(heads, head_slots)))
    return _held_slots[-1][1]


class _RowGroup(NamedTuple):
    """What is read of a row group.

    Attributes:
      tokens: of all its documents, one after the other.
      row_ends: the position behind each row.
      byte_lengths: of the documents that end with the row, 0 for other rows.
      targets: of each token.
      contexts: the row of each token's context in a table of full distributions.
      row_lengths: tokens of each row, where rows are filled up to the same length.
    """

    tokens: Array
    row_ends: Array
    byte_lengths: Array
    targets: Targets | None = None
    contexts: Array | None = None
    row_lengths: Array | None = None

    def places(self) -> Array:
        """The place of each token in its row."""
        lengths = np.diff(self.row_ends, prepend=0)
        return np.arange(len(self.tokens)) - np.repeat(self.row_ends - lengths, lengths)

    def filled_up(self, length: int) -> "_RowGroup":
        """With rows of so many tokens each."""
        lengths = np.diff(self.row_ends, prepend=0)
        tokens = np.zeros((len(lengths), length), self.tokens.dtype)
        tokens[np.arange(length) < lengths[:, None]] = self.tokens
        row_ends = length * np.arange(1, len(lengths) + 1)
        return _RowGroup(tokens.reshape(-1), row_ends, self.byte_lengths, row_lengths=lengths)


class _Pool(NamedTuple):
    """The sequences of a few row groups, in the types of the files.

    Attributes:
      order: in which they are taken, of shape [sequences].
      next_tokens: [sequences, length], filled up with zeros.
      before: the token before each sequence, of shape [sequences].
      predictions: how many `next_tokens` are no filling, of shape [sequences].
      known: how many of the first ones another sequence predicts, of shape [sequences].
      bytes: [sequences].
      targets: compact ones.
      contexts: rows of full distributions, of shape [sequences, length], and where they are.
      places: of a codec's ids in their rows, of shape [sequences, length].
      start: the `start_id`.
    """

    order: Array
    next_tokens: Array
    before: Array
    predictions: Array
    known: Array
    bytes: Array
    targets: _SequenceTargets | None
    contexts: tuple[Array, FullTable] | None
    places: Array | None
    start: int

    def batch(self, first: int, last: int) -> Batch:
        """The sequences from place `first` to `last` (exclusive) of the order."""
        rows = self.order[first:last]
        next_tokens = self.next_tokens.take(rows, axis=0).astype(np.int64)
        tokens = np.empty_like(next_tokens)
        tokens[:, 0] = self.before[rows]
        tokens[:, 1:] = next_tokens[:, :-1]
        places = None
        if self.places is not None:
            places = self.places.take(rows, axis=0).astype(np.int64)
            tokens[places == 0] = self.start
        length, predictions = next_tokens.shape[1], self.predictions[rows]
        if predictions.min() < length:
            next_tokens[np.arange(length) >= predictions[:, None]] = IGNORED
        if (known := self.known[rows]).any():
            next_tokens[np.arange(length) < known[:, None]] = IGNORED
        target_tokens = target_weights = target_offsets = None
        if self.contexts is not None:
            contexts, table = self.contexts
            found = full_distributions(
                table, contexts[rows].reshape(-1), self.next_tokens[rows].reshape(-1)
            )
            target_offsets = torch.from_numpy(found[0])
            target_tokens = torch.from_numpy(found[1].astype(np.int32))
            target_weights = torch.from_numpy(found[2])
        if self.targets is not None:
            target_tokens, target_weights = self.targets.slots(rows)
        return Batch(
            torch.from_numpy(tokens),
            torch.from_numpy(next_tokens),
            target_tokens,
            target_weights,
            torch.from_numpy(self.bytes[rows]),
            target_offsets,
            None if places is None else torch.from_numpy(places),
        )


def _join(batches: Sequence[Batch]) -> Batch:
    """One batch of all sequences."""
    if len(batches) == 1:
        return batches[0]
    columns = zip(*batches, strict=True)
    joined = Batch._make(None if column[0] is None else torch.cat(column) for column in columns)
    if joined.target_offsets is None:
        return joined
    sizes = [batch.target_offsets.diff() for batch in batches if batch.target_offsets is not None]
    ends = torch.cat(sizes).cumsum(0)
    return joined._replace(target_offsets=torch.cat([ends.new_zeros(1), ends]))


def _fill(pool: _Pool, first: int, group: _RowGroup, step: int) -> None:
    """Cuts a row group into sequences: those of the pool from `first` on."""
    length = pool.next_tokens.shape[1]
    sequences = int(_sequences(np.array(len(group.tokens)), length, step))
    last = (sequences - 1) * step
    rows = slice(first, first + sequences)
    _fill_windows(pool.next_tokens[rows], group.tokens, step)
    pool.before[first] = pool.start
    pool.before[first + 1 : rows.stop] = group.tokens[step - 1 : last : step]
    pool.predictions[rows] = length
    pool.predictions[rows.stop - 1] -= last + length - len(group.tokens)
    pool.known[rows] = length - step
    pool.known[first] = 0
    if group.row_lengths is not None:
        pool.predictions[rows] = group.row_lengths
    # The sums are exact: floats of 64 bits, and whole numbers far below 2^53. The first documents
    # may be empty.
    ends_in = _sequences(np.maximum(group.row_ends, 1), length, step) - 1
    pool.bytes[rows] = np.bincount(ends_in, group.byte_lengths, sequences)
    if pool.targets is not None and group.targets is not None:
        pool.targets.fill(rows, group.targets)
    if pool.contexts is not None and group.contexts is not None:
        _fill_flat(pool.contexts[0][rows], group.contexts, -1)
    if pool.places is not None:
        _fill_windows(pool.places[rows], group.places(), step)


def _empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """An array in Arrow's memory, which keeps what is freed: numpy's would fault at every page."""
    buffer = pa.allocate_buffer(math.prod(shape) * np.dtype(dtype).itemsize)
    return np.frombuffer(buffer, dtype).reshape(shape)


def _sequences(tokens: Array, length: int, step: int) -> Array:
    """How many sequences so many tokens give, of which one begins after each `step`."""
    return 1 - (-np.maximum(tokens - length, 0) // step)


def _fill_windows(array: Array, values: Array, step: int) -> None:
    """Makes row i the values from i * step on, filled up with zeros."""
    sequences, length = array.shape
    if step == length:
        _fill_flat(array, values, 0)
        return
    padded = np.zeros((sequences - 1) * step + length, values.dtype)
    padded[: len(values)] = values
    array[:] = np.lib.stride_tricks.sliding_window_view(padded, length)[::step]


def _fill_flat(array: Array, values: Array, filling: Any) -> None:
    flat = array.reshape(-1)
    flat[: len(values)] = values
    flat[len(values) :] = filling


@dataclass(frozen=True)
class _Files:
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
    def of(cls, folder: str, manifest: Manifest, targets: TargetsReader | None) -> "_Files":
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
        number = np.arange(len(file)) - np.repeat(np.cumsum(groups) - groups, groups)
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
        return _sequences(self.tokens, options.length, options.step)

    def read_pool(self, groups: Array, options: DataOptions, table: _Table) -> _Pool:
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
            _fill(pool, first, found, options.step)
        return pool

    def _empty_pool(self, sequences: int, length: int, table: _Table) -> _Pool:
        dtype = token_dtype(self.vocabulary_size)
        slots = None
        if self.targets is not None:
            properties = self.targets.manifest.properties
            slots = properties["head"], properties["tail_draws"]
        elif isinstance(table, _CompactTargets):
            slots = table.table.options.head, table.table.options.tail_draws
        contexts = None
        if isinstance(table, _FullDistributions):
            contexts = _empty((sequences, length), np.int64), table.table
        return _Pool(
            order=np.arange(sequences),
            next_tokens=_empty((sequences, length), dtype),
            before=np.empty(sequences, np.int64),
            predictions=np.empty(sequences, np.int64),
            known=np.empty(sequences, np.int64),
            bytes=np.empty(sequences, np.int64),
            targets=None
            if slots is None
            else _SequenceTargets(
                *slots,
                _empty((sequences, length), np.uint32),
                np.empty(sequences, np.int64),
                np.empty(sequences, np.int64),
                [],
            ),
            contexts=contexts,
            places=_empty((sequences, length), np.int32) if self.is_of_codec else None,
            start=self.start,
        )

    def _read_row_group(self, group: int, table: _Table) -> _RowGroup:
        name, number = self.names[self.file[group]], int(self.number[group])
        url = storage.join(self.folder, name)
        columns = ["tokens", "byte_length", *(["doc_id"] if table else [])]
        rows = _read_columns(url, number, columns)
        found = _RowGroup(
            self._checked_ids(url, rows, "tokens", int(self.tokens[group])),
            parquet.list_offsets(rows, "tokens")[1:],
            parquet.column_values(rows, "byte_length"),
        )
        if self.targets is not None:
            return found._replace(targets=self._read_targets(group, found.row_ends))
        if table is None:
            return found
        place = read_place(url, number, table.packing)
        positions = positions_of(table.packing, rows, place, table.seed).positions
        if isinstance(table, _CompactTargets):
            return found._replace(targets=make_targets(table.table, positions))
        return found._replace(contexts=table.rows_of(positions))

    def _read_targets(self, group: int, row_ends: Array) -> Targets:
        """The targets of a row group's tokens."""
        assert self.targets is not None
        file = self.file[group]
        return self.targets.read(
            self.names[file], int(self.number[group]), self.sha256[file], row_ends
        )[1]

    def _checked_ids(self, url: str, table: pa.Table, name: str, count: int) -> Array:
        ids = _column(url, table, name, count)
        if ids.max() >= self.vocabulary_size:
            raise DataError(
                f"{url} is damaged: {name} has id {ids.max()}, the vocabulary has"
                f" {self.vocabulary_size} entries"
            )
        return ids


def _read_tokens_manifest(folder: str, length: int) -> Manifest:
    """The manifest of a dataset of tokens.

    Raises:
      DatasetError: it is of another kind.
      UsageError: it has trimmed examples that aren't `length` long.
    """
    manifest = read_manifest(folder)
    if manifest.kind not in KINDS:
        raise DatasetError(
            f"{folder} is a {manifest.kind} dataset; {', '.join(KINDS)} are accepted"
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


def _read_counts_manifest(folder: str, tokens: Manifest) -> Manifest:
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
    try:
        tokens, rows = row_group_tokens(url), row_group_rows(url)
        # The footer counts empty documents, which only codecs have, as if they had a token.
        if sum(tokens) > record.tokens:
            tokens = list(map(len, read_row_groups(url, 0, len(rows))))
    # The file has no such column.
    except IndexError as error:
        raise DataError(f"{url} has no column tokens") from error
    if sum(tokens) != record.tokens:
        raise DataError(f"{url} has {sum(tokens)} tokens, its manifest says {record.tokens}")
    return np.array(tokens, np.int64), np.array(rows, np.int64)


def _read_columns(url: str, group: int, columns: list[str]) -> pa.Table:
    with parquet.open_reader(url) as file:
        return file.read_row_group(group, columns=columns, use_threads=False)


def _column(url: str, table: pa.Table, name: str, count: int) -> Array:
    """A column's values, of which there must be `count`."""
    values: Array = parquet.column_values(table, name)
    if len(values) != count:
        raise DataError(f"{url} has {len(values)} {name} in a row group, not {count}")
    return values


class _Pools:
    """Loads pools in a thread of its own, and lets go of those that are used up."""

    def __init__(self, load: Callable[[_Piece], _Pool]) -> None:
        """Prepares to load the pools of pieces with `load`."""
        self._load = load
        self._held: dict[_PoolKey, Future[_Pool]] = {}
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> "_Pools":
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def request(self, pieces: Iterable[_Piece]) -> None:
        """Has the pools of pieces loaded; never asked for again once they are used up."""
        for piece in pieces:
            if piece.pool not in self._held:
                self._held[piece.pool] = self._thread.submit(self._load, piece)

    def get(self, piece: _Piece) -> _Pool:
        """The pool of a piece that was requested; pools before it are used up."""
        now = piece.pool
        for key in list(self._held):
            if key.epoch < now.epoch or (key[:2] == now[:2] and key.number < now.number):
                del self._held[key]
        return self._held[now].result()


def _ahead(items: Iterable[Item], count: int, announce: Callable[[Item], None]) -> Iterator[Item]:
    """Passes items on, having announced the `count` items that come next."""
    waiting: deque[Item] = deque()
    for item in items:
        announce(item)
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting
