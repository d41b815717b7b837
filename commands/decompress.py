"""compressed dataset -> documents as JSONL, or ids -> a stream of bytes"""

from collections.abc import Sequence
from functools import partial

from corpusmill.commands.arguments import add_folder, location, make_parser
from corpusmill.commands.codec_options import add_device_argument, check_device
from corpusmill.commands.run_options import parse_job
from corpusmill.commands.streams import pipe
from corpusmill.compress.codebooks.codebook import Codebook
from corpusmill.compress.codebooks.streams import decode_stream
from corpusmill.pipelines.decompress import DecompressJob
from corpusmill.pipelines.launching.launch import run_job


def main(argv: Sequence[str]) -> None:
    """`corpusmill decompress`"""
    parser = make_parser(
        "decompress",
        "Turns a compressed dataset back into its documents, as JSONL files with id and text; or a"
        " stream of raw little-endian ids into bytes.",
        "corpusmill decompress --input small --output documents\n"
        "  corpusmill decompress --codebook english.codebook --stdin < ids > text",
    )
    add = parser.add_argument
    add_folder(parser, "--input", "a compressed dataset", required=False)
    add_folder(parser, "--output", "the documents", required=False)
    add(
        "--codebook",
        type=location,
        metavar="FILE",
        help="with --stdin: path or URL of the codebook",
    )
    add("--stdin", action="store_true", help="read standard input, write to standard output")
    add_device_argument(parser)
    arguments, run = parse_job(parser, argv, DecompressJob)
    if arguments.stdin:
        if arguments.input or arguments.output or arguments.codebook is None:
            parser.error("--stdin goes with --codebook, without --input and --output")
        pipe(partial(decode_stream, Codebook.open(arguments.codebook)))
        return
    if arguments.codebook is not None:
        parser.error("--codebook is for --stdin only: a compressed dataset has its own")
    if not (arguments.input and arguments.output):
        parser.error("the following arguments are required: --input and --output, or --stdin")
    job = DecompressJob(arguments.input, arguments.output, arguments.device)
    check_device(job.load_codec(), arguments.device, run)
    run_job(job, run)
