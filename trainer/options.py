"""What is chosen of a training run. No torch: a command's help doesn't wait for it."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from corpus.errors import UsageError
from ngram_agg.target_options import TargetOptions
from trainer.model_config import SIZES

OBJECTIVES = ("next-token", "compact", "all-ngrams")
MIX_SCHEDULES = ("constant", "linear-to-zero")
OPTIMIZERS = ("adamw", "adafactor")
SCHEDULES = ("rsqrt", "cosine", "constant")
PRECISIONS = ("auto", "float32", "bfloat16")
DEVICES = ("auto", "cpu", "cuda")
PARALLEL = ("ddp", "fsdp")
STARTS = ("anywhere", "documents")

_ACCEPTED = {
    "model": tuple(SIZES),
    "objective": OBJECTIVES,
    "mix_schedule": MIX_SCHEDULES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "device": DEVICES,
    "parallel": PARALLEL,
}
_LEAST = {
    "steps": 1,
    "batch_size": 1,
    "accumulate": 1,
    "length": 1,
    "mix": 0,
    "learning_rate": 0,
    "warmup": 0,
    "z_loss": 0,
    "clip": 0,
    "seed": 0,
    "workers": 0,
    "validate_every": 1,
    "checkpoint_every": 1,
    "keep": 1,
}
# A batch has to fit in memory; what is more is a slip.
_MOST = {"batch_size": 1 << 24, "accumulate": 1 << 24, "length": 1 << 24}


@dataclass(frozen=True)
class TrainOptions:
    """A training run.

    Attributes:
      tokens: folder or URL of the dataset to learn: tokens, compressed text or examples of it.
      output: folder or URL of the run.
      steps: optimizer steps in all.
      targets: folder or URL of the targets made from `tokens`; for the objective `compact`.
      counts: folder or URL of counts by the same tokenizer: for `compact` instead of targets, which
        are computed then while training, and for `all-ngrams`.
      target: with counts and `compact`, what the targets are made of.
      model: name of a size.
      objective: `next-token`; `compact`: the targets' distributions; or `all-ngrams`: the full
        distributions of contexts, looked up in the counts while training.
      mix: share of the targets in the loss; the rest is about the next tokens.
      mix_schedule: `constant`, or `linear-to-zero` over the whole run.
      batch_size: sequences in a micro-batch.
      accumulate: micro-batches of each process in a step.
      length: tokens of a sequence.
      optimizer: `adamw` or `adafactor`.
      learning_rate: the highest one.
      schedule: what it does after the warm-up.
      warmup: steps in which it rises.
      z_loss: weight of the squared log partition function in the loss.
      clip: largest norm of the gradient, longer ones are shortened; 0 for no limit.
      seed: of the model's first parameters and of the data's order.
      workers: processes that read data, for each process that trains; 0 reads in that one.
      validate: folder or URL of such a dataset to evaluate on.
      validate_every: steps from one evaluation to the next; the last step has one, too.
      checkpoint_every: steps from one checkpoint to the next; the last step has one, too.
      keep: how many checkpoints are kept.
      precision: in which matrices are multiplied; `auto` is bfloat16 on GPUs that have it.
      device: `cpu`, `cuda`, or `auto`.
      parallel: `ddp` or `fsdp`, where torchrun starts several processes.

    Raises:
      UsageError: a value isn't accepted, or doesn't fit another one.
    """

    tokens: str
    output: str
    steps: int
    targets: str | None = None
    counts: str | None = None
    target: TargetOptions | None = None
    model: str = "3m"
    objective: str = "next-token"
    mix: float = 1.0
    mix_schedule: str = "constant"
    batch_size: int = 32
    accumulate: int = 1
    length: int = 512
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "rsqrt"
    warmup: int = 1000
    z_loss: float = 0.0
    clip: float = 1.0
    seed: int = 0
    workers: int = 0
    validate: str | None = None
    validate_every: int = 1000
    checkpoint_every: int = 1000
    keep: int = 2
    precision: str = "auto"
    device: str = "auto"
    parallel: str = "ddp"

    def __post_init__(self) -> None:
        for name, accepted in _ACCEPTED.items():
            if getattr(self, name) not in accepted:
                raise UsageError(
                    f"{_option(name)} {getattr(self, name)!r}: there are {', '.join(accepted)}"
                )
        for name, least in _LEAST.items():
            # Written so that a NaN is refused.
            if not least <= getattr(self, name) < math.inf:
                raise UsageError(
                    f"{_option(name)} {getattr(self, name)} is not a number of at least {least}"
                )
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise UsageError(
                    f"{_option(name)} {getattr(self, name)} is more than {most:,}, the most"
                )
        if self.mix > 1:
            raise UsageError(f"--mix {self.mix} is not a share from 0 to 1")
        self._check_sources()
        if self.optimizer == "adafactor" and self.parallel == "fsdp":
            # PyTorch's Adafactor fails on parameters that are divided among processes.
            raise UsageError(
                "--optimizer adafactor doesn't work with --parallel fsdp; use --parallel ddp,"
                " or --optimizer adamw"
            )

    def _check_sources(self) -> None:
        given = [name for name in ("targets", "counts") if getattr(self, name) is not None]
        accepted = {"next-token": (), "compact": ("targets", "counts"), "all-ngrams": ("counts",)}
        sources = accepted[self.objective]
        for name in given:
            if name not in sources:
                fitting = [each for each, names in accepted.items() if name in names]
                raise UsageError(
                    f"--{name} is for --objective {' or '.join(fitting)}, not {self.objective}"
                )
        if sources and len(given) != 1:
            names = " or ".join(f"--{name}" for name in sources)
            raise UsageError(
                f"--objective {self.objective} needs {names}, the folder of a dataset"
                + (", not both" if given else "")
            )
        if self.target is not None and (self.objective, given) != ("compact", ["counts"]):
            raise UsageError("options of targets are for --objective compact with --counts")

    def mix_at(self, step: int) -> float:
        """The share of the targets in the loss of a step, the first one being 1."""
        if self.mix_schedule == "linear-to-zero":
            return self.mix * (1 - (step - 1) / self.steps)
        return self.mix

    def decisive(self, ranks: int, precision: str) -> dict[str, Any]:
        """What decides the result; the rest may be another one when the run goes on.

        Args:
          ranks: processes that train together.
          precision: in which matrices are multiplied.
        """
        chosen = {name: getattr(self, name) for name in _DECISIVE}
        if self.target is not None:
            chosen["target"] = dataclasses.asdict(self.target)
        if self.schedule == "cosine" or self.mix_schedule == "linear-to-zero":
            chosen["steps"] = self.steps
        return chosen | {
            # However they are divided among processes.
            "micro_batches_per_step": self.accumulate * ranks,
            "precision": precision,
        }


_DECISIVE = (
    "model",
    "objective",
    "mix",
    "mix_schedule",
    "batch_size",
    "length",
    "optimizer",
    "learning_rate",
    "schedule",
    "warmup",
    "z_loss",
    "clip",
    "seed",
)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class M1Options:
    """A run of `train-m1`.

    Attributes:
      training: how it trains; `tokens` is empty where `input` is given.
      input: patterns of documents.
      starts: where runs start (`RunOptions`).

    Raises:
      UsageError: there is not exactly one kind of text.
    """

    training: TrainOptions
    input: tuple[str, ...]
    starts: str

    def __post_init__(self) -> None:
        if bool(self.training.tokens) == bool(self.input):
            raise UsageError("give either --tokens DIR or --input GLOB: what is learnt")


@dataclass(frozen=True)
class EvaluateOptions:
    """An evaluation.

    Attributes:
      model: folder or URL of a run or a checkpoint.
      tokens: folder or URL of the dataset.
      output: file or URL for the results.
      batch_size: sequences at once.
      length: tokens of a sequence; None for the run's.
      workers: processes that read data; 0 reads in this one.
      precision: in which matrices are multiplied.
      device: `cpu`, `cuda`, or `auto`.
    """

    model: str
    tokens: str
    output: str | None = None
    batch_size: int = 32
    length: int | None = None
    workers: int = 0
    precision: str = "auto"
    device: str = "auto"


@dataclass(frozen=True)
class GenerateOptions:
    """Texts to be made.

    Attributes:
      model: folder or URL of a run or a checkpoint.
      prompt: what texts begin with.
      tokens: most ids in a text, those of the prompt not counted.
      number: of texts.
      temperature: what logits are divided by; 0 takes the most likely id always.
      top_p: share of the probability that the likely ids which are drawn from have.
      seed: of the draws.
      device: `cpu`, `cuda`, or `auto`.

    Raises:
      UsageError: a value isn't accepted.
    """

    model: str
    prompt: str = ""
    tokens: int = 200
    number: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        # Written so that a NaN is refused.
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"--temperature {self.temperature} is not a number of at least 0")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p {self.top_p} is not a share above 0, up to 1")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed} is not a number of at least 0")
