"""What compact targets are made of, on the command line."""

import argparse

from corpusmill.commands.arguments import integer, positive
from corpusmill.corpus.errors import UsageError
from corpusmill.ngram_agg.target_options import ESTIMATORS, SCHEMES, TargetOptions


def add_target_arguments(group: argparse._ActionsContainer) -> None:
    """The options of a target; `target_options` reads them."""
    keep = TargetOptions()
    add = group.add_argument
    add("--scheme", choices=SCHEMES, default=keep.scheme, help="how the tail is stood for")
    add(
        "--estimator",
        choices=ESTIMATORS,
        default=keep.estimator,
        help="which contexts a distribution is of",
    )
    add(
        "--head",
        type=integer,
        default=keep.head,
        metavar="R",
        help="most frequent next tokens in a target",
    )
    add(
        "--tail-draws",
        type=integer,
        metavar="D",
        help=f"tokens drawn for all others ({keep.tail_draws}; 0 if the scheme draws nothing)",
    )
    add(
        "--max-order",
        type=integer,
        metavar="N",
        help="tokens in the longest context (default: that of the counts)",
    )
    add(
        "--min-order",
        type=integer,
        default=keep.min_order,
        metavar="N",
        help="tokens in the shortest context",
    )
    add(
        "--min-count",
        type=positive,
        default=keep.min_count,
        metavar="N",
        help="contexts seen fewer times are not used",
    )
    add("--draw-seed", type=integer, default=keep.seed, metavar="N", help="of the draws")


# The names of these options.
TARGET_ARGUMENTS = (
    "scheme",
    "estimator",
    "head",
    "tail_draws",
    "max_order",
    "min_order",
    "min_count",
    "draw_seed",
)


def target_options(arguments: argparse.Namespace, longest: int) -> TargetOptions:
    """The options that `add_target_arguments` added.

    Args:
      arguments: parsed; the options are taken out of it.
      longest: tokens in the longest context of the counts.

    Raises:
      UsageError: an option is outside its range.
    """
    given = {name: vars(arguments).pop(name) for name in TARGET_ARGUMENTS}
    if given["tail_draws"] is None:
        given["tail_draws"] = TargetOptions.tail_draws if given["scheme"] == "retain" else 0
    if given["max_order"] is None:
        given["max_order"] = longest
    options = TargetOptions(seed=given.pop("draw_seed"), **given)
    if options.max_order > longest:
        raise UsageError(
            f"max-order {options.max_order} is more than the {longest} tokens of context that the"
            " counts have"
        )
    return options
