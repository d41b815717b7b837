"""Counts of what coders and models do, for whoever wants to know."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar

_current: ContextVar[Counter[str] | None] = ContextVar("current", default=None)


@contextlib.contextmanager
def tally() -> Iterator[Counter[str]]:
    """Counts what this thread does in the block.

    Yields:
      Of documents that a model reads side by side (none for models that are tables):
      `lane_steps`: so many lanes there were in all steps together; `bytes_read`: in so many of
      them a byte was read; `model_starts`: so often the model was started afresh in a lane;
      `positions_computed`: so many positions a network has computed.
    """
    counts: Counter[str] = Counter()
    token = _current.set(counts)
    try:
        yield counts
    finally:
        _current.reset(token)


def count(what: str, amount: int) -> None:
    """Adds to the counts of the innermost block that this is called in, if there is one."""
    counts = _current.get()
    if counts is not None:
        counts[what] += amount
