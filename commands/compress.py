"""documents -> compressed dataset, or a stream of bytes -> ids"""

from collections.abc import Iterator, Sequence
from functools import partial

from corpusmill.commands.arguments import Parser, add_folder, add_options, make_parser
from corpusmill.commands.codec_options import (
    add_codec_options,
    check_device,
    chosen_codec,
)
from corpusmill.commands.document_options import add_document_options, document_options
from corpusmill.commands.run_options import parse_job
from corpusmill.commands.streams import add_stdin_option, pipe, refuse_other_options
from corpusmill.compress.codebooks.codebook import Codebook
from corpusmill.compress.codebooks.streams import encode_stream
from corpusmill.compress.codecs import CodebookCodec
from corpusmill.pipelines.compress import make_job
from corpusmill.pipelines.decompress import DecompressJob
from corpusmill.pipelines.documents import DocumentOptions, find_documents
from corpusmill.pipelines.launching.launch import run_job


def _encode(chunks: Iterator[bytes], book: Codebook, parse: str | None) -> Iterator[bytes]:
    """The ids of a stream as raw little-endian integers."""
    little_endian = book.dtype.newbyteorder("<")
    for ids in encode_stream(book, chunks, parse):
        yield ids.astype(little_endian, copy=False).tobytes()


def _parser() -> Parser:
    parser = make_parser(
        "compress",
        "Reads documents (JSONL, Parquet, text; also compressed) and writes a compressed dataset;"
        " or turns a stream of any bytes into raw little-endian ids, as one document.",
        "corpusmill compress --input 'wiki/*.jsonl.gz' --codebook english.codebook --output small\n"
        "  corpusmill compress --codebook english.codebook --stdin < text > ids",
    )
    add_options(parser, DocumentOptions, "input", input=None)
    add_folder(parser, "--output", "the compressed dataset", required=False)
    add_stdin_option(parser)
    add_codec_options(parser)
    add_options(parser, DecompressJob, "device")
    add_document_options(parser)
    return parser


def main(argv: Sequence[str]) -> None:
    """`corpusmill compress`"""
    parser = _parser()
    arguments, run = parse_job(parser, argv, make_job)
    if arguments.stdin:
        refuse_other_options(parser, arguments, run, "codebook", "parse")
        codec = chosen_codec(arguments)
        assert isinstance(codec, CodebookCodec)
        pipe(partial(_encode, book=codec.book, parse=codec.parse))
        return
    if not (arguments.input and arguments.output):
        parser.error("the following arguments are required: --input and --output, or --stdin")
    codec = chosen_codec(arguments)
    check_device(codec, arguments.device, run)
    documents = find_documents(document_options(arguments))
    run_job(make_job(documents, codec, arguments.output, arguments.device), run)
