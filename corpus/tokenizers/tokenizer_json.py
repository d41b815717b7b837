"""Tokenizers that the library `tokenizers` runs.

Padding, truncation, dropout and added begin or end tokens of a `tokenizer.json` are switched off.
(Added tokens that aren't special, such as GPT-NeoX's runs of spaces, are found in text, as their
makers intend.)
"""

from collections.abc import Collection, Mapping
from typing import Any

import orjson
import tokenizers

from corpusmill.corpus.tokenizers.backends import Backend, Encode, Ids, Lengths, flat, make_backend
from corpusmill.corpus.tokenizers.byte_letters import byte_characters
from corpusmill.corpus.tokenizers.fast import fast_backend
from corpusmill.corpus.tokenizers.pieces import PieceTokenizer
from corpusmill.corpus.tokenizers.tokenizer import NEW_END, EndOfDocument, Tokenizer, entry_bytes

# In order of preference: what ends a text comes before what ends a turn or a sentence pair.
_END_NAMES = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<｜end▁of▁sentence｜>",  # noqa: RUF001 (DeepSeek's, as it is written)
    "[EOS]",
    "[SEP]",
)


class HuggingFaceTokenizer(PieceTokenizer):
    """A `tokenizer.json`, or a vocabulary with merges."""

    def __init__(
        self,
        kind: str,
        files: Mapping[str, bytes],
        tokenizer: tokenizers.Tokenizer,
        middle: tokenizers.Tokenizer,
        end: EndOfDocument,
        *,
        is_byte_level: bool,
    ) -> None:
        self.kind = kind
        self._tokenizer = tokenizer
        self._middle = middle
        self._vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self._added = {
            token: added.content for token, added in tokenizer.get_added_tokens_decoder().items()
        }
        self._is_byte_level = is_byte_level
        self.end_is_guess = end.is_open
        super().__init__(
            files,
            max(self._vocabulary.values()) + 1,
            end.resolve(self._vocabulary.get, self._well_known_end),
            make_backend("tokenizers", _encoder(tokenizer), _encoder(middle)),
        )

    def fast_backend(self) -> Backend:
        # As the library has understood the file, which may contradict itself.
        definition = self._tokenizer.to_str()
        is_alike = self._middle is self._tokenizer
        return fast_backend(definition, definition if is_alike else self._middle.to_str())

    def definition(self) -> dict[str, Any]:
        return {**orjson.loads(self._tokenizer.to_str()), "post_processor": None}

    def added_texts(self) -> Collection[str]:
        return self._added.values()

    def _well_known_end(self) -> tuple[int | None, str]:
        for name in _END_NAMES:
            token = self._vocabulary.get(name)
            if token is not None and not self._comes_out_of_text(token, name):
                return token, name
        return None, NEW_END

    def _comes_out_of_text(self, token: int, text: str) -> bool:
        """As added tokens do that aren't special."""
        return token in self._tokenizer.encode(text, add_special_tokens=False).ids

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def _token_bytes(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        entry = self._tokenizer.id_to_token(token)
        if entry is None:
            return f"<unused {token}>".encode()
        if self._is_byte_level:
            return b"".join(_BYTE_OF.get(c) or c.encode() for c in entry)
        return entry_bytes(entry)


def load_hugging_face(files: Mapping[str, bytes], end: EndOfDocument) -> Tokenizer:
    config = orjson.loads(files["tokenizer.json"])
    if "model" not in config:
        raise ValueError("it is JSON, but no tokenizer.json")
    # Dropout makes ids random.
    if config["model"].get("dropout"):
        config["model"]["dropout"] = None
    adding = {part: config[part] for part in ("normalizer", "pre_tokenizer") if part in config}
    middle = config | _without_prefix(adding)
    tokenizer = _raw_text_only(tokenizers.Tokenizer.from_buffer(orjson.dumps(config)))
    continued = tokenizer
    if middle != config:
        continued = _raw_text_only(tokenizers.Tokenizer.from_buffer(orjson.dumps(middle)))
    is_byte_level = "ByteLevel" in _types(config.get("decoder"))
    return HuggingFaceTokenizer(
        "huggingface", files, tokenizer, continued, end, is_byte_level=is_byte_level
    )


def load_bpe(files: Mapping[str, bytes], end: EndOfDocument) -> Tokenizer:
    lines = files["merges.txt"].decode().split("\n")
    merges = [
        (left, right)
        for line in lines
        if not line.startswith("#version")
        for left, _, right in [line.rstrip("\r").partition(" ")]
        if right
    ]
    model = tokenizers.models.BPE(vocab=orjson.loads(files["vocab.json"]), merges=merges)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return HuggingFaceTokenizer("bpe", files, tokenizer, tokenizer, end, is_byte_level=True)


def _encoder(tokenizer: tokenizers.Tokenizer) -> Encode:
    def encode(texts: list[str]) -> tuple[Ids, Lengths]:
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return flat([encoding.ids for encoding in encodings])

    return encode


def _types(config: Any) -> set[str]:
    """The types of all components below a part of a `tokenizer.json`."""
    if isinstance(config, dict):
        return {str(config.get("type"))}.union(*map(_types, config.values()))
    if isinstance(config, list):
        return set().union(*map(_types, config))
    return set()


def _without_prefix(config: Any) -> Any:
    """A part of a `tokenizer.json` whose components put no space before a text."""
    if isinstance(config, list):
        return [_without_prefix(part) for part in config if _type(part) != "Prepend"]
    if not isinstance(config, dict):
        return config
    if _type(config) == "Prepend":
        return None
    changes = {"add_prefix_space": False, "prepend_scheme": "never"}
    return {name: changes.get(name, _without_prefix(value)) for name, value in config.items()}


def _type(config: Any) -> Any:
    return config.get("type") if isinstance(config, dict) else None


def _raw_text_only(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The tokenizer with everything off that adds to a text, cuts it or takes it as a command."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


_BYTE_OF = byte_characters()
