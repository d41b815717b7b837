"""A codebook with the methods that code written for Hugging Face tokenizers calls.

tokenizer = CodebookTokenizer.from_pretrained("compressed/tokenizer")
tokenizer("any text")["input_ids"]
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.compress.codebooks.codebook import Codebook
from corpusmill.compress.codecs.frozen import CODEBOOK_FILE, CodebookCodec
from corpusmill.compress.codecs.opening import open_codec, read_marker
from corpusmill.corpus import storage
from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.tokenizers.tokenizer import MARKER, NEW_END

Text = str | bytes | bytearray


class CodebookTokenizer:
    """Turns texts into lists of ids and back.

    >>> tokenizer = CodebookTokenizer(book, end_of_document=True)
    >>> tokenizer.decode(tokenizer.encode("a text"), skip_special_tokens=True)
    'a text'

    Attributes:
      book: the codebook.
      parse: see `Codebook.encode`.
      eos_token_id: the id after each text, behind those of the codebook; None without one.
      eos_token: what is shown for it.
    """

    def __init__(
        self, book: Codebook, parse: str | None = None, *, end_of_document: bool = False
    ) -> None:
        """Takes a codebook.

        Args:
          book: the codebook.
          parse: see `Codebook.encode`.
          end_of_document: whether texts end with an id of their own.

        Raises:
          UsageError: there is no such parse.
        """
        self.book = book
        self.parse = book.resolve_parse(parse)
        self.eos_token_id = book.vocab_size if end_of_document else None
        self.eos_token = NEW_END if end_of_document else None

    @classmethod
    def from_pretrained(
        cls, folder: str, *, end_of_document: bool | None = None
    ) -> "CodebookTokenizer":
        """The tokenizer in a folder: one written by `save_pretrained`, or a dataset's.

        Args:
          folder: path or URL.
          end_of_document: see `__init__`; as saved by default, and a dataset's has no end.

        Raises:
          UsageError: there is no codebook.
          DataError: it is damaged.
        """
        codec = open_codec(folder)
        if not isinstance(codec, CodebookCodec):
            raise UsageError(f"{folder} has the codec {codec.kind}; a codebook is needed")
        if codec.token_bits is not None:
            raise UsageError(f"{folder} has codes cut in halves; whole ones are needed")
        if end_of_document is None:
            end_of_document = read_marker(folder).get("end_of_document") is not None
        return cls(codec.book, codec.parse, end_of_document=end_of_document)

    def save_pretrained(self, folder: str) -> None:
        """Writes codebook, parse and end into a folder, by path or URL."""
        codec = CodebookCodec(self.book, self.parse)
        self.book.write(storage.join(folder, CODEBOOK_FILE))
        marker = {**codec.marker, "end_of_document": self.eos_token_id}
        storage.write_bytes(storage.join(folder, MARKER), json.dumps(marker, indent=1).encode())

    @property
    def vocab_size(self) -> int:
        """How many ids can occur, that of the end included: the rows an embedding needs."""
        return self.book.vocab_size + (self.eos_token_id is not None)

    def __len__(self) -> int:
        return self.vocab_size

    def __call__(self, text: Text | Sequence[Text]) -> dict[str, Any]:
        """The ids of a text, or of several, which are encoded at once.

        Returns:
          `input_ids`, a list of ids or one list a text, and `attention_mask`, ones of that shape.
        """
        if isinstance(text, Text):
            ids = self.encode(text)
            return {"input_ids": ids, "attention_mask": [1] * len(ids)}
        batch = self._encode_batch(text)
        return {"input_ids": batch, "attention_mask": [[1] * len(ids) for ids in batch]}

    def encode(self, text: Text) -> list[int]:
        """The ids of a text, the end included where there is one."""
        return self._encode_batch([text])[0]

    def decode(self, ids: npt.ArrayLike, *, skip_special_tokens: bool = False) -> str:
        """The text of ids; bytes that aren't UTF-8 appear as U+FFFD.

        Raises:
          DataError: an id is outside the vocabulary.
        """
        ids = np.atleast_1d(np.asarray(ids))
        first, *others = np.split(ids, np.flatnonzero(ids == self.eos_token_id))
        pieces = [self.book.decode(first), *(self.book.decode(part[1:]) for part in others)]
        shown = b"" if skip_special_tokens else NEW_END.encode()
        return shown.join(pieces).decode(errors="replace")

    def batch_decode(
        self, batch: Iterable[npt.ArrayLike], *, skip_special_tokens: bool = False
    ) -> list[str]:
        """The texts of several lists, or of the rows of an array, of ids."""
        return [self.decode(ids, skip_special_tokens=skip_special_tokens) for ids in batch]

    def _encode_batch(self, texts: Iterable[Text]) -> list[list[int]]:
        documents = ByteStrings.of(texts)
        ids, offsets = self.book.encode_batch(documents, self.parse)
        end = [] if self.eos_token_id is None else [self.eos_token_id]
        return [part.tolist() + end for part in np.split(ids, offsets[1:-1])[: len(documents)]]
