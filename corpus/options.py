"""Options, each declared once: a field of a dataclass, of which a command line is made.

@dataclass(frozen=True)
class CountJob:
    tokens: str = option("a tokens dataset", metavar="DIR")
    max_order: int = option("tokens in the longest context", 3)

`corpusmill.commands.arguments` makes `--tokens DIR` and `--max-order N` of it, with the same types,
defaults and explanations.
"""

import dataclasses
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from corpusmill.corpus.errors import UsageError

FOLDER = "DIR"
FILE = "FILE"
_KEY = "option"
# Of a value that is wrong.
_SHOWN = 60


@dataclass(frozen=True)
class Option:
    """What a field is to somebody who types.

    Attributes:
      help: what it is, or is for.
      name: on the command line, where it isn't the field's.
      metavar: what stands for its value; `FOLDER` or `FILE` for what a path or URL leads to.
      choices: the values that are accepted.
      least: the least number that is accepted.
      most: the largest one.
      read: makes the value of the text, or raises ValueError, where the type doesn't say how.
    """

    help: str
    name: str | None
    metavar: str | None
    choices: Collection[Any] | None
    least: float | None
    most: float | None
    read: Callable[[str], Any] | None


def option(
    help: str,  # noqa: A002  (argparse calls it so)
    default: Any = dataclasses.MISSING,
    *,
    name: str | None = None,
    metavar: str | None = None,
    choices: Collection[Any] | None = None,
    least: float | None = None,
    most: float | None = None,
    read: Callable[[str], Any] | None = None,
) -> Any:
    """A field that is an option, required where it has no default; see `Option`."""
    declared = Option(help, name, metavar, choices, least, most, read)
    return dataclasses.field(default=default, metadata={_KEY: declared})


def declared(options: type[Any]) -> dict[str, tuple["dataclasses.Field[Any]", Option]]:
    """The fields of a dataclass that are options, by the field's name."""
    return {
        each.name: (each, each.metadata[_KEY])
        for each in dataclasses.fields(options)
        if _KEY in each.metadata
    }


def flag(options: type[Any], name: str) -> str:
    """What is typed for a field, such as `--max-order`."""
    return "--" + (declared(options)[name][1].name or name.replace("_", "-"))


def check(options: Any) -> None:
    """Checks the values of a dataclass of options; None is accepted where it's the default.

    Raises:
      UsageError: a value isn't among its option's choices, or is out of its range.
    """
    for name, (field, option) in declared(type(options)).items():
        value = getattr(options, name)
        if value is None and field.default is None:
            continue
        typed = flag(type(options), name)
        if option.choices is not None and value not in option.choices:
            accepted = ", ".join(map(str, option.choices))
            raise UsageError(f"{typed} {value!r}: there are {accepted}")
        # Written so that a NaN is refused.
        if option.least is not None and not option.least <= value < math.inf:
            raise UsageError(f"{typed} {value} is not a number of at least {option.least}")
        if option.most is not None and value > option.most:
            raise UsageError(f"{typed} {value} is more than {option.most:,}, the most")


def share(text: str) -> float:
    """Reads a value such as `0.1%` or `0.001`."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r} is not a share such as 0.1% or 0.001")
    return value


def integer(text: str) -> int:
    """Reads a whole number of 64 bits, with a sign, as everything that counts has it."""
    value = _parsed(text)
    if value is None:
        raise ValueError(f"{text[:_SHOWN]!r} is not a whole number of 64 bits")
    return value


def positive_integer(text: str) -> int:
    """Reads a whole number of 64 bits above zero."""
    value = _parsed(text)
    if value is None or value < 1:
        raise ValueError(f"{text[:_SHOWN]!r} is not a whole number above 0")
    return value


def positive_number(text: str) -> float:
    """Reads a number above zero, such as `0.5`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{text!r} is not a number above 0")
    return value


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Reads a whole number from `least` to `most`."""

    def read(text: str) -> int:
        value = _parsed(text)
        if value is None or not least <= value <= most:
            raise ValueError(f"{text[:_SHOWN]!r} is not a whole number from {least} to {most}")
        return value

    return read


def _parsed(text: str) -> int | None:
    try:
        value = int(text)
    except ValueError:
        return None
    return value if -(1 << 63) <= value < 1 << 63 else None
