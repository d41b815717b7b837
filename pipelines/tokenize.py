"""documents -> tokens dataset"""

from collections.abc import Sequence
from functools import partial

from corpus import storage
from corpus.arguments import add_folder, make_parser
from corpus.datasets import DatasetWriter
from corpus.tokenizers import Tokenizer, describe_tokenizer, load_tokenizer
from pipelines.documents import (
    EncodeJob,
    FoundDocuments,
    add_document_arguments,
    add_input_argument,
    document_options,
    find_documents,
    prepare_tokenizer,
)
from pipelines.here import expect_workers
from pipelines.options import parse_job


def make_job(documents: FoundDocuments, tokenizer: Tokenizer, output: str) -> EncodeJob:
    """The job that writes the tokens dataset `output`."""
    config = {**documents.config, "tokenizer": tokenizer.content_hash}
    files = tokenizer.files.items()
    return EncodeJob(
        "tokenize",
        documents,
        DatasetWriter(output, "tokens", config),
        {name: partial(storage.write_bytes, data=data) for name, data in files},
        partial(load_tokenizer, backend=tokenizer.backend),
        describe_tokenizer(tokenizer),
        backend=tokenizer.backend,
        loaded=tokenizer,
    )


def main(argv: Sequence[str]) -> None:
    """`corpusmill tokenize`"""
    parser = make_parser(
        "tokenize",
        "Reads documents (JSONL, Parquet, text; also compressed) and writes a tokens dataset.",
        "corpusmill tokenize --input 'wiki/*.jsonl.gz' --tokenizer tokenizer.json --output tokens",
    )
    add = parser.add_argument
    add_input_argument(parser)
    add(
        "--tokenizer",
        required=True,
        help="tokenizer.json, SentencePiece .model, VOCAB.json,MERGES.txt, a folder with one of"
        " these, or bytes",
    )
    add_folder(parser, "--output", "the tokens dataset")
    add(
        "--end-of-document",
        metavar="TOKEN",
        help="token that ends documents (default: the tokenizer's own)",
    )
    add_document_arguments(parser)
    arguments, run = parse_job(parser, argv)
    expect_workers(run.workers, __name__)
    tokenizer = load_tokenizer(arguments.tokenizer, arguments.end_of_document)
    documents = find_documents(document_options(arguments))
    notes = prepare_tokenizer(tokenizer, documents)
    job = make_job(documents, tokenizer, arguments.output)
    job.run(run, [_describe(tokenizer), *notes])


def _describe(tokenizer: Tokenizer) -> str:
    end = tokenizer.token_text(tokenizer.end_of_document)
    guess = " (by its name; --end-of-document names another)" if tokenizer.end_is_guess else ""
    return (
        f"tokenizer: {tokenizer.kind}, {tokenizer.vocab_size:,} ids; documents end with"
        f" {end}{guess}"
    )
