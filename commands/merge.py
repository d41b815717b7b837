"""counts datasets -> the counts dataset of them all"""

from collections.abc import Sequence

from corpusmill.commands.arguments import add_folder, location, make_parser, positive
from corpusmill.commands.run_options import parse_job
from corpusmill.corpus.progress import Stage
from corpusmill.pipelines.launching.launch import run_job
from corpusmill.pipelines.merge import MergeOptions, build_pipeline, make_plan


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
        default=64,
        metavar="MIB",
        help="size in memory of the n-grams in one output file",
    )
    arguments, run = parse_job(parser, argv)
    options = MergeOptions(tuple(arguments.input), arguments.output, arguments.partition_mib)
    plan = make_plan(options)
    stage = Stage("merge", "n-grams", plan.ngrams)
    run_job(
        plan.parts.writer,
        run,
        plan.describe(),
        lambda: build_pipeline(options, run, plan),
        (stage,),
    )
