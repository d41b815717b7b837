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

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpus.errors import DataError
from corpus.tokenizers.base import Tokenizer, Tokens, text_buffers

PIECE_BYTES = 1 << 20

Encode = Callable[[list[str]], Sequence[Sequence[int]]]

_BEFORE_SPACE = re.compile(r".*\S(?= \S)", re.DOTALL)
_BEFORE_NEWLINE = re.compile(r".*\S(?=\n\S)", re.DOTALL)


class _Piece(NamedTuple):
    document: int
    text: str
    is_first: bool
    is_last: bool


class PieceTokenizer(Tokenizer):
    """A tokenizer of a library, which gets about `PIECE_BYTES` of text at a time."""

    def __init__(
        self,
        files: Mapping[str, bytes],
        own_ids: int,
        end: tuple[int | None, str],
        encode_start: Encode,
        encode_middle: Sequence[Encode],
    ) -> None:
        """Takes the library's functions.

        Args:
          files: see `Tokenizer`.
          own_ids: see `Tokenizer`.
          end: id and text of the token that ends documents.
          encode_start: tokenizes texts.
          encode_middle: ways to tokenize what follows a cut; the first that does what
            `encode_start` would do there is taken.
        """
        super().__init__(files, own_ids, *end)
        self._encode_start = encode_start
        fitting = (encode for encode in encode_middle if _continues(encode_start, encode))
        self._encode_middle = next(fitting, encode_start)

    def encode_batch(self, texts: pa.LargeStringArray) -> tuple[Tokens, npt.NDArray[np.int64]]:
        lengths = np.zeros(len(texts), np.int64)
        chunks = [np.empty(0, self.dtype)]
        for group in _groups(_pieces(texts)):
            encode = self._encode_start if group[0].is_first else self._encode_middle
            flat: list[int] = []
            for piece, ids in zip(group, encode([piece.text for piece in group]), strict=True):
                before = len(flat)
                flat += ids
                if piece.is_last:
                    flat.append(self.end_of_document)
                lengths[piece.document] += len(flat) - before
            chunks.append(self._checked(np.array(flat, np.int64)))
        return np.concatenate(chunks), lengths

    def _checked(self, ids: npt.NDArray[np.int64]) -> Tokens:
        """Ids in the type that they are stored in."""
        is_outside = (ids < 0) | (ids >= self.vocab_size)
        if is_outside.any():
            raise DataError(
                f"the tokenizer gave id {ids[is_outside][0]}, outside its vocabulary of"
                f" {self.vocab_size}"
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


def _continues(start: Encode, middle: Encode) -> bool:
    """Whether `middle` gives the ids, after a cut, that the whole text has there."""
    (whole,), (first,) = start(["one two three four"]), start(["one two"])
    (rest,) = middle([" three four"])
    return list(whole) == [*first, *rest]


def _pieces(texts: pa.LargeStringArray) -> Iterator[_Piece]:
    offsets, data = text_buffers(texts)
    for document, (start, end) in enumerate(itertools.pairwise(offsets.tolist())):
        parts = split_text(data[start:end])
        part, is_first = next(parts), True
        for following in parts:
            yield _Piece(document, part, is_first, is_last=False)
            part, is_first = following, False
        yield _Piece(document, part, is_first, is_last=True)


def _groups(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Runs of pieces that are tokenized in one call."""
    group: list[_Piece] = []
    size = 0
    for piece in pieces:
        if group and (size + len(piece.text) > PIECE_BYTES or piece.is_first != group[0].is_first):
            yield group
            group, size = [], 0
        group.append(piece)
        size += len(piece.text)
    if group:
        yield group
