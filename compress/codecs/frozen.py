"""The codec that walks a codebook."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from compress.byte_strings import ByteStrings, Offsets
from compress.codebook import Codebook, Ids
from compress.codecs.base import Codec, sums_by_document

CODEBOOK_FILE = "tokenizer.codebook"


@dataclass(frozen=True)
class CodebookCodec(Codec):
    """A codebook, and how it parses: by default as `Codebook.encode` does.

    Raises:
      UsageError: there is no such parse.
    """

    book: Codebook
    parse: str | None = None
    kind = "codebook"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parse", self.book.resolve_parse(self.parse))

    @property
    def options(self) -> Mapping[str, Any]:
        return {"parse": self.parse}

    @property
    def vocab_size(self) -> int:
        return self.book.vocab_size

    @property
    def window_ids(self) -> int:
        return 1

    @cached_property
    def content_hash(self) -> str:
        return self.book.content_hash

    @property
    def files(self) -> dict[str, Callable[[str], None]]:
        return {**super().files, CODEBOOK_FILE: self.book.write}

    def encode_batch(self, documents: ByteStrings) -> tuple[Ids, Offsets]:
        return self.book.encode_batch(documents, self.parse)

    def decode_batch(self, ids: Ids, offsets: Offsets) -> ByteStrings:
        return self.book.decode_batch(ids, offsets)

    def text_ends(self, ids: Ids, offsets: Offsets) -> Offsets:
        # Every id is a document, so decoding them finds those outside the codebook.
        single = self.book.decode_batch(ids, np.arange(len(ids) + 1))
        return sums_by_document(single.lengths(), offsets)
