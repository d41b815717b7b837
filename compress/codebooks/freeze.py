"""Text, or a byte model, frozen into codebooks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from corpusmill.compress.byte_models import ByteModel, WindowStartsModel
from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.compress.codebooks.codebook import (
    BOUNDARIES,
    MAX_WINDOW_BITS,
    MIN_WINDOW_BITS,
    PARSES,
    Codebook,
    check_parse,
)
from corpusmill.compress.codebooks.expansion import expand_coder, expand_optimal, most_probable
from corpusmill.compress.codebooks.freeze_checkpoint import Columns, FreezeCheckpoint
from corpusmill.compress.codebooks.string_worth import most_worth
from corpusmill.compress.codebooks.trie import Trie
from corpusmill.compress.codebooks.used_strings import ROUNDS, Fitting
from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.options import option, whole_number

ALLOCATIONS = ("coder", "optimal", "used")
# More of them change the number of ids by 0.2%, now up, now down (docs/codebooks.md).
_ROUNDS = 6
# What strings save is known only for codebooks that are much alike: the first rounds go without it.
_ROUNDS_BY_PROBABILITY = 2
# Strings are chosen among 2^_CANDIDATE_BITS times as many, where a double array can have them.
_CANDIDATE_BITS = 1
# Strings of several words make text short and hard to predict: docs/codebooks.md has the figures.
_PHRASE_PRICE, _MAX_PHRASE_PRICE = 4, 1000
# A prefix that begins fewer windows than one in 2^(window_bits + _RARE_BITS) is in no codebook.
_RARE_BITS = 2


@dataclass(frozen=True)
class FreezeOptions:
    """What a codebook is made like.

    Raises:
      UsageError: an option is outside its range.
    """

    allocation: str = option(
        "strings that are taken: those that save most ids (used, the default), the most probable"
        " ones of a byte model (optimal, the default with a model), or the window code's",
        "used",
        choices=ALLOCATIONS,
    )
    window_bits: int = option(
        "bits of a code, 9 to 24: the codebook has 2^N strings",
        16,
        metavar="N",
        read=whole_number(MIN_WINDOW_BITS, MAX_WINDOW_BITS),
    )
    parse: str = option(
        "cut of the text that the strings are fitted for, with --tokens", "greedy", choices=PARSES
    )
    boundaries: str | None = option(
        "used: whether strings that go beyond a word begin and end with words (the default)",
        None,
        choices=BOUNDARIES,
    )
    phrase_price: int | None = option(
        "with words: a string of several words counts one Nth of what it saves; the higher, the"
        f" longer is text and the easier to predict (default: {_PHRASE_PRICE})",
        None,
        metavar="N",
        read=whole_number(1, _MAX_PHRASE_PRICE),
    )

    def __post_init__(self) -> None:
        if self.allocation not in ALLOCATIONS:
            raise UsageError(f"allocation {self.allocation!r} is none of {', '.join(ALLOCATIONS)}")
        check_parse(self.parse)
        if self.boundaries is None:
            usual = "words" if self.allocation == "used" else "none"
            object.__setattr__(self, "boundaries", usual)
        if self.boundaries not in BOUNDARIES:
            raise UsageError(f"boundaries {self.boundaries!r} is none of {', '.join(BOUNDARIES)}")
        if self.boundaries != "none" and self.allocation != "used":
            raise UsageError(
                f"boundaries {self.boundaries} is for the allocation used only, not"
                f" {self.allocation}"
            )
        if self.phrase_price is None and self.boundaries == "words":
            object.__setattr__(self, "phrase_price", _PHRASE_PRICE)
        if self.phrase_price is not None:
            if self.boundaries != "words":
                raise UsageError(
                    f"phrase-price {self.phrase_price} is for the boundaries words only, not"
                    f" {self.boundaries}"
                )
            if not 1 <= self.phrase_price <= _MAX_PHRASE_PRICE:
                raise UsageError(
                    f"phrase-price {self.phrase_price} is not between 1 and {_MAX_PHRASE_PRICE}"
                )
        if not MIN_WINDOW_BITS <= self.window_bits <= MAX_WINDOW_BITS:
            raise UsageError(
                f"window-bits {self.window_bits} is not between {MIN_WINDOW_BITS} and"
                f" {MAX_WINDOW_BITS}"
            )


def no_progress(_stage: str, _strings: int) -> None:
    """For those who don't want to be told."""


