"""Many byte strings in two arrays: documents, the prefixes of windows, decoded text."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ByteStrings:
    """Byte strings one after the other.

    >>> strings = ByteStrings.of([b"ab", b"", b"c"])
    >>> len(strings), strings[0], list(strings)
    (3, b'ab', [b'ab', b'', b'c'])

    Attributes:
      data: the bytes of all of them, uint8.
      offsets: int64 of shape [strings + 1], rising: string i is data[offsets[i]:offsets[i + 1]].
    """

    data: Bytes
    offsets: Offsets

    @classmethod
    def of(cls, strings: Iterable[bytes]) -> "ByteStrings":
        strings = list(strings)
        lengths = np.array([0, *map(len, strings)], np.int64)
        return cls(np.frombuffer(b"".join(strings), np.uint8), np.cumsum(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))

    def lengths(self) -> Offsets:
        return np.diff(self.offsets)


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A contiguous view that can't be written to.

    Memory-mapped files and bytes come so; kernels are compiled for nothing else.
    """
    view = np.ascontiguousarray(array).view(np.ndarray)
    view.flags.writeable = False
    return view
