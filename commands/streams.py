"""Standard input to standard output."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from corpusmill.commands.arguments import Parser
from corpusmill.pipelines.launching.options import RunOptions

# One id may stand for thousands of bytes, so that this bounds the memory.
_CHUNK = 1 << 16


def pipe(transform: Callable[[Iterator[bytes]], Iterable[bytes]]) -> None:
    """Writes to standard output what `transform` makes of standard input, as it comes."""
    for piece in transform(iter(partial(sys.stdin.buffer.read, _CHUNK), b"")):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def add_stdin_option(parser: Parser) -> None:
    """`--stdin` of commands that are pipes, too."""
    parser.add_argument(
        "--stdin", action="store_true", help="read standard input, write to standard output"
    )


def refuse_other_options(
    parser: Parser, arguments: argparse.Namespace, run: RunOptions, *taken: str
) -> None:
    """Raises UsageError where an option is given that `--stdin` has no use for.

    Args:
      parser: of the command.
      arguments: parsed.
      run: parsed, too; a stream is no job.
      taken: the options, less `--`, that are of use.
    """
    others = {
        action.option_strings[0]
        for action in parser._actions
        if action.dest not in ("help", "stdin", *taken)
        and getattr(arguments, action.dest) != action.default
    }
    others.update(run.beam_arguments[:1])
    if others:
        parser.error(f"--stdin goes with --{' and --'.join(taken)} only, not {min(others)}")
