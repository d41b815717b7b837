"""tokens dataset -> counts dataset"""

from collections.abc import Sequence

from corpusmill.commands.arguments import add_options, make_parser, parsed
from corpusmill.commands.run_options import parse_job
from corpusmill.pipelines.count import CountJob
from corpusmill.pipelines.launching.launch import run_job


def main(argv: Sequence[str]) -> None:
    """`corpusmill count`"""
    parser = make_parser(
        "count",
        "Counts the n-grams of a tokens dataset, exactly, and writes a counts dataset.",
        "corpusmill count --tokens tokens --output counts --max-order 3",
    )
    add_options(parser, CountJob)
    arguments, run = parse_job(parser, argv, CountJob)
    run_job(parsed(CountJob, arguments), run)