def freeze(
    model: ByteModel | None,
    options: FreezeOptions,
    made_of: Mapping[str, Any],
    text: ByteStrings | None = None,
    progress: Callable[[str, int], None] = no_progress,
    checkpoint: FreezeCheckpoint | None = None,
) -> Codebook:
    """Makes a codebook.

    Args:
      model: says how probable bytes are; None for `used`, which takes counts of the text itself.
      options: see there.
      made_of: what the codebook's description says; of `used` how it parses stands there too.
      text: documents. `used` needs them; `optimal` may have some: the model is fitted on the places
        where windows start in them, again and again, because other codebooks put them elsewhere.
      progress: is told a stage and how many more strings it has looked at, from time to time.
      checkpoint: where the work is saved after every stage and every minute, and where it goes on
        if something was saved before, with the same result. It is left there.

    Raises:
      UsageError: the options don't fit each other or the model.
    """
    if options.allocation == "coder" and text is not None:
        raise UsageError("the allocation coder is not fitted on text")
    keeper = _Stages(checkpoint)
    if options.allocation == "used":
        return _fit_used(model, options, made_of, text, progress, keeper)
    if model is None:
        raise UsageError(f"the allocation {options.allocation} needs a byte model")
    expand = expand_coder if options.allocation == "coder" else expand_optimal
    for stage in _stages(text)[keeper.complete :]:
        report = partial(progress, stage)
        if text is None or not keeper.complete:
            trie = expand(model, options.window_bits, report, keeper)
        else:
            book = Codebook.of(keeper.trie, made_of)
            trie = _fitted(model, book, text, options.parse, report, keeper)
        keeper.end_stage(trie)
    return Codebook.of(keeper.trie, made_of)


def _fit_used(
    model: ByteModel | None,
    options: FreezeOptions,
    made_of: Mapping[str, Any],
    text: ByteStrings | None,
    progress: Callable[[str, int], None],
    keeper: "_Stages",
) -> Codebook:
    if text is None:
        raise UsageError("the allocation used is fitted on text, and there is none")
    if model is not None:
        raise UsageError("the allocation used is made of text alone, not of a byte model")
    parse, boundaries = options.parse, str(options.boundaries)
    fitting = Fitting(text, 1 << options.window_bits, parse, boundaries, options.phrase_price)
    for number in range(keeper.complete, ROUNDS):
        trie = fitting.next_round(number, keeper.trie if number else None)
        progress(f"strings in use, round {number + 1} of {ROUNDS}", len(trie))
        keeper.end_stage(trie)
    return Codebook.of(keeper.trie, {**made_of, "parse": parse, "boundaries": boundaries})


def _fitted(
    model: ByteModel,
    book: Codebook,
    text: ByteStrings,
    parse: str,
    progress: Callable[[int], None],
    keeper: "_Stages",
) -> Trie:
    """The strings of the next round, given the codebook of the round before."""
    at_starts = window_starts_model(model, book, text, parse)
    if keeper.complete <= _ROUNDS_BY_PROBABILITY:
        return expand_optimal(at_starts, book.window_bits, progress, keeper)
    bits = min(book.window_bits + _CANDIDATE_BITS, MAX_WINDOW_BITS)
    candidates, probabilities = most_probable(at_starts, bits, progress, keeper)
    return most_worth(candidates, probabilities, book.vocab_size, book, text, parse)


def _stages(text: ByteStrings | None) -> list[str]:
    """What is done: one expansion after the other."""
    rounds = range(1, _ROUNDS + 1) if text is not None else ()
    return ["strings", *(f"fitted strings, round {number} of {_ROUNDS}" for number in rounds)]


class _Stages:
    """The keeper of the expansions of all stages, in a checkpoint if there is one.

    Attributes:
      complete: how many stages are.
      trie: the strings that the last of them found, none before there is one.
    """

    def __init__(self, checkpoint: FreezeCheckpoint | None) -> None:
        self._checkpoint = checkpoint
        self._found: Columns | None = None
        self.complete = 0
        self.trie = Trie(np.empty(0, np.int32), np.empty(0, np.uint8))
        saved = None if checkpoint is None else checkpoint.load()
        if saved is not None:
            columns = dict(saved)
            self.complete = int(columns.pop("complete"))
            names = ("trie_parents", "trie_bytes", "trie_ends")
            self.trie = Trie(*(columns.pop(name) for name in names if name in columns))
            self._found = columns or None

    def found(self) -> Columns | None:
        return self._found

    def is_due(self) -> bool:
        return self._checkpoint is not None and self._checkpoint.is_due()

    def keep(self, columns: Columns) -> None:
        """Saves how far the stage that isn't complete is."""
        if self._checkpoint is not None:
            stages = {
                "complete": np.array(self.complete),
                "trie_parents": self.trie.parents,
                "trie_bytes": self.trie.bytes,
            }
            if self.trie.ends is not None:
                stages["trie_ends"] = self.trie.ends
            self._checkpoint.save({**stages, **columns})

    def end_stage(self, trie: Trie) -> None:
        """Saves that a stage is complete."""
        self.complete += 1
        self.trie = trie
        self._found = None
        self.keep({})


def window_starts_model(
    model: ByteModel, book: Codebook, text: ByteStrings, parse: str
) -> WindowStartsModel:
    """The model fitted on where the windows of a codebook start in a text."""
    starts, ends = book.windows(text, parse)
    min_count = max(2, len(starts) >> (book.window_bits + _RARE_BITS))
    return WindowStartsModel.fit(model, text.data, starts, ends, min_count)
