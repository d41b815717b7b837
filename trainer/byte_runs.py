"""Runs of bytes from texts that are held in memory, as a byte model reads them.

A run is the start id and then bytes of one document, without what stands before them. A batch of
runs follows from the seed and the batch's number alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from corpusmill.compress.byte_models.transformer_state import START
from corpusmill.compress.byte_models.transformer_weights import LARGEST_LENGTH
from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.trainer.batches import IGNORED, Batch
from corpusmill.trainer.options import STARTS


@dataclass(frozen=True)
class ByteRunOptions:
    """Which runs there are.

    Attributes:
      starts: `anywhere`: every byte is as likely to be a run's first, as windows start anywhere;
        `documents`: runs start where a `TransformerModel` of this length starts to read whole
        documents, at their beginning and at multiples of half the length.
      length: bytes of a run, or fewer where the document ends; even, at most `LARGEST_LENGTH`.
      batch_size: runs in a batch.
      seed: of the choice.

    Raises:
      UsageError: there are no such runs.
    """

    starts: str
    length: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.starts not in STARTS:
            raise UsageError(f"--starts {self.starts!r}: there are {', '.join(STARTS)}")
        if self.length % 2 or not 2 <= self.length <= LARGEST_LENGTH:
            raise UsageError(
                f"--length {self.length} is not an even number from 2 to {LARGEST_LENGTH:,}"
            )


class ByteRuns:
    """Batches of runs of a text, for one of several processes."""

    def __init__(
        self,
        text: ByteStrings,
        options: ByteRunOptions,
        rank: int = 0,
        ranks: int = 1,
        batches: int | None = None,
    ) -> None:
        """Prepares to take runs from a text.

        Args:
          text: documents.
          options: which runs.
          rank: which share this is: the batches rank, rank + ranks, ...
          ranks: how many shares there are.
          batches: of all shares together; None for no end.

        Raises:
          DataError: the text is empty.
        """
        if not len(text.data):
            raise DataError("there is no text to take runs of bytes from: all documents are empty")
        self._text, self._options, self._batches = text, options, batches
        self._rank, self._ranks = rank, ranks
        self._start = self._next = 0

    def state_dict(self) -> dict[str, Any]:
        """The position behind the last batch delivered, as JSON; good for any number of ranks."""
        return {"batch": self._next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Makes the next iteration go on where `state` was taken."""
        self._start = self._next = state["batch"]

    def __iter__(self) -> Iterator[Batch]:
        """Goes on from the position; where the batches have an end, from the beginning.

        The iteration after `load_state_dict` goes on from there all the same.
        """
        if self._batches is not None:
            self._start, self._next = 0, self._start
        while self._batches is None or self._next + self._rank < self._batches:
            batch = self._batch(self._next + self._rank)
            self._next += self._ranks
            if self._batches is not None:
                self._next = min(self._next, self._batches)
            yield batch
        # The ranks that had no batch in the last round have come to the end, too.
        self._next = max(self._next, self._batches)

    def _batch(self, number: int) -> Batch:
        data, offsets = self._text.data, self._text.offsets
        first = offsets[0]
        # The raw numbers of a bit generator are promised to stay as they are.
        source = np.random.PCG64(np.random.SeedSequence(self._options.seed, spawn_key=(number,)))
        drawn = source.random_raw(self._options.batch_size) % np.uint64(offsets[-1] - first)
        places = drawn.astype(np.int64) + first
        documents = np.searchsorted(offsets, places, side="right") - 1
        if self._options.starts == "documents":
            places -= (places - offsets[documents]) % (self._options.length // 2)
        at = places[:, None] + np.arange(self._options.length)
        beyond = at >= offsets[documents + 1][:, None]
        following = data[np.minimum(at, len(data) - 1)].astype(np.int64)
        tokens = np.empty_like(following)
        tokens[:, 0] = START
        tokens[:, 1:] = following[:, :-1]
        following[beyond] = IGNORED
        return Batch(
            torch.from_numpy(tokens),
            torch.from_numpy(following),
            None,
            None,
            torch.from_numpy((~beyond).sum(axis=1)),
        )
