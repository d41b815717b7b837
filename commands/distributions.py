"""counts dataset -> distributions dataset"""

from collections.abc import Sequence

from corpusmill.commands.arguments import add_folder, make_parser, positive
from corpusmill.commands.run_options import parse_job
from corpusmill.ngram_agg.distributions import DistributionOptions
from corpusmill.pipelines.distributions import DistributionsJob
from corpusmill.pipelines.launching.launch import run_job


def main(argv: Sequence[str]) -> None:
    """`corpusmill distributions`"""
    parser = make_parser(
        "distributions",
        "Writes the most frequent next tokens of every context of a counts dataset.",
        "corpusmill distributions --input counts --output distributions --top-k 8",
    )
    keep = DistributionOptions()
    add = parser.add_argument
    add_folder(parser, "--input", "a counts dataset")
    add_folder(parser, "--output", "the distributions dataset")
    add(
        "--top-k",
        type=positive,
        default=keep.top_k,
        metavar="K",
        help="next tokens kept for a context",
    )
    add(
        "--min-count",
        type=positive,
        default=keep.min_count,
        metavar="N",
        help="contexts seen fewer times are dropped",
    )
    arguments, run = parse_job(parser, argv, DistributionsJob)
    tables = DistributionOptions(arguments.top_k, arguments.min_count)
    run_job(DistributionsJob(arguments.input, arguments.output, tables), run)
