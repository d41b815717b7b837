"""Tokenizers that the library `sentencepiece` runs."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
import sentencepiece

from corpusmill.corpus.tokenizers.backends import Backend, Encode, flat, make_backend
from corpusmill.corpus.tokenizers.conversion import converted
from corpusmill.corpus.tokenizers.fast import fast_backend
from corpusmill.corpus.tokenizers.pieces import PieceTokenizer
from corpusmill.corpus.tokenizers.tokenizer import NEW_END, EndOfDocument, entry_bytes

# normalizer_spec { add_dummy_prefix: false } and true: appended to a serialized model it overrides
# the field, because concatenated protocol buffers merge.
_DUMMY_PREFIXES = (b"\x1a\x02\x18\x00", b"\x1a\x02\x18\x01")


class SentencePieceTokenizer(PieceTokenizer):
    """A SentencePiece model."""

    kind = "sentencepiece"

    def __init__(self, files: Mapping[str, bytes], end: EndOfDocument) -> None:
        data = files["tokenizer.model"]
        self._model = sentencepiece.SentencePieceProcessor(model_proto=data)
        # Where leading spaces are dropped, the prefix puts back the one that follows a cut.
        middle = [
            sentencepiece.SentencePieceProcessor(model_proto=data + prefix)
            for prefix in _DUMMY_PREFIXES
        ]
        super().__init__(
            files,
            self._model.get_piece_size(),
            end.resolve(self._find, self._own_end),
            make_backend("sentencepiece", _encoder(self._model), *map(_encoder, middle)),
        )

    def fast_backend(self) -> Backend:
        return fast_backend(*converted(self._definition["tokenizer.model"]))

    def definition(self) -> dict[str, Any]:
        definition: dict[str, Any] = orjson.loads(converted(self._definition["tokenizer.model"])[0])
        steps: list[dict[str, Any]] = [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]
        # A text begins with a space that isn't its own.
        if len(definition["normalizer"]["normalizers"]) > 1:
            steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
        return {**definition, "decoder": {"type": "Sequence", "decoders": steps}}

    def added_texts(self) -> Iterable[str]:
        # Pieces that no text becomes, even where it reads like one.
        pieces = range(self._model.get_piece_size())
        is_special = self._model.is_control, self._model.is_unknown, self._model.is_byte
        return [self._model.id_to_piece(i) for i in pieces if any(is_(i) for is_ in is_special)]

    def _find(self, text: str) -> int | None:
        token = self._model.piece_to_id(text)
        return token if self._model.id_to_piece(token) == text else None

    def _own_end(self) -> tuple[int | None, str]:
        token = self._model.eos_id()
        return (None, NEW_END) if token < 0 else (token, self._model.id_to_piece(token))

    def _decode(self, ids: list[int]) -> str:
        return str(self._model.decode(ids))

    def _token_bytes(self, token: int) -> bytes:
        return entry_bytes(self._model.id_to_piece(token))


def _encoder(model: sentencepiece.SentencePieceProcessor) -> Encode:
    return lambda texts: flat(model.encode(texts))
