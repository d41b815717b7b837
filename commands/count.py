"""tokens dataset -> counts dataset"""

from collections.abc import Sequence

from corpusmill.commands.arguments import add_folder, integer, make_parser, positive
from corpusmill.commands.run_options import parse_job
from corpusmill.pipelines.count import CountJob
from corpusmill.pipelines.launching.launch import run_job


def main(argv: Sequence[str]) -> None:
    """`corpusmill count`"""
    parser = make_parser(
        "count",
        "Counts the n-grams of a tokens dataset, exactly, and writes a counts dataset.",
        "corpusmill count --input tokens --output counts --max-order 3",
    )
    add = parser.add_argument
    add_folder(parser, "--input", "a tokens dataset")
    add_folder(parser, "--output", "the counts dataset")
    add(
        "--max-order",
        type=integer,
        default=CountJob.max_order,
        metavar="N",
        help="tokens in the longest context",
    )
    add(
        "--run-tokens",
        type=positive,
        default=CountJob.run_tokens,
        metavar="N",
        help="tokens that a worker counts at once, about 40 bytes of memory each",
    )
    add(
        "--partition-mib",
        type=positive,
        default=CountJob.partition_mib,
        metavar="MIB",
        help="size in memory of the n-grams in one output file",
    )
    arguments, run = parse_job(parser, argv, CountJob)
    job = CountJob(
        input=arguments.input,
        output=arguments.output,
        max_order=arguments.max_order,
        run_tokens=arguments.run_tokens,
        partition_mib=arguments.partition_mib,
    )
    run_job(job, run)
