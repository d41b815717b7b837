"""The library `fastokens`: byte-pair encoding, tens of times faster than others.

It has not been proven to give the ids of `tokenizers` for every definition, so nothing relies on it
before `corpusmill.corpus.tokenizers.certify` has compared the two.
"""

import functools
import os
from collections import Counter
from typing import Any

import numpy as np
import orjson

from corpusmill.corpus.errors import DataError, one_line
from corpusmill.corpus.tokenizers.backends import (
    Backend,
    Encode,
    Ids,
    Lengths,
    UnsupportedError,
    make_backend,
)
from corpusmill.corpus.tokenizers.tokenizer import BACKEND_VARIABLE, REFERENCE

LIBRARY = "fastokens"
# A worker is one process on one core; threads that wait for work would spin.
os.environ.setdefault("FASTOKENS_BPE_THREADS", "1")


def fast_backend(definition: str, continued: str) -> Backend:
    """A backend of `fastokens`.

    Args:
      definition: a `tokenizer.json`.
      continued: one for what follows a cut; may be the same.

    Raises:
      UnsupportedError: the package isn't there, or doesn't take the definition, or the definition
        has what it has been seen to get wrong in silence.
    """
    start = _encoder(definition)
    if continued == definition:
        return make_backend(LIBRARY, start)
    return make_backend(LIBRARY, start, _encoder(continued))


def _encoder(definition: str) -> Encode:
    try:
        # Not every platform has it.
        import fastokens
    except ImportError as error:
        raise UnsupportedError(f"the package {LIBRARY} is not installed here") from error
    config = orjson.loads(definition)
    _refuse_contradictions(config)
    # What adds to a text or cuts it.
    config |= {"post_processor": None, "padding": None, "truncation": None}
    try:
        tokenizer = fastokens.Tokenizer.from_json_str(orjson.dumps(config).decode())
    # It isn't written in Python: it raises bare exceptions, and panics.
    except BaseException as error:
        if not isinstance(error, Exception) and not _is_panic(error):
            raise
        raise UnsupportedError(f"{LIBRARY} does not take it: {one_line(error)}") from error
    return functools.partial(_encode, tokenizer)


def _encode(tokenizer: Any, texts: list[str]) -> tuple[Ids, Lengths]:
    try:
        # What looks like a special token in a text is text.
        ids, offsets = tokenizer.encode_batch_flat(texts, split_special_tokens=True)
    except BaseException as error:
        if not isinstance(error, Exception) and not _is_panic(error):
            raise
        raise DataError(
            f"{LIBRARY} fails: {one_line(error)}; set {BACKEND_VARIABLE}={REFERENCE}"
        ) from error
    bounds = np.frombuffer(offsets, np.int64)
    return np.frombuffer(ids, np.uint32), bounds[1:] - bounds[:-1]


def _is_panic(error: BaseException) -> bool:
    """Whether it is what a library in Rust raises where it panics, which is no Exception."""
    return type(error).__name__ == "PanicException"


def _refuse_contradictions(config: dict[str, Any]) -> None:
    """Added tokens that say other ids than the vocabulary are silently read in another way."""
    added = config.get("added_tokens") or []
    vocabulary = config["model"].get("vocab")
    if not isinstance(vocabulary, dict):
        return
    entries = {token: text for text, token in vocabulary.items()}
    repeated = Counter(token[key] for token in added for key in ("id", "content"))
    for token in added:
        number, text = token["id"], token["content"]
        if (
            vocabulary.get(text, number) != number
            or entries.get(number, text) != text
            or repeated[number] > 1
            or repeated[text] > 1
        ):
            raise UnsupportedError(f"its added token {text!r} contradicts its vocabulary")
