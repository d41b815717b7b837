"""What compact targets are made of."""

from dataclasses import dataclass

from corpusmill.corpus.datasets import Manifest
from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.options import option

SCHEMES = ("retain", "split", "renormalize")
ESTIMATORS = ("longest", "fixed")
MAX_HEAD = 256


@dataclass(frozen=True)
class TargetOptions:
    """What a target is made of: r tokens of the head, and d drawn for the tail.

    Raises:
      UsageError: an option is outside its range.
    """

    scheme: str = option(
        "what stands for the tokens beyond the head: drawn ones (retain), the observed one where it"
        " is one of them (split), nothing (renormalize)",
        "retain",
        choices=SCHEMES,
    )
    estimator: str = option(
        "contexts that are used: the longest that was kept, or those of --max-order tokens only",
        "longest",
        choices=ESTIMATORS,
    )
    head: int = option("most frequent next tokens in a target", 16, metavar="R")
    tail_draws: int = option(
        "tokens drawn for all others (default: 4; 0 if the scheme draws nothing)", 4, metavar="D"
    )
    min_order: int = option("tokens in the shortest context", 1)
    max_order: int = option("tokens in the longest context (default: that of the counts)", 3)
    min_count: int = option("contexts seen fewer times are not used", 2, least=1)
    seed: int = option("seed of the draws", 0, name="draw-seed")

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

    def check_counts(self, counts: str, manifest: Manifest) -> None:
        """Raises UsageError where a counts dataset has no contexts as long as these need."""
        longest = manifest.properties["max_order"]
        if self.max_order > longest:
            raise UsageError(
                f"max-order {self.max_order} is more than the {longest} tokens of context that"
                f" {counts} has"
            )

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
