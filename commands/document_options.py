"""Which documents a command reads: its options `--input`, `--text-field` and so on."""

import argparse

from corpusmill.commands.arguments import Parser, positive, share
from corpusmill.corpus.inputs import INPUT_FORMATS, TEXT_UNITS, ReadOptions
from corpusmill.pipelines.documents import DocumentOptions

_MIB = 1 << 20


def add_input_argument(parser: Parser, *, required: bool = True) -> None:
    """`--input` of commands that read documents."""
    parser.add_argument(
        "--input",
        action="append",
        required=required,
        metavar="GLOB",
        help="files, a glob, a folder, a URL or hf:NAME; may be repeated",
    )


def add_document_arguments(parser: Parser) -> None:
    """The options of commands that read documents, but for `--input`."""
    add = parser.add_argument
    add("--text-field", default="text", help="field or column with the text")
    add("--id-field", help="field or column with the document id (default: file and offset)")
    add("--input-format", default="auto", choices=INPUT_FORMATS, help="what the input files are")
    add("--text-unit", default="line", choices=TEXT_UNITS, help="what is a document in text files")
    add(
        "--max-bad-records",
        type=share,
        default=0.001,
        metavar="SHARE",
        help="stop when more records than this are bad (default: 0.1%%)",
    )
    add(
        "--max-document-mib",
        type=positive,
        default=512,
        metavar="MIB",
        help="longer documents are bad records",
    )
    add(
        "--shard-mib",
        type=positive,
        default=64,
        metavar="MIB",
        help="input in one part of the output",
    )


def document_options(arguments: argparse.Namespace) -> DocumentOptions:
    """What `add_document_arguments` and `--input` say."""
    read = ReadOptions(
        text_field=arguments.text_field,
        id_field=arguments.id_field,
        input_format=arguments.input_format,
        text_unit=arguments.text_unit,
        max_document_bytes=arguments.max_document_mib * _MIB,
    )
    return DocumentOptions(
        input=tuple(arguments.input),
        read=read,
        max_bad_records=arguments.max_bad_records,
        shard_mib=arguments.shard_mib,
    )
