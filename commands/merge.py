"""counts datasets -> the counts dataset of them all"""

from collections.abc import Sequence

from corpusmill.commands.arguments import add_options, make_parser, parsed
from corpusmill.commands.run_options import parse_job
from corpusmill.pipelines.launching.launch import run_job
from corpusmill.pipelines.merge import MergeJob


def main(argv: Sequence[str]) -> None:
    """`corpusmill merge`"""
    parser = make_parser(
        "merge",
        "Adds up counts datasets of the same tokenizer and order.",
        "corpusmill merge --counts counts-2024 --counts counts-2025 --output counts",
    )
    add_options(parser, MergeJob)
    arguments, run = parse_job(parser, argv, MergeJob)
    run_job(parsed(MergeJob, arguments, counts=tuple(arguments.counts)), run)
