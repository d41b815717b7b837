"""Parsers of command lines, for every command."""

import argparse
import dataclasses
import difflib
import itertools
import types
import typing
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn, TypeVar

from corpusmill.corpus import storage
from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.options import (
    FILE,
    FOLDER,
    Option,
    declared,
    flag,
    integer,
    positive_integer,
)

Options = TypeVar("Options")
Value = TypeVar("Value")

_EXAMPLE = "example:\n  "


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults that say something, and examples as they are typed."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        says_nothing = action.default is None or action.default is False or action.default == []
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
    given = _options(argv)
    for argument in given:
        name, _, value = argument.partition("=")
        if value == "--":  # Python's parser takes it for a list
            raise UsageError(f"{name} has no value")
    own = [name for action in parser._actions for name in action.option_strings]
    known = own
    if any(argument.partition("=")[0] not in own for argument in given):
        known = [*own, *sorted(others())]
    # First, because a misspelt option is often also one that is missing.
    _refuse_unknown(given, known)
    arguments, rest = parser.parse_known_args(argv)
    _refuse_unknown(rest, known)
    return arguments, rest


def _options(argv: Sequence[str]) -> list[str]:
    """What Python's parser takes for options: neither text with spaces nor what follows `--`."""
    before = itertools.takewhile(lambda argument: argument != "--", argv)
    return [each for each in before if each.startswith("--") and " " not in each.partition("=")[0]]


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
        name, required=required, type=location, metavar=FOLDER, help=f"folder or URL of {what}"
    )


def add_options(
    parser: argparse._ActionsContainer, options: type[Any], *fields: str, **defaults: Any
) -> None:
    """Adds options to a command line.

    Args:
      parser: of the command, or a group of it.
      options: the dataclass that declares them (`corpusmill.corpus.options`).
      fields: which ones; by default all.
      defaults: for this command only, by the field's name; None makes an option optional.
    """
    annotations = typing.get_type_hints(options)
    known = declared(options)
    for name in fields or known:
        field, option = known[name]
        default = defaults.get(name, field.default)
        required = default is dataclasses.MISSING
        if isinstance(default, tuple):
            default = list(default)  # to which argparse adds
        parser.add_argument(
            flag(options, name),
            required=required,
            default=None if required else default,
            help=option.help.replace("%", "%%"),
            **_of_type(annotations[name], option),
        )


def parsed(options: type[Options], arguments: argparse.Namespace, **others: Any) -> Options:
    """The dataclass of what `add_options` added.

    Args:
      options: the dataclass.
      arguments: parsed; what stands there of its options.
      others: its other fields, or what else is to be taken for an option.
    """
    given = vars(arguments)
    places = {name: destination(options, name) for name in declared(options)}
    fields = {name: given[place] for name, place in places.items() if place in given}
    return options(**(fields | others))


def destination(options: type[Any], name: str) -> str:
    """Where the value of a field's option stands among parsed arguments."""
    return flag(options, name).removeprefix("--").replace("-", "_")


def reading(read: Callable[[str], Value]) -> Callable[[str], Value]:
    """A function that reads a text, as argparse wants it to fail."""

    def read_or_refuse(text: str) -> Value:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read_or_refuse


def _of_type(annotation: Any, option: Option) -> dict[str, Any]:
    """How argparse reads a value of a type, `| None` not counted."""
    if typing.get_origin(annotation) is types.UnionType:
        annotation = next(each for each in typing.get_args(annotation) if each is not type(None))
    if annotation is bool:
        return {"action": "store_true"}
    metavar: dict[str, Any] = {"metavar": option.metavar, "choices": option.choices}
    if option.read is not None:
        return metavar | {"type": reading(option.read)}
    if typing.get_origin(annotation) is tuple:
        of, more = typing.get_args(annotation)
        several = {"action": "append"} if more is ... else {"nargs": 2}
        return _of_type(of, option) | several
    if annotation is int:
        read = positive_integer if option.least == 1 else integer
        return metavar | {"type": reading(read), "metavar": option.metavar or "N"}
    if annotation is float:
        return metavar | {"type": float}
    return metavar | {"type": location if option.metavar in (FOLDER, FILE) else str}
