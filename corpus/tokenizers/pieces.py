"""Tokenizers that a library runs, on long texts in pieces.

The libraries need tens of bytes of memory for a byte of text, so texts longer than `PIECE_BYTES`
are tokenized in pieces. A piece ends before a single space that stands between two characters that
aren't white space; where its MiB has none, before such a newline; else anywhere. Cuts depend on the
text alone. Pieces after the first are tokenized without the space that some tokenizers put before a
text. So the ids are those of the whole text wherever no token spans a cut and what follows a cut
doesn't change how the text before it is split. That holds at spaces for

- byte-level BPE with the pre-tokenizers of GPT-2, GPT-4, Llama 3 and the like;
- WordPiece;
- SentencePiece models without entries that have a space after another character (the trainer's
  default); unigram models up to the rounding of scores, which are summed over a whole text.

It needn't hold at newlines and doesn't within words: a text of more than a MiB without any space
can have a few tokens per MiB that differ from those of the whole.
"""

import abc
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.corpus.errors import DataError
from corpusmill.corpus.tokenizers.backends import Backend, Ids, first_difference
from corpusmill.corpus.tokenizers.tokenizer import (
    BACKEND_VARIABLE,
    REFERENCE,
    Tokenizer,
    Tokens,
    text_buffers,
)
from corpusmill.corpus.tokens import check_vocabulary

PIECE_BYTES = 1 << 20

# A check sees so much of a document, so that long ones don't slow a job down.
_CHECKED_CHARACTERS = 1 << 16

_BEFORE_SPACE = re.compile(r".*\S(?= \S)", re.DOTALL)
_BEFORE_NEWLINE = re.compile(r".*\S(?=\n\S)", re.DOTALL)


class _Group(NamedTuple):
    """Pieces that are tokenized in one call; all or none of them begin their documents."""

    documents: npt.NDArray[np.int64]
    parts: list[str]
    is_first: bool
    is_last: npt.NDArray[np.bool_]


class PieceTokenizer(Tokenizer):
    """A tokenizer of a library, which gets about `PIECE_BYTES` of text at a time.

    Attributes:
      reference: the library whose ids are right.
    """

    def __init__(
        self,
        files: Mapping[str, bytes],
        own_ids: int,
        end: tuple[int | None, str],
        reference: Backend,
    ) -> None:
        """Takes what `Tokenizer` does, and the library's functions."""
        super().__init__(files, own_ids, *end)
        self.reference = reference
        self._backend = reference

    @property
    def backend(self) -> str:
        return self._backend.name

    def use(self, backend: Backend) -> None:
        """Encodes with another library from now on."""
        self._backend = backend

    def added_texts(self) -> Iterable[str]:
        """Texts that become one token wherever they stand, or look as if they did."""
        return ()

    @abc.abstractmethod
    def fast_backend(self) -> Backend:
        """The fastest library that may give the same ids.

        Raises:
          UnsupportedError: there is none for this tokenizer.
        """

    def encode_batch(self, texts: pa.LargeStringArray) -> tuple[Tokens, npt.NDArray[np.int64]]:
        lengths = np.zeros(len(texts), np.int64)
        chunks = [np.empty(0, self.dtype)]
        for group in _groups(texts):
            encode = self._backend.start if group.is_first else self._backend.middle
            ids, sizes = encode(group.parts)
            sizes = sizes + group.is_last
            np.add.at(lengths, group.documents, sizes)
            is_id = np.ones(sizes.sum(), bool)
            is_id[np.cumsum(sizes)[group.is_last] - 1] = False
            chunk = np.full(len(is_id), self.end_of_document, self.dtype)
            chunk[is_id] = self._checked(ids)
            chunks.append(chunk)
        return np.concatenate(chunks), lengths

    def check(self, doc_ids: Sequence[str], texts: Sequence[str]) -> None:
        if self._backend is self.reference:
            return
        excerpts = [text[:_CHECKED_CHARACTERS] for text in texts]
        wrong = first_difference(self._backend.start, self.reference.start, excerpts)
        if wrong is not None:
            doc_id = doc_ids[excerpts.index(wrong)]
            raise DataError(
                f"document {doc_id!r} has other ids by {self.backend} than by"
                f" {self.reference.name}, whose ids are right: set"
                f" {BACKEND_VARIABLE}={REFERENCE}, name a new output, and report the document"
            )

    def _checked(self, ids: Ids) -> Tokens:
        """Ids in the type that they are stored in."""
        check_vocabulary(ids, self.vocab_size, "what the tokenizer gave")
        if (ids == self.end_of_document).any():
            raise DataError(
                f"the tokenizer gave id {self.end_of_document}, which ends documents, inside a"
                " text; name another token for that (tokenize --end-of-document)"
            )
        return ids.astype(self.dtype)


def split_text(text: memoryview) -> Iterator[str]:
    """Cuts UTF-8 into pieces of at most `PIECE_BYTES`, as the module says."""
    start = 0
    while len(text) - start > PIECE_BYTES:
        stop = start + PIECE_BYTES
        while text[stop] & 0xC0 == 0x80:
            stop -= 1
        window = str(text[start:stop], "utf-8")
        cut = _BEFORE_SPACE.match(window) or _BEFORE_NEWLINE.match(window)
        piece = window[: cut.end()] if cut else window
        yield piece
        start += len(piece.encode())
    yield str(text[start:], "utf-8")


def _groups(texts: pa.LargeStringArray) -> Iterator[_Group]:
    ends = text_buffers(texts)[0]
    first = 0
    while first < len(texts):
        # What fits, one text at least.
        last = int(np.searchsorted(ends, ends[first] + PIECE_BYTES, "right")) - 1
        if last > first:
            documents = np.arange(first, last)
            parts = texts.slice(first, last - first).to_pylist()
            yield _Group(documents, parts, True, np.ones(len(parts), bool))
        else:
            last = first + 1
            yield from _long_text(first, texts[first:last])
        first = last


def _long_text(document: int, text: pa.LargeStringArray) -> Iterator[_Group]:
    """Piece by piece, the last one by itself."""
    offsets, data = text_buffers(text)
    parts = split_text(data[offsets[0] : offsets[1]])
    part, is_first = next(parts), True
    number = np.array([document])
    for following in parts:
        yield _Group(number, [part], is_first, np.array([False]))
        part, is_first = following, False
    yield _Group(number, [part], is_first, np.array([True]))
