"""`corpusmill train`: a model from a tokens dataset, and targets; a killed run goes on."""

import argparse
from collections.abc import Sequence

from corpusmill.commands.arguments import integer, make_parser, parse_known, positive
from corpusmill.commands.learning_options import (
    DATASETS,
    add_learning_arguments,
    add_run_arguments,
    set_defaults,
)
from corpusmill.commands.target_options import (
    TARGET_ARGUMENTS,
    add_target_arguments,
    target_options,
)
from corpusmill.corpus.errors import UsageError
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.trainer.options import MIX_SCHEDULES, OBJECTIVES, TrainOptions


def main(argv: Sequence[str]) -> None:
    """`corpusmill train`"""
    parser = make_parser(
        "train",
        "Trains a language model on tokens, or on compressed text. Run again, it goes on from the"
        " last checkpoint. Several processes:"
        " torchrun --nproc-per-node 2 -m corpusmill.commands.cli train ...",
        "corpusmill train --tokens tokens --output run --model 3m --steps 1000",
    )
    set_defaults(parser, TrainOptions)
    _add_data_arguments(parser.add_argument_group("data"))
    learning = parser.add_argument_group("what is learnt, and how")
    _add_objective_arguments(learning)
    add_learning_arguments(learning)
    running = parser.add_argument_group("running; may change when a run goes on")
    add_run_arguments(running)
    running.add_argument(
        "--workers", type=integer, metavar="N", help="processes that read data; 0: this one"
    )
    made_of = parser.add_argument_group("targets that are computed from --counts, as by enrich")
    add_target_arguments(made_of)
    arguments = parse_known(parser, argv)[0]
    arguments.target = _target_options(parser, arguments)
    options = TrainOptions(**vars(arguments))
    # Not before: torch takes seconds.
    from corpusmill.trainer.train import train

    train(options)


def _target_options(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace
) -> TargetOptions | None:
    """Takes the options of targets out of the arguments; None where no targets are computed."""
    is_computed = arguments.objective == "compact" and arguments.counts is not None
    longest = TargetOptions.max_order
    if is_computed:
        from corpusmill.corpus.datasets import read_manifest

        longest = read_manifest(arguments.counts, "counts").properties["max_order"]
    given = [
        name for name in TARGET_ARGUMENTS if getattr(arguments, name) != parser.get_default(name)
    ]
    options = target_options(arguments, longest)
    if given and not is_computed:
        raise UsageError(
            f"--{given[0].replace('_', '-')} is for targets that are computed: --objective compact"
            " with --counts"
        )
    return options if is_computed else None


def _add_data_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--tokens", required=True, metavar="DIR", help=DATASETS)
    add("--targets", metavar="DIR", help="folder or URL of the targets made from it by enrich")
    add(
        "--counts",
        metavar="DIR",
        help="folder or URL of counts: compact targets are computed from them, or all-ngrams",
    )
    add("--validate", metavar="DIR", help="folder or URL of such a dataset to evaluate on")
    add(
        "--validate-tokens",
        type=positive,
        metavar="N",
        help="on so many of its first tokens, in whole batches (default: on all)",
    )
    add("--output", required=True, metavar="DIR", help="folder or URL of the run")
    add("--length", type=integer, metavar="N", help="tokens of a sequence")


def _add_objective_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--objective",
        choices=OBJECTIVES,
        help="compact: --targets or --counts; all-ngrams: --counts",
    )
    add(
        "--from",
        dest="start",
        metavar="RUN",
        help="run or checkpoint whose parameters and shape the model begins with",
    )
    add(
        "--mask-documents",
        action="store_true",
        help="tokens see nothing before their document",
    )
    add("--mix", type=float, metavar="SHARE", help="of the targets in the loss, 0 to 1")
    add("--mix-schedule", choices=MIX_SCHEDULES, help="of that share over the run")
