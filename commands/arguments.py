"""Parsers of command lines, for every command."""

import argparse
import difflib
import math
from collections.abc import Callable, Collection, Sequence
from typing import NoReturn

from corpusmill.corpus import storage
from corpusmill.corpus.errors import UsageError

# Of an argument that is wrong.
_SHOWN = 60
_EXAMPLE = "example:\n  "


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults that say something, and examples as they are typed."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        says_nothing = action.default is None or action.default is False
        if says_nothing or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(_EXAMPLE):
            return text
        return super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """Reports a bad command line as a UsageError of one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see '{self.prog} --help')")


def make_parser(command: str, summary: str, example: str) -> Parser:
    """A parser whose help shows defaults and an example."""
    return Parser(
        prog=f"corpusmill {command}",
        description=summary,
        epilog=_EXAMPLE + example,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )


def parse_known(
    parser: Parser, argv: Sequence[str], others: Callable[[], Collection[str]] = tuple
) -> tuple[argparse.Namespace, list[str]]:
    """Parses a command line that may also have options of somebody else.

    Args:
      parser: of the command's own options.
      argv: the command line.
      others: gives the names of the options that are not the parser's, and may stand there all the
        same; asked only where there are such.

    Returns:
      The command's own options, and what is left for others.

    Raises:
      UsageError: an option is missing, bad or unknown, which names the nearest one.
    """
    for argument in argv:
        # Python's parser takes it for a list.
        if argument.startswith("--") and argument.endswith("=--"):
            raise UsageError(f"{argument.removesuffix('=--')} has no value")
    own = [name for action in parser._actions for name in action.option_strings]
    given = [argument for argument in argv if argument.startswith("--")]
    known = own
    if any(argument.partition("=")[0] not in own for argument in given):
        known = [*own, *sorted(others())]
    # First, because a misspelt option is often also one that is missing.
    _refuse_unknown(given, known)
    arguments, rest = parser.parse_known_args(argv)
    _refuse_unknown(rest, known)
    return arguments, rest


def _refuse_unknown(arguments: Sequence[str], known: Sequence[str]) -> None:
    for argument in arguments:
        name = argument.partition("=")[0]
        if name.startswith("-") and name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise UsageError(f"unknown option {name}{hint}")
    if arguments and not arguments[0].startswith("-"):
        raise UsageError(f"unexpected argument {arguments[0]!r}")


def location(text: str) -> str:
    """A path or URL; a path means the folder in which the command is typed, on all workers too.

    Raises:
      UsageError: nothing can open it.
    """
    return storage.absolute(text)


def add_folder(
    parser: argparse._ActionsContainer, name: str, what: str, *, required: bool = True
) -> None:
    """An option that names a folder or URL, of `what`."""
    parser.add_argument(
        name, required=required, type=location, metavar="DIR", help=f"folder or URL of {what}"
    )


def share(text: str) -> float:
    """An argument such as `0.1%` or `0.001`."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 0.1% or 0.001")
    return value


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Reads an argument from `least` to `most`."""

    def read(text: str) -> int:
        value = _parsed(text)
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"{text[:_SHOWN]!r} is not a whole number from {least} to {most}"
            )
        return value

    return read


def positive_number(text: str) -> float:
    """A number above zero, such as `0.5`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def integer(text: str) -> int:
    """A whole number of 64 bits, with a sign, as everything that counts has it."""
    value = _parsed(text)
    if value is None:
        raise argparse.ArgumentTypeError(f"{text[:_SHOWN]!r} is not a whole number of 64 bits")
    return value


def positive(text: str) -> int:
    """A whole number of 64 bits above zero."""
    value = _parsed(text)
    if value is None or value < 1:
        raise argparse.ArgumentTypeError(f"{text[:_SHOWN]!r} is not a whole number above 0")
    return value


def _parsed(text: str) -> int | None:
    try:
        value = int(text)
    except ValueError:
        return None
    return value if -(1 << 63) <= value < 1 << 63 else None
