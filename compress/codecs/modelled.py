"""What the codecs have in common that run a byte model while they encode and decode."""

import abc
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_models import ByteModel, NgramModel, StaticModel, model_files
from corpusmill.compress.byte_models.contexts import Contexts
from corpusmill.compress.byte_strings import ByteStrings, Ids, Offsets
from corpusmill.compress.codecs.codec import Codec
from corpusmill.compress.coders.bits import TOKEN_BITS
from corpusmill.compress.coders.lanes import with_fewer_lanes
from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.ragged import offsets_of

# For each byte of a text, how many bits of its document's ids tell it.
Known = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ModelCodec(Codec):
    """A codec that asks a byte model for the frequencies of every byte to come.

    Attributes:
      model: what is asked.
      token_bits: of an id, 8 or 16.

    Raises:
      UsageError: ids cannot have so many bits.
    """

    model: ByteModel
    token_bits: int = 16

    def __post_init__(self) -> None:
        if self.token_bits not in TOKEN_BITS:
            raise UsageError(
                f"ids of {self.token_bits} bits are not possible; accepted are 8 and 16"
            )

    @property
    def vocab_size(self) -> int:
        return 1 << self.token_bits

    @cached_property
    def content_hash(self) -> str:
        made_of = {"kind": self.kind, **self.options, "model": self.model.content_hash}
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()

    @property
    def files(self) -> dict[str, Callable[[str], None]]:
        return {**super().files, **model_files(self.model)}

    def encode_batch(self, documents: ByteStrings) -> tuple[Ids, Offsets]:
        encode = partial(self._encode, documents)
        return joined(with_fewer_lanes(self.model.lanes, encode), self.dtype)

    def decode_batch(self, ids: Ids, offsets: Offsets) -> ByteStrings:
        decode = partial(self._decode, ids, offsets, whole=True)
        texts, bounds, _ = with_fewer_lanes(self.model.lanes, decode)
        return ByteStrings(texts, bounds)

    def text_ends(self, ids: Ids, offsets: Offsets) -> Offsets:
        decode = partial(self._decode, ids, offsets, whole=False)
        _, bounds, known = with_fewer_lanes(self.model.lanes, decode)
        ends = np.empty(len(ids), np.int64)
        for document in range(len(offsets) - 1):
            own = slice(offsets[document] - offsets[0], offsets[document + 1] - offsets[0])
            bits = self._bits_of_whole_text(offsets[document + 1] - offsets[document])
            mine = known[bounds[document] : bounds[document + 1]]
            ends[own] = np.searchsorted(mine, bits, "right")
        return ends

    @abc.abstractmethod
    def _encode(self, documents: ByteStrings, most_lanes: int) -> list[Ids]:
        """The ids of each document, so many documents side by side."""

    @abc.abstractmethod
    def _decode(
        self, ids: Ids, offsets: Offsets, most_lanes: int, *, whole: bool
    ) -> tuple[npt.NDArray[np.uint8], Offsets, Known]:
        """The texts of ids, where each begins and ends, and what tells each byte.

        Args:
          ids: of documents.
          offsets: which ids each has.
          most_lanes: so many are decoded side by side.
          whole: whether a document whose last ids are missing is an error. If not, its text goes
            as far as its ids tell it; and only then the last value isn't empty.
        """

    def _contexts(self) -> Contexts | None:
        """Of a model of counts, which knows all in advance; None of one that has to read."""
        if isinstance(self.model, StaticModel | NgramModel):
            return self.model.contexts()
        return None

    def _bits_of_whole_text(self, ids: int) -> Known:
        """For each of a document's ids: how many bits up to there count as known."""
        return np.arange(1, ids + 1) * self.token_bits


def joined(
    parts: Sequence[npt.NDArray[Any]], dtype: npt.DTypeLike
) -> tuple[npt.NDArray[Any], Offsets]:
    """The values of documents one after the other, and where those of each begin and end."""
    bounds = offsets_of(np.array([len(part) for part in parts], np.int64))
    return np.concatenate([np.empty(0, dtype), *parts]), bounds


def joined_texts(
    documents: Sequence[tuple[npt.NDArray[np.uint8], Known]],
) -> tuple[npt.NDArray[np.uint8], Offsets, Known]:
    """What `ModelCodec._decode` returns, of the text of each document and what tells its bytes."""
    texts, bounds = joined([text for text, _ in documents], np.uint8)
    known, _ = joined([bits for _, bits in documents], np.int64)
    return texts, bounds, known
