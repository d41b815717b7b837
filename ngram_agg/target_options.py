"""What compact targets are made of, as options and on the command line."""

import argparse
from dataclasses import dataclass

from corpus.arguments import integer, positive
from corpus.errors import UsageError

SCHEMES = ("retain", "split", "renormalize")
ESTIMATORS = ("longest", "fixed")
MAX_HEAD = 256


@dataclass(frozen=True)
class TargetOptions:
    """What a target is made of.

    Attributes:
      scheme: `retain`, `split` or `renormalize`.
      estimator: `longest` (the longest kept context) or `fixed` (contexts of `max_order` tokens
        only).
      head: the most frequent next tokens that are kept (r).
      tail_draws: tokens drawn for all others (d); 0 but for `retain`.
      min_order: tokens in the shortest context used.
      max_order: tokens in the longest context used.
      min_count: contexts seen fewer times are not used.
      seed: of the draws.

    Raises:
      UsageError: an option is outside its range.
    """

    scheme: str = "retain"
    estimator: str = "longest"
    head: int = 16
    tail_draws: int = 4
    min_order: int = 1
    max_order: int = 3
    min_count: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        _check_choice("scheme", self.scheme, SCHEMES)
        _check_choice("estimator", self.estimator, ESTIMATORS)
        draws_needed = self.scheme == "retain"
        if not int(not draws_needed) <= self.head <= MAX_HEAD:
            raise UsageError(
                f"head {self.head} is not between {int(not draws_needed)} and {MAX_HEAD}"
            )
        if draws_needed and not 1 <= self.tail_draws <= MAX_HEAD:
            raise UsageError(f"tail-draws {self.tail_draws} is not between 1 and {MAX_HEAD}")
        if not draws_needed and self.tail_draws:
            raise UsageError(
                f"tail-draws {self.tail_draws} with the scheme {self.scheme}, which draws nothing:"
                " 0 is accepted"
            )
        if not 0 <= self.min_order <= self.max_order:
            raise UsageError(
                f"min-order {self.min_order} is not between 0 and max-order {self.max_order}"
            )
        if not 1 <= self.min_count < 1 << 63:
            raise UsageError(f"min-count {self.min_count} is not between 1 and 2^63 - 1")

    @property
    def slots(self) -> int:
        """Tokens with weights in the widest target."""
        return self.head + self.tail_draws

    @property
    def orders(self) -> range:
        """Lengths of the contexts used."""
        shortest = self.max_order if self.estimator == "fixed" else self.min_order
        return range(shortest, self.max_order + 1)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name} {value!r} is none of {', '.join(choices)}")


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
