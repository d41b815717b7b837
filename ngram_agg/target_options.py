"""What compact targets are made of."""

from dataclasses import dataclass

from corpusmill.corpus.errors import UsageError

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
