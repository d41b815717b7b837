"""documents -> tokens dataset"""

from collections.abc import Sequence

from corpusmill.commands.arguments import add_folder, add_options, make_parser
from corpusmill.commands.document_options import add_document_options, document_options
from corpusmill.commands.run_options import parse_job
from corpusmill.corpus.tokenizers import load_tokenizer
from corpusmill.pipelines.documents import DocumentOptions, find_documents
from corpusmill.pipelines.launching.launch import run_job
from corpusmill.pipelines.tokenize import make_job

_TOKENIZER = (
    "tokenizer.json, SentencePiece .model, VOCAB.json,MERGES.txt, a folder with one of these, or"
    " bytes"
)


def main(argv: Sequence[str]) -> None:
    """`corpusmill tokenize`"""
    parser = make_parser(
        "tokenize",
        "Reads documents (JSONL, Parquet, text; also compressed) and writes a tokens dataset.",
        "corpusmill tokenize --input 'wiki/*.jsonl.gz' --tokenizer tokenizer.json --output tokens",
    )
    add_options(parser, DocumentOptions, "input")
    add = parser.add_argument
    add("--tokenizer", required=True, metavar="T", help=_TOKENIZER)
    add_folder(parser, "--output", "the tokens dataset")
    add(
        "--end-of-document",
        metavar="TOKEN",
        help="token that ends documents (default: the tokenizer's own)",
    )
    add_document_options(parser)
    arguments, run = parse_job(parser, argv, make_job)
    tokenizer = load_tokenizer(arguments.tokenizer, arguments.end_of_document)
    documents = find_documents(document_options(arguments))
    run_job(make_job(documents, tokenizer, arguments.output), run)
