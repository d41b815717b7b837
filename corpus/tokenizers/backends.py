"""What encodes texts for a tokenizer, and how two ways to do it are compared."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.integer[Any]]
Lengths = npt.NDArray[np.int64]
Encode = Callable[[list[str]], tuple[Ids, Lengths]]
"""Gives the ids of texts one after the other, and how many each text has."""


class UnsupportedError(Exception):
    """Why a library isn't used for a tokenizer, or can't be told of it."""


@dataclass(frozen=True)
class Backend:
    """A library that encodes texts.

    Attributes:
      name: its name and version.
      start: encodes texts.
      middle: encodes what follows a cut in a text.
    """

    name: str
    start: Encode
    middle: Encode


def make_backend(library: str, start: Encode, *middle: Encode) -> Backend:
    """A backend of an installed library.

    Args:
      library: the package's name.
      start: encodes texts.
      middle: ways to encode what follows a cut; the first that gives the ids there that the whole
        text has is taken, else `start`.
    """
    fitting = (way for way in middle if _continues(start, way))
    return Backend(f"{library} {version(library)}", start, next(fitting, start))


def flat(lists: Sequence[Sequence[int]]) -> tuple[Ids, Lengths]:
    """What an `Encode` returns, from a list of ids a text."""
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    return np.fromiter(itertools.chain.from_iterable(lists), np.int64, lengths.sum()), lengths


def first_difference(one: Encode, other: Encode, texts: Sequence[str]) -> str | None:
    """The first text that two ways to encode give different ids; None where there is none."""
    (ids, lengths), (other_ids, other_lengths) = one(list(texts)), other(list(texts))
    if np.array_equal(lengths, other_lengths) and np.array_equal(ids, other_ids):
        return None
    pairs = zip(
        np.split(ids, np.cumsum(lengths)[:-1]),
        np.split(other_ids, np.cumsum(other_lengths)[:-1]),
        strict=True,
    )
    return next(text for text, pair in zip(texts, pairs, strict=True) if not np.array_equal(*pair))


def _continues(start: Encode, middle: Encode) -> bool:
    """Whether `middle` gives the ids, after a cut, that the whole text has there."""
    whole, first = start(["one two three four"])[0], start(["one two"])[0]
    rest = middle([" three four"])[0]
    return np.array_equal(whole, np.concatenate([first, rest]))
