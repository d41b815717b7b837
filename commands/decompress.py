"""compressed dataset -> documents as JSONL, or ids -> a stream of bytes"""

from collections.abc import Sequence
from functools import partial

from corpusmill.commands.arguments import add_options, make_parser, parsed
from corpusmill.commands.codec_options import add_codebook_option, check_device
from corpusmill.commands.run_options import parse_job
from corpusmill.commands.streams import add_stdin_option, pipe, refuse_other_options
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
        "corpusmill decompress --compressed small --output documents\n"
        "  corpusmill decompress --codebook english.codebook --stdin < ids > text",
    )
    add_options(parser, DecompressJob, compressed=None, output=None)
    add_codebook_option(parser, "with --stdin: path or URL of the codebook")
    add_stdin_option(parser)
    arguments, run = parse_job(parser, argv, DecompressJob)
    if arguments.stdin:
        refuse_other_options(parser, arguments, run, "codebook")
        if arguments.codebook is None:
            parser.error("--stdin needs a codebook: give --codebook")
        pipe(partial(decode_stream, Codebook.open(arguments.codebook)))
        return
    if arguments.codebook is not None:
        parser.error("--codebook is for --stdin only: a compressed dataset has its own")
    if not (arguments.compressed and arguments.output):
        parser.error("the following arguments are required: --compressed and --output, or --stdin")
    job = parsed(DecompressJob, arguments)
    check_device(job.load_codec(), arguments.device, run)
    run_job(job, run)
