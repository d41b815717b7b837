"""Tokenizers: text to token ids and back, each document ended by one token.

Text never yields special tokens: `<|endoftext|>` in a document is tokenized as the thirteen
characters that it is. Padding, truncation, dropout and added begin or end tokens of a
`tokenizer.json` are switched off. (Added tokens that aren't special, such as GPT-NeoX's runs of
spaces, are found in text, as their makers intend.)

Long texts. The libraries need tens of bytes of memory for a byte of text, so texts longer than
`PIECE_BYTES` are tokenized in pieces. A piece ends before a single space that stands between two
characters that aren't white space; where its MiB has none, before such a newline; else anywhere.
Cuts depend on the text alone. Pieces after the first are tokenized without the space that some
tokenizers put before a text. So the ids are those of the whole text wherever no token spans a cut
and what follows a cut doesn't change how the text before it is split. That holds at spaces for

- byte-level BPE with the pre-tokenizers of GPT-2, GPT-4, Llama 3 and the like;
- WordPiece;
- SentencePiece models without entries that have a space after another character (the trainer's
  default); unigram models up to the rounding of scores, which are summed over a whole text.

It needn't hold at newlines and doesn't within words: a text of more than a MiB without any space
can have a few tokens per MiB that differ from those of the whole.
"""

import abc
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import sentencepiece
import tokenizers

from corpus import storage
from corpus.errors import DataError, UsageError

PIECE_BYTES = 1 << 20
MARKER = "corpusmill.json"
NEW_END = "<end>"

Tokens = npt.NDArray[np.unsignedinteger[Any]]

_ACCEPTED = (
    "accepted are a tokenizer.json, a SentencePiece .model, VOCAB.json,MERGES.txt,"
    " a folder with one of these, or bytes"
)
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
_BEFORE_SPACE = re.compile(r".*\S(?= \S)", re.DOTALL)
_BEFORE_NEWLINE = re.compile(r".*\S(?=\n\S)", re.DOTALL)
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
# normalizer_spec { add_dummy_prefix: false } and true: appended to a serialized model it overrides
# the field, because concatenated protocol buffers merge.
_DUMMY_PREFIXES = (b"\x1a\x02\x18\x00", b"\x1a\x02\x18\x01")


class Tokenizer(abc.ABC):
    """Turns documents into token ids.

    Attributes:
      kind: `bytes`, `huggingface`, `bpe` or `sentencepiece`.
      vocab_size: the largest id that can occur, and one; added tokens and the end included.
      end_of_document: id of the token after each document.
      files: names and contents of the files that define it; `load_tokenizer` of a folder with
        these files gives the same tokenizer.
    """

    kind: str

    def __init__(
        self, files: Mapping[str, bytes], own_ids: int, end: int | None, end_text: str
    ) -> None:
        """Settles the end of documents.

        Args:
          files: without the marker file.
          own_ids: largest id of the vocabulary, and one.
          end: id of the token that ends documents; None for a new one.
          end_text: how to show it.
        """
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

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of ids: uint16 where they fit, else uint32."""
        return np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.uint32)

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

    def encode(self, text: str) -> Tokens:
        """The ids of a text, without the end-of-document token."""
        tokens, _ = self.encode_batch(pa.array([text], pa.large_string()))
        return tokens[:-1]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; end-of-document tokens have none."""
        return self._decode([int(i) for i in ids if i != self.end_of_document])

    def token_text(self, token: int) -> str:
        r"""The text of one token, to be shown: bytes that aren't characters appear as `\xe2`.

        Raises:
          ValueError: the id isn't in the vocabulary.
        """
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"token id {token} is outside the vocabulary of {self.vocab_size}")
        return self._end_text if token == self.end_of_document else self._token_text(token)

    @abc.abstractmethod
    def _decode(self, ids: list[int]) -> str: ...

    @abc.abstractmethod
    def _token_text(self, token: int) -> str: ...


