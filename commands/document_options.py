"""Which documents a command reads: its options `--input`, `--text-field` and so on."""

import argparse

from corpusmill.commands.arguments import Parser, add_options, parsed, reading
from corpusmill.corpus.inputs import ReadOptions
from corpusmill.corpus.options import positive_integer
from corpusmill.pipelines.documents import DocumentOptions

_MIB = 1 << 20


def add_document_options(parser: Parser) -> None:
    """The options of commands that read documents, but for `--input`."""
    group = parser.add_argument_group("documents")
    add_options(group, ReadOptions)
    group.add_argument(
        "--max-document-mib",
        type=reading(positive_integer),
        default=ReadOptions.max_document_bytes // _MIB,
        metavar="MIB",
        help="size beyond which documents are bad records",
    )
    add_options(group, DocumentOptions, "max_bad_records", "shard_mib")


def document_options(arguments: argparse.Namespace) -> DocumentOptions:
    """What `add_document_options` and `--input` say."""
    longest = arguments.max_document_mib * _MIB
    read = parsed(ReadOptions, arguments, max_document_bytes=longest)
    return parsed(DocumentOptions, arguments, input=tuple(arguments.input), read=read)
