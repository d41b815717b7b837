"""The sequences of a few row groups, held together, from which batches are taken."""

import math
from collections import deque
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from corpusmill.corpus.ragged import offsets_of, places
from corpusmill.ngram_agg.full_tables import FullTable, full_distributions
from corpusmill.ngram_agg.heads import NO_HEAD, Heads, Targets
from corpusmill.ngram_agg.target_slots import Slots
from corpusmill.trainer.batches import IGNORED, Batch

# Of heads that were used last.
_HELD_SLOTS = 4

Array = npt.NDArray[Any]


class SequenceTargets(NamedTuple):
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
        tokens, weights = empty_array(shape, np.int32), empty_array(shape, np.float32)
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


class RowGroup(NamedTuple):
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
        return places(np.diff(self.row_ends, prepend=0))

    def filled_up(self, length: int) -> "RowGroup":
        """With rows of so many tokens each."""
        lengths = np.diff(self.row_ends, prepend=0)
        tokens = np.zeros((len(lengths), length), self.tokens.dtype)
        tokens[np.arange(length) < lengths[:, None]] = self.tokens
        row_ends = length * np.arange(1, len(lengths) + 1)
        return RowGroup(tokens.reshape(-1), row_ends, self.byte_lengths, row_lengths=lengths)


class Pool(NamedTuple):
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
    targets: SequenceTargets | None
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


def fill_pool(pool: Pool, first: int, group: RowGroup, step: int) -> None:
    """Cuts a row group into sequences: those of the pool from `first` on."""
    length = pool.next_tokens.shape[1]
    sequences = int(number_of_sequences(np.array(len(group.tokens)), length, step))
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
    ends_in = number_of_sequences(np.maximum(group.row_ends, 1), length, step) - 1
    pool.bytes[rows] = np.bincount(ends_in, group.byte_lengths, sequences)
    if pool.targets is not None and group.targets is not None:
        pool.targets.fill(rows, group.targets)
    if pool.contexts is not None and group.contexts is not None:
        _fill_flat(pool.contexts[0][rows], group.contexts, -1)
    if pool.places is not None:
        _fill_windows(pool.places[rows], group.places(), step)


def empty_array(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """An array in Arrow's memory, which keeps what is freed: numpy's would fault at every page."""
    buffer = pa.allocate_buffer(math.prod(shape) * np.dtype(dtype).itemsize)
    return np.frombuffer(buffer, dtype).reshape(shape)


def number_of_sequences(tokens: Array, length: int, step: int) -> Array:
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