def load_tokenizer(spec: str, end_of_document: str | None = None) -> Tokenizer:
    """Loads a tokenizer.

    Args:
      spec: `bytes`, or a path or URL of a `tokenizer.json` (Hugging Face), of a SentencePiece
        model, of `VOCAB.json,MERGES.txt` (byte-level BPE as GPT-2's), or of a folder with one of
        these or with the `files` of a tokenizer.
      end_of_document: text of the vocabulary's token that ends documents. By default the one
        recorded in the folder, else the first well-known one that the vocabulary has, else a new
        id behind the vocabulary.

    Raises:
      UsageError: there is no such tokenizer, or its vocabulary has no such token.
    """
    files = dict(_read_files(spec))
    marker = files.pop(MARKER, None)
    load = _LOADERS.get(tuple(sorted(files)))
    if load is None:
        raise UsageError(f"tokenizer {spec!r} is not understood; {_ACCEPTED}")
    try:
        end = _End(end_of_document, None if marker is None else json.loads(marker))
        return load(files, end)
    except UsageError:
        raise
    # The libraries, which are not written in Python, raise bare exceptions.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"cannot load tokenizer {spec!r}: {reason}; {_ACCEPTED}") from error


def describe_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a manifest says of a tokenizer."""
    return {
        "kind": tokenizer.kind,
        "content_hash": tokenizer.content_hash,
        "vocabulary_size": tokenizer.vocab_size,
        "end_of_document": tokenizer.end_of_document,
    }


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


# --- bytes ---------------------------------------------------------------------------------------


class _ByteTokenizer(Tokenizer):
    """Every byte of the UTF-8 text is a token."""

    kind = "bytes"

    def encode_batch(self, texts: pa.LargeStringArray) -> tuple[Tokens, npt.NDArray[np.int64]]:
        offsets, data = _text_buffers(texts)
        lengths = np.diff(offsets) + 1
        ends = np.cumsum(lengths) - 1
        tokens = np.empty(lengths.sum(), self.dtype)
        is_text = np.ones(len(tokens), bool)
        is_text[ends] = False
        tokens[is_text] = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
        tokens[ends] = self.end_of_document
        return tokens, lengths

    def _decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")

    def _token_text(self, token: int) -> str:
        return _show_bytes(bytes([token]))


def _text_buffers(texts: pa.LargeStringArray) -> tuple[npt.NDArray[np.int64], memoryview]:
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


def _show_bytes(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


# --- tokenizers that libraries run, on pieces of text --------------------------------------------


class _Piece(NamedTuple):
    document: int
    text: str
    is_first: bool
    is_last: bool


_Encode = Callable[[list[str]], Sequence[Sequence[int]]]


class _PieceTokenizer(Tokenizer):
    """A tokenizer of a library, which gets about `PIECE_BYTES` of text at a time."""

    def __init__(
        self,
        files: Mapping[str, bytes],
        own_ids: int,
        end: tuple[int | None, str],
        encode_start: _Encode,
        encode_middle: Sequence[_Encode],
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


def _continues(start: _Encode, middle: _Encode) -> bool:
    """Whether `middle` gives the ids, after a cut, that the whole text has there."""
    (whole,), (first,) = start(["one two three four"]), start(["one two"])
    (rest,) = middle([" three four"])
    return list(whole) == [*first, *rest]


def _pieces(texts: pa.LargeStringArray) -> Iterator[_Piece]:
    offsets, data = _text_buffers(texts)
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


class _HuggingFaceTokenizer(_PieceTokenizer):
    """What the library `tokenizers` runs: a `tokenizer.json`, or a vocabulary with merges."""

    def __init__(
        self,
        kind: str,
        files: Mapping[str, bytes],
        tokenizer: tokenizers.Tokenizer,
        middle: tokenizers.Tokenizer,
        end: "_End",
        *,
        is_byte_level: bool,
    ) -> None:
        self.kind = kind
        self._tokenizer = tokenizer
        self._vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self._added = {
            token: added.content for token, added in tokenizer.get_added_tokens_decoder().items()
        }
        self._is_byte_level = is_byte_level
        super().__init__(
            files,
            max(self._vocabulary.values()) + 1,
            end.resolve(self._vocabulary.get, self._well_known_end),
            _encoder(tokenizer),
            [_encoder(middle)],
        )

    def _well_known_end(self) -> tuple[int | None, str]:
        for name in _END_NAMES:
            if name in self._vocabulary:
                return self._vocabulary[name], name
        return None, NEW_END

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def _token_text(self, token: int) -> str:
        if token in self._added:
            return self._added[token]
        entry = self._tokenizer.id_to_token(token)
        if entry is None:
            return f"<unused {token}>"
        if self._is_byte_level:
            return _show_bytes(b"".join(_BYTE_OF.get(c) or c.encode() for c in entry))
        return _show_entry(entry)


def _encoder(tokenizer: tokenizers.Tokenizer) -> _Encode:
    def encode(texts: list[str]) -> Sequence[Sequence[int]]:
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

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


def _load_hugging_face(files: Mapping[str, bytes], end: "_End") -> Tokenizer:
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
    return _HuggingFaceTokenizer(
        "huggingface", files, tokenizer, continued, end, is_byte_level=is_byte_level
    )


def _load_bpe(files: Mapping[str, bytes], end: "_End") -> Tokenizer:
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
    return _HuggingFaceTokenizer("bpe", files, tokenizer, tokenizer, end, is_byte_level=True)


def _byte_characters() -> dict[str, bytes]:
    """GPT-2's letters for bytes: printable Latin-1 stands for itself, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): bytes([byte]) for byte in printable}
    return letters | {chr(0x100 + i): bytes([byte]) for i, byte in enumerate(others)}


