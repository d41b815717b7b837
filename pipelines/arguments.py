"""Parsers of command lines, without Beam."""

import argparse
from typing import NoReturn

from corpus.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Reports a bad command line as a UsageError of one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see '{self.prog} --help')")


def make_parser(command: str, summary: str, example: str) -> Parser:
    """A parser whose help shows defaults and an example."""
    return Parser(
        prog=f"corpusmill {command}",
        description=summary,
        epilog=f"example: {example}",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
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
