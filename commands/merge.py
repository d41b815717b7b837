"""counts datasets -> the counts dataset of them all"""

from collections.abc import Sequence

from corpusmill.commands.arguments import add_folder, location, make_parser, positive
from corpusmill.commands.run_options import parse_job
from corpusmill.pipelines.launching.launch import run_job
from corpusmill.pipelines.merge import MergeJob


def main(argv: Sequence[str]) -> None:
    """`corpusmill merge`"""
    parser = make_parser(
        "merge",
        "Adds up counts datasets of the same tokenizer and order.",
        "corpusmill merge --input counts-2024 --input counts-2025 --output counts",
    )
    add = parser.add_argument
    add(
        "--input",
        action="append",
        required=True,
        type=location,
        metavar="DIR",
        help="folder or URL of a counts dataset; at least two",
    )
    add_folder(parser, "--output", "the counts dataset")
    add(
        "--partition-mib",
        type=positive,
        default=MergeJob.partition_mib,
        metavar="MIB",
        help="size in memory of the n-grams in one output file",
    )
    arguments, run = parse_job(parser, argv, MergeJob)
    run_job(MergeJob(tuple(arguments.input), arguments.output, arguments.partition_mib), run)
