"""What all codecs have in common."""

import abc
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from corpusmill.compress.byte_strings import ByteStrings, Ids, Offsets
from corpusmill.corpus import storage
from corpusmill.corpus.tokenizers.backends import UnsupportedError
from corpusmill.corpus.tokenizers.tokenizer import MARKER
from corpusmill.corpus.tokens import id_dtype


class Codec(abc.ABC):
    """Turns any byte strings into ids and back. The empty string has no ids, all others have some.

    Attributes:
      kind: `codebook`, `equal-info`, `ac`, ...
    """

    kind: ClassVar[str]

    @property
    def options(self) -> Mapping[str, Any]:
        """What else decides the ids, as JSON."""
        return {}

    @property
    def is_lossless(self) -> bool:
        """Whether every document comes back; only one baseline loses text."""
        return True

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return 256

    @property
    def window_ids(self) -> int | None:
        """After so many ids, again and again, a window ends where an id does; None without."""
        return None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of ids: uint16 where they fit, else uint32."""
        return id_dtype(self.vocab_size)

    @property
    def content_hash(self) -> str:
        """SHA-256 of what decides which bytes the ids stand for."""
        return hashlib.sha256(self.kind.encode()).hexdigest()

    @property
    def description(self) -> dict[str, Any]:
        """What a manifest says of the codec, where others say it of a tokenizer."""
        lossy = {} if self.is_lossless else {"lossy": True}
        return {
            "kind": self.kind,
            "content_hash": self.content_hash,
            "vocabulary_size": self.vocab_size,
            "end_of_document": None,
            "window_ids": self.window_ids,
            **lossy,
            **self.options,
        }

    @property
    def marker(self) -> dict[str, Any]:
        """What the file that marks a codec's folder says."""
        return {"kind": self.kind, **self.options}

    @property
    def files(self) -> dict[str, Callable[[str], None]]:
        """File name -> what writes that file to a path or URL; `open_codec` reads them."""
        marker = json.dumps(self.marker, indent=1).encode() + b"\n"
        return {MARKER: partial(storage.write_bytes, data=marker)}

    @abc.abstractmethod
    def encode_batch(self, documents: ByteStrings) -> tuple[Ids, Offsets]:
        """The ids of documents.

        Returns:
          The ids of all documents one after the other, and int64 [documents + 1]: document i has
          the ids from offsets[i] to offsets[i + 1].
        """

    def definition(self) -> dict[str, Any]:
        """The contents of a `tokenizer.json` that gives the same ids.

        Raises:
          UnsupportedError: there is none.
        """
        raise UnsupportedError(
            f"an id of the codec {self.kind} stands for other bytes in other places, which no"
            " tokenizer.json can say"
        )

    @property
    def backend(self) -> str | None:
        """The library that encodes, where there is a choice that doesn't change the ids."""
        return None

    def check(  # noqa: B027  (most have one way only)
        self, doc_ids: Sequence[str], texts: Sequence[str]
    ) -> None:
        """See `corpusmill.corpus.tokens.TextEncoder`."""

    @abc.abstractmethod
    def decode_batch(self, ids: Ids, offsets: Offsets) -> ByteStrings:
        """The documents that have these ids; the inverse of `encode_batch`.

        Raises:
          DataError: no document has them.
        """

    @abc.abstractmethod
    def text_ends(self, ids: Ids, offsets: Offsets) -> Offsets:
        """How much of its document is known from each id and those before it.

        Args:
          ids: of documents, each of which may lack its last ids.
          offsets: which ids each document has.

        Returns:
          int64 [ids]: bytes from the document's beginning, never falling within a document.

        Raises:
          DataError: no document begins with these ids.
        """


def sums_by_document(values: Offsets, offsets: Offsets) -> Offsets:
    """Sums of int64 values from the first one of their document on."""
    sums: Offsets = np.cumsum(values)
    before = np.concatenate([np.zeros(1, np.int64), sums])[np.asarray(offsets)[:-1]]
    within: Offsets = sums - np.repeat(before, np.diff(offsets))
    return within
