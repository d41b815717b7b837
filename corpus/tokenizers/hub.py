"""Tokenizers as the files that Hugging Face's libraries open."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import tokenizers

from corpusmill.corpus.tokenizers.awkward_texts import awkward_texts
from corpusmill.corpus.tokenizers.backends import UnsupportedError

# Characters of a text that is compared: a codebook's longest strings are looked for in all of it.
_COMPARED = 100


class Special(NamedTuple):
    """An id that no text has, and how it is shown."""

    token: int
    text: str


def tokenizer_files(
    definition: Mapping[str, Any],
    encode: Callable[[str], Sequence[int]],
    start: Special | None = None,
    end: Special | None = None,
    length: int | None = None,
) -> dict[str, bytes]:
    """The files of a tokenizer, by name.

    Args:
      definition: the contents of its `tokenizer.json`.
      encode: gives the ids that a text must have, without start and end; compared on awkward ones.
      start: what stands before each text.
      end: what a model ends texts with.
      length: of the longest sequences.

    Raises:
      UnsupportedError: the library gives texts other ids.
    """
    special = [each for each in (start, end) if each is not None]
    definition = with_special({**definition, "post_processor": _begins_with(start)}, special)
    _compare(definition, encode, special)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        # A text that looks like a special token is a text.
        "split_special_tokens": True,
        **({} if start is None else {"bos_token": start.text, "pad_token": start.text}),
        **({} if end is None else {"eos_token": end.text}),
        **({} if length is None else {"model_max_length": length}),
    }
    return {
        "tokenizer.json": json.dumps(definition, ensure_ascii=False).encode(),
        "tokenizer_config.json": json.dumps(config, indent=1, ensure_ascii=False).encode(),
    }


def _begins_with(start: Special | None) -> dict[str, Any] | None:
    """A post-processor that puts a token before each text."""
    if start is None:
        return None
    token = {"SpecialToken": {"id": start.text, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [token, first],
        "pair": [token, first, token, second],
        "special_tokens": {
            start.text: {"id": start.text, "ids": [start.token], "tokens": [start.text]}
        },
    }


def with_special(definition: Mapping[str, Any], special: Iterable[Special]) -> dict[str, Any]:
    """The contents of a `tokenizer.json` that has these ids, too."""
    added = {each["id"]: each for each in definition.get("added_tokens") or []}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for token, text in special:
        added.setdefault(token, {"id": token, "content": text, "special": True, **plain})
    return {**definition, "added_tokens": [added[token] for token in sorted(added)]}


def _compare(
    definition: dict[str, Any],
    encode: Callable[[str], Sequence[int]],
    special: list[Special],
) -> None:
    try:
        library = tokenizers.Tokenizer.from_str(json.dumps(definition))
    # The library, which is not written in Python, raises bare exceptions.
    except Exception as error:
        raise UnsupportedError(f"tokenizers doesn't take it: {error}") from error
    library.encode_special_tokens = True
    for token, text in special:
        if library.token_to_id(text) != token:
            raise UnsupportedError(f"tokenizers has another id for {text!r} than {token}")
    texts = [text[:_COMPARED] for text in awkward_texts()]
    found = library.encode_batch_fast(texts, add_special_tokens=False)
    for text, theirs in zip(texts, found, strict=True):
        if theirs.ids != list(encode(text)):
            raise UnsupportedError(f"tokenizers has other ids for {text[:40]!r}")
