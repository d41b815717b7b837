"""`corpusmill train`: a model from a tokens dataset, and targets; a killed run goes on."""

import argparse
from collections.abc import Sequence

from corpusmill.commands.arguments import add_options, make_parser, parse_known, parsed
from corpusmill.commands.learning_options import LEARNING, RUNNING
from corpusmill.commands.target_options import (
    add_target_options,
    given_target_options,
    target_options,
)
from corpusmill.corpus.errors import UsageError
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.trainer.options import TrainOptions

_DATA = ("tokens", "targets", "counts", "validate", "validate_tokens", "output", "length", "lanes")
_OBJECTIVE = ("objective", "start", "mask_documents", "mix", "mix_schedule")


def main(argv: Sequence[str]) -> None:
    """`corpusmill train`"""
    parser = make_parser(
        "train",
        "Trains a language model on tokens, or on compressed text. Run again, it goes on from the"
        " last checkpoint. Several processes:"
        " torchrun --nproc-per-node 2 -m corpusmill.commands.cli train ...",
        "corpusmill train --tokens tokens --output run --size 3m --steps 1000",
    )
    add_options(parser.add_argument_group("data"), TrainOptions, *_DATA)
    learning = parser.add_argument_group("what is learnt, and how")
    add_options(learning, TrainOptions, *_OBJECTIVE, *LEARNING)
    running = parser.add_argument_group("running; may change when a run goes on")
    add_options(running, TrainOptions, *RUNNING, "workers")
    add_target_options(
        parser.add_argument_group("targets that are computed from --counts, as by enrich")
    )
    arguments = parse_known(parser, argv)[0]
    options = parsed(TrainOptions, arguments, target=_target_options(arguments))
    # Not before: torch takes seconds.
    from corpusmill.trainer.train import train

    train(options)


def _target_options(arguments: argparse.Namespace) -> TargetOptions | None:
    """None where no targets are computed."""
    if arguments.objective == "compact" and arguments.counts is not None:
        return target_options(arguments, arguments.counts)
    given = given_target_options(arguments)
    if given:
        raise UsageError(
            f"{given[0]} is for targets that are computed: --objective compact with --counts"
        )
    return None
