"""The order of batches, which depends on neither ranks nor workers.

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
import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.corpus.errors import UsageError

DEFAULT_LANES = 8
# Of what a batch is made of: what is more is a slip, and doesn't fit in memory.
_MOST = 1 << 24

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class DataOptions:
    """What decides the order of the batches, besides the dataset.

    Attributes:
      batch_size: sequences in a batch; the last one of a lane may have fewer.
      length: tokens of a sequence.
      seed: of the shuffling.
      shuffle: False gives the order of the files, in one lane.
      lanes: streams that batches are taken from in turn, by default 8; in a dataset of fewer row
        groups, as many as these. Each rank holds about 1.5 pools a lane in memory.
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
        return min(row_groups, self.lanes or DEFAULT_LANES) if self.shuffle else 1


def times_read(lanes: int, readers: int) -> int:
    """How often a row group is read where so many readers (ranks x workers) share the batches."""
    return readers // math.gcd(lanes, readers)


class PoolKey(NamedTuple):
    """Which pool of which lane in which epoch."""

    epoch: int
    lane: int
    number: int


class Piece(NamedTuple):
    """Sequences `first` to `last` (exclusive) of a pool, which is made of row groups `groups`."""

    pool: PoolKey
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

    def pieces(self, epoch: int, lane: int, batch: int) -> list[Piece]:
        first = batch * self._batch_size
        last = min(first + self._batch_size, self._starts[-1])
        pool = bisect.bisect_right(self._starts, first) - 1
        found = []
        while first < last:
            start, end = self._starts[pool : pool + 2]
            groups = self._groups[pool * self._pool : (pool + 1) * self._pool]
            key = PoolKey(epoch, lane, pool)
            found.append(Piece(key, groups, first - start, min(last, end) - start))
            first, pool = end, pool + 1
        return found


class Epoch:
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
            order = permutation(len(sequences), options.seed, (number,))
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

    def next(self) -> "Epoch":
        return Epoch(*self._planned_from, self.number + 1, self.end)

    def pieces(self, batch: int) -> list[Piece]:
        """What a batch is made of, which is counted over all epochs."""
        stage = bisect.bisect_right(self._stages, batch, key=lambda stage: stage[2]) - 1
        lanes, first_round, first_batch = self._stages[stage]
        rounds, turn = divmod(batch - first_batch, len(lanes))
        lane = lanes[turn]
        return self._lanes[lane].pieces(self.number, lane, first_round + rounds)


def permutation(count: int, seed: int, key: Sequence[int]) -> Array:
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
