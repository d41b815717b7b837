"""counts dataset -> distributions dataset"""

from collections.abc import Sequence

from corpusmill.commands.arguments import add_options, make_parser, parsed
from corpusmill.commands.run_options import parse_job
from corpusmill.ngram_agg.distributions import DistributionOptions
from corpusmill.pipelines.distributions import DistributionsJob
from corpusmill.pipelines.launching.launch import run_job


def main(argv: Sequence[str]) -> None:
    """`corpusmill distributions`"""
    parser = make_parser(
        "distributions",
        "Writes the most frequent next tokens of every context of a counts dataset.",
        "corpusmill distributions --counts counts --output distributions --top-k 8",
    )
    add_options(parser, DistributionsJob)
    add_options(parser, DistributionOptions)
    arguments, run = parse_job(parser, argv, DistributionsJob)
    tables = parsed(DistributionOptions, arguments)
    run_job(parsed(DistributionsJob, arguments, tables=tables), run)
