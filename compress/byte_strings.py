"""Many byte strings in two arrays: documents, the prefixes of windows, decoded text."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.corpus.errors import DataError
from corpusmill.corpus.ragged import offsets_of
from corpusmill.corpus.tokenizers.tokenizer import text_buffers

Bytes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.unsignedinteger[Any]]
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
    def of(cls, strings: Iterable[bytes | bytearray | memoryview | str]) -> "ByteStrings":
        """These byte strings; of texts their UTF-8.

        Raises:
          DataError: something else is among them, or a text that has no UTF-8.
        """
        found = [each if isinstance(each, bytes) else _bytes_of(each) for each in strings]
        lengths = np.array([len(each) for each in found], np.int64)
        return cls(np.frombuffer(b"".join(found), np.uint8), offsets_of(lengths))

    @classmethod
    def of_array(cls, texts: pa.LargeStringArray) -> "ByteStrings":
        """The UTF-8 of texts none of which is null, in the array's own memory."""
        offsets, data = text_buffers(texts)
        return cls(np.frombuffer(data, np.uint8), offsets)

    @classmethod
    def join(cls, batches: Sequence["ByteStrings"]) -> "ByteStrings":
        """The strings of several batches, one batch after the other."""
        data = [each.data[each.offsets[0] : each.offsets[-1]] for each in batches]
        lengths = np.concatenate([each.lengths() for each in batches])
        return cls(np.concatenate(data), offsets_of(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))

    def part(self, first: int, last: int) -> "ByteStrings":
        """The strings from `first` to `last` (exclusive), without copying them."""
        return ByteStrings(self.data, self.offsets[first : last + 1])

    def take(self, indices: Offsets) -> "ByteStrings":
        """The strings at these places, in this order."""
        lengths = self.lengths()[indices]
        offsets = offsets_of(lengths)
        moved = np.repeat(self.offsets[:-1][indices] - offsets[:-1], lengths)
        return ByteStrings(self.data[moved + np.arange(offsets[-1])], offsets)

    def lengths(self) -> Offsets:
        return np.diff(self.offsets)


def _bytes_of(value: Any) -> bytes:
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise DataError(f"a {type(value).__name__} is no text; bytes or a str are needed")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        surrogate = value[error.start]
        raise DataError(
            f"the text has half a surrogate pair, {surrogate!r}, at place {error.start}, which has"
            " no UTF-8"
        ) from error


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A contiguous view that can't be written to.

    Memory-mapped files and bytes come so; kernels are compiled for nothing else.
    """
    view = np.ascontiguousarray(array).view(np.ndarray)
    view.flags.writeable = False
    return view
