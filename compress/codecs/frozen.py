"""The codec that walks a codebook."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from corpusmill.compress.byte_strings import ByteStrings, Ids, Offsets
from corpusmill.compress.codebooks.codebook import Codebook
from corpusmill.compress.codecs.codec import Codec, sums_by_document
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.tokenizers.backends import UnsupportedError
from corpusmill.corpus.tokenizers.byte_letters import byte_level, letters_of

CODEBOOK_FILE = "tokenizer.codebook"
# Of letters in what WordPiece takes for a word.
_NO_LIMIT = (1 << 62) - 1


@dataclass(frozen=True)
class CodebookCodec(Codec):
    """A codebook, and how it parses: by default as `Codebook.encode` does.

    Attributes:
      book: the codebook.
      parse: see `Codebook.encode`.
      token_bits: of an id; None where codes are the ids. With 8, a code of 16 bits is two ids, the
        upper bits first.

    Raises:
      UsageError: there is no such parse, or the codes have no two halves of this size.
    """

    book: Codebook
    parse: str | None = None
    token_bits: int | None = None
    kind = "codebook"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parse", self.book.resolve_parse(self.parse))
        if self.token_bits == self.book.window_bits:
            object.__setattr__(self, "token_bits", None)
        if self.token_bits is not None and (self.token_bits, self.book.window_bits) != (8, 16):
            raise UsageError(
                f"codes of {self.book.window_bits} bits cannot be cut into ids of"
                f" {self.token_bits} bits; codes of 16 bits can, into ids of 8 bits"
            )

    @property
    def options(self) -> Mapping[str, Any]:
        return {"parse": self.parse, "token_bits": self.token_bits}

    @property
    def vocab_size(self) -> int:
        return self.book.vocab_size if self.token_bits is None else 1 << self.token_bits

    @property
    def window_ids(self) -> int:
        return 1 if self.token_bits is None else 2

    @cached_property
    def content_hash(self) -> str:
        if self.token_bits is None:
            return self.book.content_hash
        return hashlib.sha256(f"halves of {self.book.content_hash}".encode()).hexdigest()

    @property
    def files(self) -> dict[str, Callable[[str], None]]:
        return {**super().files, CODEBOOK_FILE: self.book.write}

    def encode_batch(self, documents: ByteStrings) -> tuple[Ids, Offsets]:
        codes, offsets = self.book.encode_batch(documents, self.parse)
        if self.token_bits is None:
            return codes, offsets
        return codes.astype(">u2").view(np.uint8).astype(self.dtype), 2 * offsets

    def decode_batch(self, ids: Ids, offsets: Offsets) -> ByteStrings:
        if self.token_bits is None:
            return self.book.decode_batch(ids, offsets)
        if (np.diff(offsets) % 2).any():
            raise DataError("its last code has one id, codes have two")
        return self.book.decode_batch(_joined(ids), np.asarray(offsets) // 2)

    def definition(self) -> dict[str, Any]:
        if self.token_bits is not None:
            raise UnsupportedError(
                "half a code stands for no bytes; a tokenizer.json has whole ones"
            )
        if self.parse != "greedy":
            raise UnsupportedError(
                f"the {self.parse} parse looks ahead, a tokenizer.json takes the longest string"
            )
        if self.book.boundaries != "none":
            raise UnsupportedError(
                f"its strings stop at {self.book.boundaries}, by a rule that no tokenizer.json can"
                " say"
            )
        # WordPiece takes the longest string at each place, where what continues has no prefix.
        vocabulary = {letters_of(string): code for code, string in enumerate(self.book.strings)}
        return byte_level(
            {
                "type": "WordPiece",
                "vocab": vocabulary,
                "unk_token": next(iter(vocabulary)),
                "continuing_subword_prefix": "",
                "max_input_chars_per_word": _NO_LIMIT,
            }
        )

    def text_ends(self, ids: Ids, offsets: Offsets) -> Offsets:
        added = np.zeros(len(ids), np.int64)
        if self.token_bits is None:
            added[:] = self._lengths(ids)
        else:
            # A code's text is known from its second id on.
            second = np.arange(len(ids)) - np.repeat(offsets[:-1], np.diff(offsets))
            places = np.flatnonzero(second % 2)
            added[places] = self._lengths(_joined(ids[(places[:, None] + [-1, 0]).ravel()]))
        return sums_by_document(added, offsets)

    def _lengths(self, codes: Ids) -> Offsets:
        # Every code is a document, so decoding them finds those outside the codebook.
        return self.book.decode_batch(codes, np.arange(len(codes) + 1)).lengths()


def _joined(halves: Ids) -> Ids:
    """The codes of their upper and lower bits in turn."""
    if len(halves) and halves.max() > 255:
        raise DataError(f"id {halves.max()} is outside the vocabulary of 256")
    return halves.astype(np.uint8).view(">u2").astype(np.uint16)
