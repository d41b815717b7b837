"""Which library encodes: the fastest one that has shown the same ids as the reference.

The choice is made once, where a job is launched, and travels by name to all workers, so that they
are alike. It can't change what is written: the ids are those of the reference, which is compared on
awkward texts, on the tokenizer's own added tokens, on the beginning of the job's documents, and
while the job runs on a few documents of each shard.
"""

import os
from collections.abc import Iterable

from corpusmill.corpus.errors import CorpusmillError, DataError, UsageError
from corpusmill.corpus.tokenizers.awkward_texts import awkward_texts, in_contexts
from corpusmill.corpus.tokenizers.backends import Backend, UnsupportedError, first_difference
from corpusmill.corpus.tokenizers.pieces import PieceTokenizer
from corpusmill.corpus.tokenizers.tokenizer import BACKEND_VARIABLE, REFERENCE, Tokenizer

# Of a text that is encoded differently, in a message.
_SHOWN = 40
# Tokenizers can have thousands of added tokens.
_MOST_ADDED = 300


def use_fastest(tokenizer: Tokenizer, documents: Iterable[str]) -> str | None:
    """Makes a tokenizer encode by the fastest library that gives the ids of its reference.

    Args:
      tokenizer: what will encode.
      documents: texts like those that it will get.

    Returns:
      Why it stays with the reference; None where it doesn't, or has nothing else to choose.

    Raises:
      UsageError: the environment asks for a backend that there isn't.
    """
    wanted = os.environ.get(BACKEND_VARIABLE)
    if wanted not in (None, "", REFERENCE):
        raise UsageError(f"{BACKEND_VARIABLE}={wanted} is not understood; accepted is {REFERENCE}")
    if not isinstance(tokenizer, PieceTokenizer):
        return None
    if wanted == REFERENCE:
        return f"{BACKEND_VARIABLE} asks for it"
    try:
        tokenizer.use(_certified(tokenizer, documents))
    except (UnsupportedError, DataError) as error:
        return str(error)
    return None


def _certified(tokenizer: PieceTokenizer, documents: Iterable[str]) -> Backend:
    """The fast backend; raises UnsupportedError where it isn't the same."""
    backend = tokenizer.fast_backend()
    added = list(tokenizer.added_texts())
    texts = [*awkward_texts(), *in_contexts(_spread(added, _MOST_ADDED)), *documents]
    text = _first_difference(backend, tokenizer.reference, texts)
    if text is not None:
        raise UnsupportedError(f"{backend.name} has other ids for {text[:_SHOWN]!r}")
    return backend


def use_backend(tokenizer: Tokenizer, name: str) -> None:
    """Makes a tokenizer encode as the one did that was certified at the job's launch.

    Raises:
      CorpusmillError: this process has not the library, or not that version.
    """
    if name == tokenizer.backend:
        return
    here = tokenizer.backend
    if isinstance(tokenizer, PieceTokenizer):
        try:
            backend = tokenizer.fast_backend()
        except UnsupportedError as error:
            raise CorpusmillError(f"the job encodes by {name}, but here {error}") from error
        here = backend.name
        if name == here:
            tokenizer.use(backend)
            return
    raise CorpusmillError(
        f"the job encodes by {name}, but this worker has {here}: install the same versions on all"
    )


def _first_difference(one: Backend, other: Backend, texts: list[str]) -> str | None:
    text = first_difference(one.start, other.start, texts)
    if text is None and (one.start, other.start) != (one.middle, other.middle):
        text = first_difference(one.middle, other.middle, texts)
    return text


def _spread(items: list[str], most: int) -> list[str]:
    return items[:: -(-len(items) // most) or 1]
