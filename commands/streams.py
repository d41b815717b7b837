"""Standard input to standard output."""

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from corpusmill.commands.arguments import Parser

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
