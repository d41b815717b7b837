"""The codec of a subword tokenizer, to be compared with."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from corpusmill.compress.byte_strings import ByteStrings, Ids, Offsets
from corpusmill.compress.codecs.codec import Codec
from corpusmill.corpus import storage
from corpusmill.corpus.errors import DataError
from corpusmill.corpus.ragged import offsets_of
from corpusmill.corpus.tokenizers import Special, TextStream, Tokenizer, with_special
from corpusmill.corpus.tokenizers.tokenizer import MARKER

# Of a document that is refused, in its message.
_SHOWN = 60


@dataclass(frozen=True)
class SubwordCodec(Codec):
    """A tokenizer's ids, without the one that ends documents.

    Documents must be UTF-8, and come back as they were: those that the tokenizer changes are
    refused.
    """

    tokenizer: Tokenizer
    kind = "subword"

    @property
    def options(self) -> Mapping[str, Any]:
        return {"tokenizer": self.tokenizer.kind}

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    @property
    def content_hash(self) -> str:
        return self.tokenizer.content_hash

    @property
    def marker(self) -> dict[str, Any]:
        return {
            **super().marker,
            "end_of_document": self.tokenizer.end_of_document,
            "end_of_document_text": self.tokenizer.token_text(self.tokenizer.end_of_document),
        }

    @property
    def files(self) -> dict[str, Callable[[str], None]]:
        defining = {name: data for name, data in self.tokenizer.files.items() if name != MARKER}
        copies = {name: partial(storage.write_bytes, data=data) for name, data in defining.items()}
        return {**super().files, **copies}

    def definition(self) -> dict[str, Any]:
        end = self.tokenizer.end_of_document
        special = Special(end, self.tokenizer.token_text(end))
        return with_special(self.tokenizer.definition(), [special])

    @property
    def backend(self) -> str | None:
        return self.tokenizer.backend

    def check(self, doc_ids: Sequence[str], texts: Sequence[str]) -> None:
        self.tokenizer.check(doc_ids, texts)

    def encode_batch(self, documents: ByteStrings) -> tuple[Ids, Offsets]:
        texts = pa.array([_as_text(document) for document in documents], pa.large_string())
        tokens, lengths = self.tokenizer.encode_batch(texts)
        is_text = np.ones(len(tokens), bool)
        is_text[np.cumsum(lengths) - 1] = False
        ids = tokens[is_text]
        offsets = offsets_of(lengths - 1)
        for number, document in enumerate(documents):
            own = ids[offsets[number] : offsets[number + 1]]
            if self.tokenizer.decode(own).encode() != document:
                raise DataError(
                    f"the document that begins with {document[:_SHOWN].decode(errors='ignore')!r}"
                    f" is not what the {self.tokenizer.kind} tokenizer's ids of it stand for"
                )
        return ids, offsets

    def decode_batch(self, ids: Ids, offsets: Offsets) -> ByteStrings:
        self._check(ids)
        return ByteStrings.of(
            self.tokenizer.decode(ids[first:last]).encode()
            for first, last in itertools.pairwise(offsets)
        )

    def text_ends(self, ids: Ids, offsets: Offsets) -> Offsets:
        self._check(ids)
        ends = np.zeros(len(ids), np.int64)
        for first, last in itertools.pairwise(np.asarray(offsets) - offsets[0]):
            stream = TextStream(self.tokenizer)
            pieces = [len(stream.add(token).encode()) for token in ids[first:last].tolist()]
            ends[first:last] = np.cumsum(pieces)
        return ends

    def _check(self, ids: Ids) -> None:
        end = self.tokenizer.end_of_document
        wrong = ids[(ids >= self.vocab_size) | (ids == end)]
        if len(wrong):
            raise DataError(
                f"id {wrong[0]} is outside the vocabulary of {self.vocab_size:,}, or ends documents"
            )


def _as_text(document: bytes) -> str:
    try:
        return document.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"a subword tokenizer takes UTF-8 only; a document has {error.reason} at byte"
            f" {error.start}"
        ) from error
