"""Which codec a command uses: its options `--codec`, `--codebook` and so on."""

import argparse

from compress.codebook import PARSES, Codebook
from compress.codecs import BASELINES, CodebookCodec, Codec
from corpus.arguments import Parser
from corpus.errors import UsageError


def add_codec_arguments(parser: Parser) -> None:
    """The options that `chosen_codec` reads."""
    add = parser.add_argument
    add("--codebook", metavar="FILE", help="path or URL of the codebook")
    add(
        "--parse",
        choices=PARSES,
        help="how a codebook cuts text into strings (default: as it was fitted for)",
    )
    add(
        "--codec",
        choices=[CodebookCodec.kind, *BASELINES],
        default=CodebookCodec.kind,
        help="what makes the ids: a codebook, or one of the baselines",
    )


def chosen_codec(arguments: argparse.Namespace) -> Codec:
    """The codec that the options name; raises UsageError where they don't fit each other."""
    if arguments.codec == CodebookCodec.kind:
        if arguments.codebook is None:
            raise UsageError("--codec codebook needs a codebook: give --codebook FILE")
        return CodebookCodec(Codebook.open(arguments.codebook), arguments.parse)
    if arguments.codebook is not None:
        raise UsageError(f"--codebook is for --codec codebook only, not {arguments.codec}")
    return BASELINES[arguments.codec]()
