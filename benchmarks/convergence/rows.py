"""What is compared."""

import pathlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One way of training.

    Attributes:
      name: in tables and folders.
      enrich: options of the targets; none without targets.
      train: options of the training.
      is_main: whether several seeds are trained.
      counts: of which text targets are: `counts` of all but what is held out, `counts-learnt` of
        what the run trains on and nothing else.
    """

    name: str
    enrich: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    is_main: bool = False
    counts: str = "counts"

    @property
    def targets(self) -> str:
        """The folder of its targets; rows with the same options share them."""
        options = "".join(self.enrich).replace("--", "-")
        return "targets" + self.counts.removeprefix("counts") + options

    def sources(self, folder: pathlib.Path) -> tuple[str | None, str | None]:
        """The datasets of targets and of counts that it learns from, if it does."""
        targets = str(folder / self.targets) if self.enrich else None
        return targets, str(folder / "counts") if self.name == "all-ngrams" else None


# Named here, so that other defaults of `enrich` are no other rows.
_RETAIN = ("--scheme", "retain", "--head", "8", "--tail-draws", "1")
_MORE_DRAWS = ("--scheme", "retain", "--head", "8", "--tail-draws", "4")
_MORE_OF_ALL = ("--scheme", "retain", "--head", "16", "--tail-draws", "4")

ROWS = (
    Row("next-token", is_main=True),
    Row("retain", _RETAIN, is_main=True),
    Row("retain-mix-half", _RETAIN, ("--mix", "0.5"), is_main=True),
    Row("retain-annealed", _RETAIN, ("--mix-schedule", "linear-to-zero"), is_main=True),
    Row("retain-8-and-4", _MORE_DRAWS),
    Row("retain-16-and-4", _MORE_OF_ALL, is_main=True),
    Row("retain-16-and-4-learnt", _MORE_OF_ALL, is_main=True, counts="counts-learnt"),
    Row("split", ("--scheme", "split", "--head", "8")),
    Row("renormalize", ("--scheme", "renormalize", "--head", "8")),
    Row("retain-order-1", (*_RETAIN, "--max-order", "1")),
    Row("retain-order-2", (*_RETAIN, "--max-order", "2")),
    Row("retain-seen-8-times", (*_RETAIN, "--min-count", "8")),
    Row("all-ngrams"),
)
