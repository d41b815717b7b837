"""Byte models and window sizes, frozen into codebooks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from compress.byte_models import ByteModel, WindowStartsModel
from compress.byte_strings import ByteStrings
from compress.codebook import Codebook, check_parse
from compress.expansion import expand_coder, expand_optimal
from corpus.errors import UsageError

ALLOCATIONS = ("coder", "optimal")
MIN_WINDOW_BITS, MAX_WINDOW_BITS = 9, 24
# More of them change the number of ids by 0.1%, now up, now down (docs/codebooks.md).
_ROUNDS = 4
# A prefix that begins fewer windows than one in 2^(window_bits + _RARE_BITS) is in no codebook.
_RARE_BITS = 2


@dataclass(frozen=True)
class FreezeOptions:
    """What a codebook is made like.

    Attributes:
      allocation: `coder` (the window code of `compress.windows`) or `optimal` (the most probable
        strings at the starts of windows).
      window_bits: there are 2^window_bits codes.
      parse: `greedy` or `flexible`, how text is going to be cut: what `optimal` is fitted for.

    Raises:
      UsageError: an option is outside its range.
    """

    allocation: str = "optimal"
    window_bits: int = 16
    parse: str = "greedy"

    def __post_init__(self) -> None:
        if self.allocation not in ALLOCATIONS:
            raise UsageError(f"allocation {self.allocation!r} is none of {', '.join(ALLOCATIONS)}")
        check_parse(self.parse)
        if not MIN_WINDOW_BITS <= self.window_bits <= MAX_WINDOW_BITS:
            raise UsageError(
                f"window-bits {self.window_bits} is not between {MIN_WINDOW_BITS} and"
                f" {MAX_WINDOW_BITS}"
            )


def no_progress(_stage: str, _strings: int) -> None:
    """For those who don't want to be told."""


def freeze(
    model: ByteModel,
    options: FreezeOptions,
    made_of: Mapping[str, Any],
    text: ByteStrings | None = None,
    progress: Callable[[str, int], None] = no_progress,
) -> Codebook:
    """Makes a codebook.

    Args:
      model: says how probable bytes are.
      options: see there.
      made_of: what the codebook's description says.
      text: documents, for `optimal` only: the model is fitted on the places where windows start in
        them, again and again, because other codebooks put them elsewhere.
      progress: is told a stage and how many more strings it has looked at, from time to time.

    Raises:
      UsageError: the options don't fit each other or the model.
    """
    if options.allocation == "coder" and text is not None:
        raise UsageError("only the allocation optimal is fitted on text")
    expand = expand_coder if options.allocation == "coder" else expand_optimal
    book = Codebook.of(expand(model, options.window_bits, partial(progress, "strings")), made_of)
    if text is None:
        return book
    for number in range(_ROUNDS):
        at_starts = window_starts_model(model, book, text, options.parse)
        stage = f"fitted strings, round {number + 1} of {_ROUNDS}"
        trie = expand(at_starts, options.window_bits, partial(progress, stage))
        book = Codebook.of(trie, made_of)
    return book


def window_starts_model(
    model: ByteModel, book: Codebook, text: ByteStrings, parse: str
) -> WindowStartsModel:
    """The model fitted on where the windows of a codebook start in a text."""
    ids, offsets = book.encode_batch(text, parse)
    lengths = book.strings.lengths()[ids]
    starts = np.cumsum(lengths) - lengths + text.offsets[0]
    ends = np.repeat(text.offsets[1:], np.diff(offsets))
    min_count = max(2, len(starts) >> (book.window_bits + _RARE_BITS))
    return WindowStartsModel.fit(model, text.data, starts, ends, min_count)
