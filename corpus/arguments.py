"""Parsers of command lines, for every command."""

import argparse
from typing import NoReturn

from corpus.errors import UsageError

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


def share(text: str) -> float:
    """An argument such as `0.1%` or `0.001`."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 0.1% or 0.001")
    return value


def positive(text: str) -> int:
    """A whole number above zero."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
