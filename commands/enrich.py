"""tokens dataset + counts dataset -> targets dataset"""

from collections.abc import Sequence

from corpusmill.commands.arguments import add_folder, make_parser, positive_number
from corpusmill.commands.run_options import parse_job
from corpusmill.commands.target_options import add_target_arguments, target_options
from corpusmill.corpus.datasets import read_manifest
from corpusmill.pipelines.enrich import EnrichJob
from corpusmill.pipelines.launching.launch import run_job


def main(argv: Sequence[str]) -> None:
    """`corpusmill enrich`"""
    parser = make_parser(
        "enrich",
        "Gives every position of a tokens dataset a compact target: a few weighted next tokens.",
        "corpusmill enrich --tokens tokens --counts counts --output targets",
    )
    add = parser.add_argument
    add_folder(parser, "--tokens", "a tokens dataset")
    add_folder(parser, "--counts", "a counts dataset")
    add_folder(parser, "--output", "the targets dataset")
    add_target_arguments(parser)
    add(
        "--table-mib",
        type=positive_number,
        default=EnrichJob.table_mib,
        metavar="MIB",
        help="what a worker's table may take; where one of all contexts takes more, there are"
        " several (the output is the same)",
    )
    arguments, run = parse_job(parser, argv, EnrichJob)
    longest = read_manifest(arguments.counts, "counts").properties["max_order"]
    job = EnrichJob(
        tokens=arguments.tokens,
        counts=arguments.counts,
        output=arguments.output,
        targets=target_options(arguments, longest),
        table_mib=arguments.table_mib,
    )
    run_job(job, run)
