"""What all tokenizers have in common."""

import abc
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.corpus.datasets import IdSource
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.tokens import id_dtype

MARKER = "corpusmill.json"
NEW_END = "<end>"

# Set to REFERENCE, it has texts encoded by the library that a tokenizer was made for, and no other.
BACKEND_VARIABLE = "CORPUSMILL_TOKENIZER_BACKEND"
REFERENCE = "reference"

Tokens = npt.NDArray[np.unsignedinteger[Any]]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class Tokenizer(abc.ABC):
    """Turns documents into token ids.

    Attributes:
      kind: `bytes`, `huggingface`, `bpe` or `sentencepiece`.
      vocab_size: the largest id that can occur, and one; added tokens and the end included.
      end_of_document: id of the token after each document.
      files: names and contents of the files that define it; `load_tokenizer` of a folder with
        these files gives the same tokenizer.
      end_is_guess: nobody says that this token ends documents; its name does.
    """

    kind: str
    end_is_guess = False

    def __init__(
        self, files: Mapping[str, bytes], own_ids: int, end: int | None, end_text: str
    ) -> None:
        """Settles the end of documents.

        Args:
          files: without the marker file.
          own_ids: largest id of the vocabulary, and one.
          end: id of the token that ends documents; None for a new one.
          end_text: how to show it.

        Raises:
          DataError: no vocabulary has this end.
        """
        if end is not None and not 0 <= end <= own_ids:
            raise DataError(
                f"the id that ends documents is {end}; the tokenizer has ids below {own_ids}"
            )
        self.end_of_document = own_ids if end is None else end
        self.vocab_size = max(own_ids, self.end_of_document + 1)
        self._end_text = end_text
        self._definition = dict(files)
        marker = {
            "kind": self.kind,
            "end_of_document": self.end_of_document,
            "end_of_document_text": end_text,
        }
        self.files = {**files, MARKER: json.dumps(marker, indent=1).encode() + b"\n"}

    def __reduce__(self) -> tuple[Any, ...]:
        """Libraries' objects can't be pickled; the files that they were made from can."""
        from corpusmill.corpus.tokenizers.loading import restore_tokenizer

        return restore_tokenizer, (self.files, self.backend)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of ids: uint16 where they fit, else uint32."""
        return id_dtype(self.vocab_size)

    @property
    def content_hash(self) -> str:
        """SHA-256 over the defining files and the id that ends documents."""
        digest = hashlib.sha256(f"{self.kind} {self.end_of_document}\n".encode())
        for name, data in sorted(self._definition.items()):
            digest.update(f"{name} {len(data)}\n".encode())
            digest.update(data)
        return digest.hexdigest()

    @abc.abstractmethod
    def encode_batch(self, texts: pa.LargeStringArray) -> tuple[Tokens, npt.NDArray[np.int64]]:
        """Tokenizes documents.

        Returns:
          The ids of all documents one after the other, each with the end-of-document token behind
          it, and how many ids each document has, that token included.
        """

    @abc.abstractmethod
    def definition(self) -> dict[str, Any]:
        """The contents of a `tokenizer.json` that gives the same ids, without the end of documents.

        Raises:
          UnsupportedError: there is none.
        """

    @property
    def backend(self) -> str | None:
        """Name and version of the library that encodes; None where none is needed."""
        return None

    def check(  # noqa: B027  (bytes have one way only)
        self, doc_ids: Sequence[str], texts: Sequence[str]
    ) -> None:
        """Compares what encodes with the reference, on a few documents.

        Raises:
          DataError: they have different ids.
        """

    def encode(self, text: str) -> Tokens:
        """The ids of a text, without the end-of-document token."""
        tokens, _ = self.encode_batch(pa.array([text], pa.large_string()))
        return tokens[:-1]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; end-of-document tokens have none.

        Raises:
          ValueError: an id isn't in the vocabulary.
        """
        text = [int(i) for i in ids if i != self.end_of_document]
        if text and not 0 <= min(text) <= max(text) < self.vocab_size:
            outside = next(i for i in text if not 0 <= i < self.vocab_size)
            raise self._outside(outside)
        return self._decode(text)

    def token_text(self, token: int) -> str:
        r"""The text of one token, to be shown: bytes that aren't characters appear as `\xe2`.

        Raises:
          ValueError: the id isn't in the vocabulary.
        """
        if token == self.end_of_document:
            return self._end_text
        return show_bytes(self.token_bytes(token))

    def quoted(self, token: int) -> str:
        """`token_text` in quotes, on one line."""
        # Not repr(), which would double the backslashes that already stand for single bytes.
        text = self.token_text(token)
        return "'" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) + "'"

    def token_bytes(self, token: int) -> bytes:
        """What one token stands for in a text; of the end of documents, nothing.

        Raises:
          ValueError: the id isn't in the vocabulary.
        """
        if not 0 <= token < self.vocab_size:
            raise self._outside(token)
        return b"" if token == self.end_of_document else self._token_bytes(token)

    def _outside(self, token: int) -> ValueError:
        return ValueError(f"token id {token} is outside the vocabulary of {self.vocab_size}")

    @abc.abstractmethod
    def _decode(self, ids: list[int]) -> str: ...

    @abc.abstractmethod
    def _token_bytes(self, token: int) -> bytes: ...


class EndOfDocument:
    """Which token ends documents: as asked for, as recorded in a folder, or the usual one."""

    def __init__(self, wanted: str | None, marker: dict[str, Any] | None) -> None:
        self._wanted = wanted
        self._marker = marker

    @property
    def is_open(self) -> bool:
        """Whether nobody has said it."""
        return self._wanted is None and self._marker is None

    def resolve(
        self, find: Callable[[str], int | None], usual: Callable[[], tuple[int | None, str]]
    ) -> tuple[int | None, str]:
        """Its id, None for a new one, and its text."""
        if self._wanted is not None:
            token = find(self._wanted)
            if token is None:
                raise UsageError(
                    f"end-of-document token {self._wanted!r} is not in the tokenizer's vocabulary;"
                    " name one that is, or leave it out"
                )
            return token, self._wanted
        if self._marker is not None:
            return int(self._marker["end_of_document"]), str(self._marker["end_of_document_text"])
        return usual()


def describe_tokenizer(tokenizer: Tokenizer) -> IdSource:
    """What a manifest says of a tokenizer."""
    return {
        "kind": tokenizer.kind,
        "content_hash": tokenizer.content_hash,
        "vocabulary_size": tokenizer.vocab_size,
        "end_of_document": tokenizer.end_of_document,
    }


def text_buffers(texts: pa.LargeStringArray) -> tuple[npt.NDArray[np.int64], memoryview]:
    """Where the texts lie in the memory that is returned, without copying it."""
    if texts.null_count:
        raise ValueError("texts must not be null")
    # An empty array may come without offsets.
    if not len(texts):
        return np.zeros(1, np.int64), memoryview(b"")
    texts = texts.cast(pa.large_string())
    _, offsets, data = texts.buffers()
    offsets = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return offsets, memoryview(data or b"")


def show_bytes(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


def entry_bytes(entry: str) -> bytes:
    """The text of a vocabulary entry that isn't byte-level."""
    byte = _BYTE_TOKEN.fullmatch(entry)
    return bytes.fromhex(byte[1]) if byte else entry.replace("▁", " ").encode()