_BYTE_OF = _byte_characters()


def _show_entry(entry: str) -> str:
    """The text of a vocabulary entry that isn't byte-level."""
    byte = _BYTE_TOKEN.fullmatch(entry)
    return _show_bytes(bytes.fromhex(byte[1])) if byte else entry.replace("▁", " ")


class _SentencePieceTokenizer(_PieceTokenizer):
    """A SentencePiece model."""

    kind = "sentencepiece"

    def __init__(self, files: Mapping[str, bytes], end: "_End") -> None:
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
            self._model.encode,
            [model.encode for model in middle],
        )

    def _find(self, text: str) -> int | None:
        token = self._model.piece_to_id(text)
        return token if self._model.id_to_piece(token) == text else None

    def _own_end(self) -> tuple[int | None, str]:
        token = self._model.eos_id()
        return (None, NEW_END) if token < 0 else (token, self._model.id_to_piece(token))

    def _decode(self, ids: list[int]) -> str:
        return str(self._model.decode(ids))

    def _token_text(self, token: int) -> str:
        return _show_entry(self._model.id_to_piece(token))


# --- loading -------------------------------------------------------------------------------------


class _End:
    """Which token ends documents: as asked for, as recorded in a folder, or the usual one."""

    def __init__(self, wanted: str | None, marker: dict[str, Any] | None) -> None:
        self._wanted = wanted
        self._marker = marker

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


def _load_bytes(files: Mapping[str, bytes], end: _End) -> Tokenizer:
    return _ByteTokenizer(files, 256, *end.resolve({NEW_END: 256}.get, lambda: (256, NEW_END)))


_LOADERS: dict[tuple[str, ...], Callable[[Mapping[str, bytes], _End], Tokenizer]] = {
    (): _load_bytes,
    ("tokenizer.json",): _load_hugging_face,
    ("merges.txt", "vocab.json"): _load_bpe,
    ("tokenizer.model",): _SentencePieceTokenizer,
}


def _read_files(spec: str) -> dict[str, bytes]:
    """The files that define a tokenizer, under the names that `Tokenizer.files` has."""
    if spec == "bytes":
        return {}
    try:
        fs, path = storage.filesystem(spec)
        if fs.isdir(path):
            return _read_folder(spec)
        if "," in spec and not fs.exists(path):
            vocabulary, _, merges = spec.partition(",")
            return {
                "vocab.json": storage.read_bytes(vocabulary),
                "merges.txt": storage.read_bytes(merges),
            }
        data = storage.read_bytes(spec)
    except OSError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"cannot read tokenizer {spec!r}: {reason}; {_ACCEPTED}") from error
    return {_name_by_content(data): data}


def _name_by_content(data: bytes) -> str:
    return "tokenizer.json" if data.lstrip()[:1] == b"{" else "tokenizer.model"


def _read_folder(folder: str) -> dict[str, bytes]:
    names = storage.list_names(folder)
    models = [name for name in names if name.endswith(".model")]
    model = "tokenizer.model" if "tokenizer.model" in models or len(models) != 1 else models[0]
    for choice in (["tokenizer.json"], [model], ["vocab.json", "merges.txt"], [MARKER]):
        if set(choice) <= set(names):
            found = {name: storage.read_bytes(storage.join(folder, name)) for name in choice}
            if model in found:
                found = {"tokenizer.model": found[model]}
            if MARKER in names:
                found[MARKER] = storage.read_bytes(storage.join(folder, MARKER))
            return found
    raise UsageError(
        f"tokenizer folder {folder!r} has no tokenizer.json, no single .model, no vocab.json with"
        f" merges.txt; {_ACCEPTED}"
    )
