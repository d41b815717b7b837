"""What the ids of a run stand for: text to ids and back, by the tokenizer or codec it keeps."""

import codecs
from typing import Protocol

import numpy as np

from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.compress.codecs import Codec, SubwordCodec, open_codec
from corpusmill.corpus import storage
from corpusmill.corpus.datasets import TOKENIZER_FOLDER
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.tokenizers import TextStream, Tokenizer, load_tokenizer
from corpusmill.corpus.training_runs import RunConfig
from corpusmill.trainer.batches import start_id


class Stream(Protocol):
    """Text of ids that come one by one; incomplete characters are held back."""

    def add(self, token: int) -> str: ...

    def finish(self) -> str: ...


class Texts:
    """Text as a run's ids.

    Attributes:
      encoding: the tokenizer, or the codec.
      start: the id that is read before a text.
      end: the id after a text; codecs have none.
      vocabulary_size: ids that a model may go on with are below it.
    """

    def __init__(self, config: RunConfig, encoding: Tokenizer | Codec) -> None:
        self.encoding = encoding
        self.start = start_id(config.tokenizer)
        self.end: int | None = config.tokenizer["end_of_document"]
        self.vocabulary_size: int = config.tokenizer["vocabulary_size"]

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without start and end."""
        if isinstance(self.encoding, Tokenizer):
            return list(map(int, self.encoding.encode(text)))
        return list(map(int, self.encoding.encode_batch(ByteStrings.of([text]))[0]))

    def stream(self) -> Stream:
        """Turns ids into text, from the beginning of a text.

        Raises:
          UsageError: ids of this codec can't be read before the last one is there.
        """
        if isinstance(self.encoding, Tokenizer):
            return TextStream(self.encoding)
        if isinstance(self.encoding, SubwordCodec):
            return TextStream(self.encoding.tokenizer)
        return _WindowStream(self.encoding)


def open_texts(run: str, config: RunConfig) -> Texts:
    """The texts of a run, by path or URL.

    Raises:
      UsageError: the run has no tokenizer.
      DataError: it is damaged, or another one than the run's.
    """
    folder = storage.join(run, TOKENIZER_FOLDER)
    described = config.tokenizer
    encoding: Tokenizer | Codec
    if described["end_of_document"] is None:
        encoding = open_codec(folder)
    else:
        # That of bytes has no files; byte models have been trained without a dataset.
        has_files = described["kind"] != "bytes" or storage.is_folder(folder)
        encoding = load_tokenizer(folder if has_files else "bytes")
    if encoding.content_hash != described["content_hash"]:
        raise DataError(
            f"{folder} has another tokenizer ({encoding.content_hash:.12}) than the run learnt"
            f" ({described['content_hash']:.12})"
        )
    return Texts(config, encoding)


class _WindowStream:
    """Text of the ids of a codec: known window by window, shown character by character."""

    def __init__(self, codec: Codec) -> None:
        if codec.window_ids is None:
            raise UsageError(
                f"the ids of the codec {codec.kind} are no text before the last one is there;"
                " models of tokens, bytes, codebooks and windows can go on with a text"
            )
        self._codec, self._window_ids = codec, codec.window_ids
        self._ids: list[int] = []
        self._shown = 0
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        self._ids.append(token)
        if len(self._ids) % self._window_ids:
            return ""
        # Windows may depend on those before them, so all are decoded.
        ids = np.array(self._ids, self._codec.dtype)
        text = self._codec.decode_batch(ids, np.array([0, len(ids)]))[0]
        new, self._shown = text[self._shown :], len(text)
        return self._characters.decode(new)

    def finish(self) -> str:
        return self._characters.decode(b"", final=True)
