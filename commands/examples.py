"""documents -> examples of compressed text to learn from"""

from collections.abc import Sequence

from corpusmill.commands.arguments import Parser, add_folder, integer, make_parser, positive
from corpusmill.commands.codec_options import add_codec_arguments, chosen_codec
from corpusmill.commands.document_options import (
    add_document_arguments,
    add_input_argument,
    document_options,
)
from corpusmill.commands.run_options import parse_job
from corpusmill.compress.datasets.examples import ExampleOptions
from corpusmill.pipelines.documents import find_documents
from corpusmill.pipelines.examples import make_job
from corpusmill.pipelines.launching.launch import run_job


def _parser() -> Parser:
    parser = make_parser(
        "examples",
        "Reads documents (JSONL, Parquet, text; also compressed) and writes examples of"
        " compressed text for train and evaluate: documents, each with an end mark, are joined in"
        " groups, cut into pieces of equally many bytes, compressed piece by piece and shuffled.",
        "corpusmill examples --input 'wiki/*.jsonl' --codebook english.codebook --output examples",
    )
    add = parser.add_argument
    add_input_argument(parser)
    add_folder(parser, "--output", "the examples dataset")
    add("--group", type=positive, default=128, metavar="N", help="documents that are joined")
    add("--piece-bytes", type=positive, default=10_240, metavar="N", help="text of an example")
    add("--length", type=positive, metavar="N", help="drop an example's ids beyond so many")
    add("--seed", type=integer, default=0, metavar="N", help="of the shuffling")
    add_codec_arguments(parser)
    add_document_arguments(parser)
    return parser


def main(argv: Sequence[str]) -> None:
    """`corpusmill examples`"""
    parser = _parser()
    arguments, run = parse_job(parser, argv, make_job)
    options = ExampleOptions(
        arguments.group, arguments.piece_bytes, arguments.length, arguments.seed
    )
    codec = chosen_codec(arguments)
    documents = find_documents(document_options(arguments))
    run_job(make_job(documents, codec, options, arguments.output), run)
