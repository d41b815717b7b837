"""Tokenizers by path or URL."""

import json
from collections.abc import Callable, Mapping

from corpusmill.corpus import storage
from corpusmill.corpus.errors import DataError, UsageError, one_line
from corpusmill.corpus.tokenizers.certify import use_backend
from corpusmill.corpus.tokenizers.raw_bytes import ByteTokenizer
from corpusmill.corpus.tokenizers.tokenizer import MARKER, EndOfDocument, Tokenizer
from corpusmill.corpus.tokenizers.tokenizer_json import load_bpe, load_hugging_face

_ACCEPTED = (
    "accepted are a tokenizer.json, a SentencePiece .model, VOCAB.json,MERGES.txt,"
    " a folder with one of these, or bytes"
)


def _load_sentence_piece(files: Mapping[str, bytes], end: EndOfDocument) -> Tokenizer:
    # Its libraries are for such models alone.
    from corpusmill.corpus.tokenizers.sentence_piece import SentencePieceTokenizer

    return SentencePieceTokenizer(files, end)


_LOADERS: dict[tuple[str, ...], Callable[[Mapping[str, bytes], EndOfDocument], Tokenizer]] = {
    (): ByteTokenizer,
    ("tokenizer.json",): load_hugging_face,
    ("merges.txt", "vocab.json"): load_bpe,
    ("tokenizer.model",): _load_sentence_piece,
}


def load_tokenizer(
    spec: str, end_of_document: str | None = None, backend: str | None = None
) -> Tokenizer:
    """Loads a tokenizer.

    Args:
      spec: `bytes`, or a path or URL of a `tokenizer.json` (Hugging Face), of a SentencePiece
        model, of `VOCAB.json,MERGES.txt` (byte-level BPE as GPT-2's), or of a folder with one of
        these or with the `files` of a tokenizer.
      end_of_document: text of the vocabulary's token that ends documents. By default the one
        recorded in the folder, else the first well-known one that the vocabulary has, else a new
        id behind the vocabulary.
      backend: what encodes texts, the `backend` of another tokenizer with these files; by default
        the reference. `use_fastest` finds a faster one.

    Raises:
      UsageError: there is no such tokenizer, or its vocabulary has no such token, or text becomes
        it, too.
      CorpusmillError: the backend isn't here.
    """
    tokenizer = _load(dict(_read_files(spec)), spec, end_of_document)
    if end_of_document is not None:
        _expect_no_text(tokenizer, end_of_document)
    if backend is not None:
        use_backend(tokenizer, backend)
    return tokenizer


def _expect_no_text(tokenizer: Tokenizer, end_of_document: str) -> None:
    try:
        tokenizer.encode(end_of_document)
    except DataError as error:
        raise UsageError(
            f"end-of-document token {end_of_document!r} is what a document's text"
            f" {end_of_document!r} becomes, too; name one that no text becomes, or leave it out"
        ) from error


def restore_tokenizer(files: Mapping[str, bytes], backend: str | None) -> Tokenizer:
    """The tokenizer that has these `files`, as `load_tokenizer` gives it from a folder."""
    tokenizer = _load(dict(files), "with these files", None)
    if backend is not None:
        use_backend(tokenizer, backend)
    return tokenizer


def _load(files: dict[str, bytes], spec: str, end_of_document: str | None) -> Tokenizer:
    marker = files.pop(MARKER, None)
    load = _LOADERS.get(tuple(sorted(files)))
    if load is None:
        raise UsageError(f"tokenizer {spec!r} is not understood; {_ACCEPTED}")
    try:
        end = EndOfDocument(end_of_document, None if marker is None else json.loads(marker))
        return load(files, end)
    except UsageError:
        raise
    # The libraries, which are not written in Python, raise bare exceptions.
    except Exception as error:
        raise _refusal("load", spec, error) from error


def _refusal(what: str, spec: str, error: Exception) -> UsageError:
    return UsageError(f"cannot {what} tokenizer {spec!r}: {one_line(error)}; {_ACCEPTED}")


def _read_files(spec: str) -> dict[str, bytes]:
    """The files that define a tokenizer, under the names that `Tokenizer.files` has."""
    if spec == "bytes":
        return {}
    try:
        if storage.is_folder(spec):
            return _read_folder(spec)
        if "," in spec and not storage.exists(spec):
            vocabulary, _, merges = spec.partition(",")
            return {
                "vocab.json": storage.read_bytes(vocabulary),
                "merges.txt": storage.read_bytes(merges),
            }
        data = storage.read_bytes(spec)
    except FileNotFoundError as error:
        raise UsageError(
            f"tokenizer {spec!r} is no file or folder; names of a hub are not looked up, so"
            f" download its files first: {_ACCEPTED}"
        ) from error
    except OSError as error:
        raise _refusal("read", spec, error) from error
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
