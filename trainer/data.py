"""Streams batches of token sequences, in the order that `corpusmill.trainer.order` says."""

import dataclasses
import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from corpusmill.corpus.datasets import describe_differences
from corpusmill.corpus.errors import CorpusmillError, UsageError
from corpusmill.ngram_agg.full_tables import load_full_table
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.ngram_agg.targets import load_target_table
from corpusmill.ngram_agg.targets_files import TargetsReader
from corpusmill.trainer.batches import Batch, join_batches
from corpusmill.trainer.order import DataOptions, Epoch, Piece, PoolKey, permutation
from corpusmill.trainer.row_groups import (
    CompactTargets,
    FullDistributions,
    RowGroups,
    Table,
    read_counts_manifest,
    read_targets_manifest,
    read_tokens_manifest,
)
from corpusmill.trainer.sequence_pools import Pool

# Rarer contexts say nothing that the observed token doesn't.
_MIN_COUNT = 2

Item = TypeVar("Item")


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
          tokens: path or URL of a dataset of one of the `ID_KINDS`.
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
            trimmed examples have another length, or `compact` needs longer contexts than `counts`
            has.
        """
        if not 0 <= rank < ranks:
            raise UsageError(f"rank is {rank} of {ranks}; 0 to {ranks - 1} are accepted")
        if targets is not None and counts is not None:
            raise UsageError(f"targets {targets} and counts {counts} are given; one is accepted")
        if epochs is not None and epochs < 1:
            raise UsageError(f"epochs is {epochs}; 1 or more, or None, is needed")
        self.manifest = read_tokens_manifest(tokens, options.length)
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
            None if counts is None else read_counts_manifest(counts, self.manifest)
        )
        if compact is not None:
            if counts is None or self.counts_manifest is None:
                raise UsageError("targets are computed from counts; give counts, too")
            compact.check_counts(counts, self.counts_manifest)
        self._counts, self._compact = counts, compact
        reader = None
        if targets is not None and self.targets_manifest is not None:
            reader = TargetsReader(targets, self.targets_manifest)
        self._files = RowGroups.of(tokens, self.manifest, reader)
        self._sequences = self._files.sequences(options)
        self.lanes = options.lanes_of(len(self._sequences))
        self.options = options
        self._rank, self._ranks, self._epochs = rank, ranks, epochs
        self._start = self._next = 0

    @functools.cached_property
    def _table(self) -> Table:
        """Opened where it is used: in the worker."""
        if self._counts is None or self.counts_manifest is None:
            return None
        if self._compact is not None:
            return CompactTargets(load_target_table(self._counts, self._compact))
        orders = range(1, self.counts_manifest.properties["max_order"] + 1)
        return FullDistributions(load_full_table(self._counts, orders, _MIN_COUNT), orders)

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
            "lanes": self.lanes,
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
        epoch = Epoch(self._sequences, self.options, self.lanes)
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
                parts = [pools.get(piece).batch(piece.first, piece.last) for piece in each]
                yield join_batches(parts)

    def _pieces(self, first: int, stride: int) -> Iterator[list[Piece]]:
        """What the batches first, first + stride, ... are made of."""
        epoch = Epoch(self._sequences, self.options, self.lanes)
        for batch in itertools.count(first, stride):
            while batch >= epoch.end:
                if epoch.number + 1 == self._epochs:
                    return
                epoch = epoch.next()
            yield epoch.pieces(batch)

    def _batches_ahead(self, stride: int) -> int:
        """How far to read ahead: a reader's share of half a pool of each lane."""
        pools = self.lanes * self.options.pool * float(self._sequences.mean())
        return 1 + int(pools / (2 * self.options.batch_size * stride))

    def _load(self, piece: Piece) -> Pool:
        pool = self._files.read_pool(piece.groups, self.options, self._table)
        if not self.options.shuffle:
            return pool
        return pool._replace(order=permutation(len(pool.order), self.options.seed, piece.pool))


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


class _Pools:
    """Loads pools in a thread of its own, and lets go of those that are used up."""

    def __init__(self, load: Callable[[Piece], Pool]) -> None:
        """Prepares to load the pools of pieces with `load`."""
        self._load = load
        self._held: dict[PoolKey, Future[Pool]] = {}
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> "_Pools":
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def request(self, pieces: Iterable[Piece]) -> None:
        """Has the pools of pieces loaded; never asked for again once they are used up."""
        for piece in pieces:
            if piece.pool not in self._held:
                self._held[piece.pool] = self._thread.submit(self._load, piece)

    def get(self, piece: Piece) -> Pool:
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
