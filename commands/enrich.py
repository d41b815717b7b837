"""tokens dataset + counts dataset -> targets dataset"""

from collections.abc import Sequence

from corpusmill.commands.arguments import add_options, make_parser, parsed
from corpusmill.commands.run_options import parse_job
from corpusmill.commands.target_options import add_target_options, target_options
from corpusmill.pipelines.enrich import EnrichJob
from corpusmill.pipelines.launching.launch import run_job


def main(argv: Sequence[str]) -> None:
    """`corpusmill enrich`"""
    parser = make_parser(
        "enrich",
        "Gives every position of a tokens dataset a compact target: a few weighted next tokens.",
        "corpusmill enrich --tokens tokens --counts counts --output targets",
    )
    add_options(parser, EnrichJob)
    add_target_options(parser.add_argument_group("targets"))
    arguments, run = parse_job(parser, argv, EnrichJob)
    targets = target_options(arguments, arguments.counts)
    run_job(parsed(EnrichJob, arguments, targets=targets), run)
