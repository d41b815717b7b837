"""Documents that a byte model reads side by side, one byte of each at a time.

So a model that is slow with one text and fast with many is asked about many at once.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_models.byte_model import ByteModel
from corpusmill.compress.byte_strings import Bytes, Offsets
from corpusmill.compress.tally import count
from corpusmill.corpus.ragged import offsets_of

Result = TypeVar("Result")


class Lanes:
    """As many documents as are read at once; where one ends, the next one follows in its lane.

    Attributes:
      number: how many lanes there are.
      documents: int64 [lanes], which document is in each lane.
      active: int64, the lanes that have one.
    """

    def __init__(self, model: ByteModel, documents: npt.NDArray[np.int64], most: int) -> None:
        """Begins the first documents.

        Args:
          model: what reads.
          documents: numbers of all that will be read.
          most: lanes that there may be.
        """
        self.number = min(most, len(documents))
        self._waiting = documents[self.number :]
        self.documents = documents[: self.number].copy()
        self.active = np.arange(self.number)
        self._state = model.start(self.number) if self.number else None

    def sums(self) -> npt.NDArray[np.uint32]:
        """Of the byte to come in each lane: the frequencies of the bytes below each, and all.

        uint32 of shape [lanes, 257].
        """
        assert self._state is not None
        sums = np.zeros((self.number, 257), np.uint32)
        np.cumsum(self._state.frequencies(), axis=1, out=sums[:, 1:])
        return sums

    def read(self, lanes: Offsets, following: Bytes) -> None:
        """Reads one more byte in these lanes."""
        count("lane_steps", self.number)
        count("bytes_read", len(lanes))
        if len(lanes):
            assert self._state is not None
            self._state.read(lanes, following)

    def restart(self, lanes: Offsets) -> None:
        """Starts the model afresh in these lanes."""
        count("model_starts", len(lanes))
        if len(lanes):
            assert self._state is not None
            self._state.restart(lanes)

    def end_documents(self, lanes: Offsets) -> Offsets:
        """Puts the next documents into these lanes; returns the lanes that have got one."""
        refilled = lanes[: len(self._waiting)]
        self.documents[refilled] = self._waiting[: len(refilled)]
        self._waiting = self._waiting[len(refilled) :]
        self.restart(refilled)
        if len(refilled) < len(lanes):
            self.active = np.setdiff1d(self.active, lanes[len(refilled) :])
        return refilled


def with_fewer_lanes(most: int, work: Callable[[int], Result]) -> Result:
    """What `work` returns when it may use so many lanes, or half of them and so on.

    Raises:
      MemoryError: there is too little memory even for one lane.
    """
    while True:
        try:
            return work(most)
        except MemoryError:
            if most == 1:
                raise
        # Here, where the error no longer holds on to what was in memory.
        most //= 2


def by_document(
    documents: Sequence[Offsets], values: Sequence[npt.NDArray[Any]], number: int
) -> tuple[npt.NDArray[Any], Offsets]:
    """Brings together what belongs to each document, in the order in which it came.

    Args:
      documents: whose values came, step by step.
      values: the values, as long.
      number: of documents.

    Returns:
      All values, and int64 [number + 1]: where those of each document are.
    """
    owners = np.concatenate([np.empty(0, np.int64), *documents])
    offsets = offsets_of(np.bincount(owners, minlength=number))
    return np.concatenate(values)[np.argsort(owners, kind="stable")], offsets
