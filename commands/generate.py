"""`corpusmill generate`: what a model says."""

import sys
from collections.abc import Sequence

from corpusmill.commands.arguments import add_options, make_parser, parse_known, parsed
from corpusmill.trainer.options import GenerateOptions


def main(argv: Sequence[str]) -> None:
    """`corpusmill generate`"""
    parser = make_parser(
        "generate",
        "Goes on with a prompt, or begins a text, and prints it as it comes; for models of tokens"
        " and of compressed text.",
        'corpusmill generate --run run --prompt "The river" --top-p 0.9',
    )
    add_options(parser, GenerateOptions)
    options = parsed(GenerateOptions, parse_known(parser, argv)[0])
    # Not before: torch takes seconds.
    from corpusmill.trainer.generate import generate

    for piece in generate(options):
        sys.stdout.write(piece)
        sys.stdout.flush()
