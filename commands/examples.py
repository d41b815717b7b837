"""documents -> examples of compressed text to learn from"""

from collections.abc import Sequence

from corpusmill.commands.arguments import Parser, add_folder, add_options, make_parser, parsed
from corpusmill.commands.codec_options import add_codec_options, chosen_codec
from corpusmill.commands.document_options import add_document_options, document_options
from corpusmill.commands.run_options import parse_job
from corpusmill.compress.datasets.examples import ExampleOptions
from corpusmill.pipelines.documents import DocumentOptions, find_documents
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
    add_options(parser, DocumentOptions, "input")
    add_folder(parser, "--output", "the examples dataset")
    add_options(parser, ExampleOptions)
    add_codec_options(parser)
    add_document_options(parser)
    return parser


def main(argv: Sequence[str]) -> None:
    """`corpusmill examples`"""
    parser = _parser()
    arguments, run = parse_job(parser, argv, make_job)
    options = parsed(ExampleOptions, arguments)
    codec = chosen_codec(arguments)
    documents = find_documents(document_options(arguments))
    run_job(make_job(documents, codec, options, arguments.output), run)
