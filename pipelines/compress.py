"""documents -> compressed dataset"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from compress.codebook import Codebook
from compress.codecs import CodebookCodec, Codec, SubwordCodec, codec_on_device, expect_codec
from compress.compressed import CodecEncoder
from compress.streams import encode_stream
from corpus.arguments import Parser, add_folder, make_parser
from corpus.datasets import DatasetWriter
from corpus.tokenizers import use_backend
from pipelines.codec_options import (
    add_codec_arguments,
    add_device_argument,
    check_device,
    chosen_codec,
    device_of,
)
from pipelines.documents import (
    EncodeJob,
    FoundDocuments,
    add_document_arguments,
    add_input_argument,
    document_options,
    find_documents,
    in_large_batches,
    one_row_each,
    prepare_tokenizer,
)
from pipelines.here import expect_workers
from pipelines.options import parse_job
from pipelines.streams import pipe


def make_job(
    documents: FoundDocuments, codec: Codec, output: str, device: str = "cpu"
) -> EncodeJob:
    """The job that writes the compressed dataset `output`.

    The device computes the codec's network, if it has one.
    """
    config = {**documents.config, **codec_config(codec)}
    network_device = device_of(codec, device)
    return EncodeJob(
        "compress",
        documents,
        DatasetWriter(output, "compressed", config),
        codec.files,
        partial(
            load_encoder, content_hash=codec.content_hash, device=device, backend=codec.backend
        ),
        codec.description,
        one_row_each if network_device is None else in_large_batches,
        device=network_device,
        backend=codec.backend,
    )


def codec_config(codec: Codec) -> dict[str, Any]:
    """What a dataset's configuration says of the codec."""
    return {"codec": codec.kind, "codec_hash": codec.content_hash, **codec.options}


def describe_codec(codec: Codec) -> list[str]:
    """The lines that a job says about it."""
    options = [f"{name} {value}" for name, value in codec.options.items() if value is not None]
    known = ", ".join([codec.kind, *options, f"{codec.vocab_size:,} ids", codec.content_hash])
    lines = [f"codec: {known.replace('_', ' ')}"]
    if not codec.is_lossless:
        lines.append("this codec loses text: many documents will not come back")
    return lines


def load_encoder(
    folder: str, content_hash: str, device: str = "cpu", backend: str | None = None
) -> CodecEncoder:
    """What workers encode with, from a folder with the codec of this hash."""
    codec = expect_codec(folder, content_hash)
    if isinstance(codec, SubwordCodec) and backend is not None:
        use_backend(codec.tokenizer, backend)
    return CodecEncoder(codec_on_device(codec, device))


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
    add = parser.add_argument
    add_input_argument(parser, required=False)
    add_folder(parser, "--output", "the compressed dataset", required=False)
    add_codec_arguments(parser)
    add_device_argument(parser)
    add("--stdin", action="store_true", help="read standard input, write to standard output")
    add_document_arguments(parser)
    return parser


def main(argv: Sequence[str]) -> None:
    """`corpusmill compress`"""
    parser = _parser()
    arguments, run = parse_job(parser, argv)
    expect_workers(run.workers, __name__)
    if arguments.stdin:
        if arguments.input or arguments.output:
            parser.error("--stdin goes without --input and --output")
        codec = chosen_codec(arguments)
        if not isinstance(codec, CodebookCodec):
            parser.error(f"--stdin is for --codec codebook only, not {codec.kind}")
        if codec.token_bits is not None:
            parser.error("--stdin writes whole codes, without --token-bits")
        pipe(partial(_encode, book=codec.book, parse=codec.parse))
        return
    if not (arguments.input and arguments.output):
        parser.error("the following arguments are required: --input and --output, or --stdin")
    codec = chosen_codec(arguments)
    check_device(codec, arguments.device, run)
    documents = find_documents(document_options(arguments))
    description = describe_codec(codec)
    if isinstance(codec, SubwordCodec):
        description += prepare_tokenizer(codec.tokenizer, documents)
    make_job(documents, codec, arguments.output, arguments.device).run(run, description)
