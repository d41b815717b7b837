"""What is chosen of a training run. No torch: a command's help doesn't wait for it."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from corpusmill.corpus.errors import UsageError
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.trainer.model_config import SIZES, ModelConfig

OBJECTIVES = ("next-token", "compact", "all-ngrams")
MIX_SCHEDULES = ("constant", "linear-to-zero")
OPTIMIZERS = ("adamw", "adafactor")
SCHEDULES = ("rsqrt", "cosine", "constant")
PRECISIONS = ("auto", "float32", "bfloat16")
DEVICES = ("auto", "cpu", "cuda")
PARALLEL = ("ddp", "fsdp")
STARTS = ("anywhere", "documents")

_ACCEPTED = {
    "model": (None, *SIZES),
    "objective": OBJECTIVES,
    "mix_schedule": MIX_SCHEDULES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "device": DEVICES,
    "parallel": PARALLEL,
}
_USUAL_SIZE = "3m"
# Of the steps the warm-up is one in so many, up to so many.
_WARMUP_SHARE, _LONGEST_WARMUP = 10, 1000
_LEAST = {
    "width": 1,
    "heads": 1,
    "layers": 1,
    "mlp_width": 1,
    "steps": 1,
    "batch_size": 1,
    "accumulate": 1,
    "length": 1,
    "mix": 0,
    "learning_rate": 0,
    "warmup": 0,
    "weight_decay": 0,
    "validate_tokens": 1,
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
      model: name of a size; by default `3m`.
      width: of the hidden states, instead of the size's; so are the next ones.
      heads: attention heads in a layer, which share the width.
      layers: how many.
      mlp_width: of the MLP's inner states.
      start: folder or URL of a run or a checkpoint whose parameters the model begins with.
      mask_documents: whether tokens see none before their document.
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
      warmup: steps in which it rises; by default a tenth of all, 1,000 at most.
      weight_decay: of matrices; by default 0.1 for `adamw`, none for `adafactor`.
      betas: of the averages of `adamw`; by default 0.9 and 0.95.
      z_loss: weight of the squared log partition function in the loss.
      clip: largest norm of the gradient, longer ones are shortened; 0 for no limit.
      seed: of the model's first parameters and of the data's order.
      workers: processes that read data, for each process that trains; 0 reads in that one.
      validate: folder or URL of such a dataset to evaluate on.
      validate_tokens: about how many of its first tokens are evaluated on, in whole batches; None
        for all.
      validate_every: steps from one evaluation to the next; the last step has one, too.
      checkpoint_every: steps from one checkpoint to the next; the last step has one, too.
      keep: how many checkpoints are kept.
      precision: in which matrices are multiplied; `auto` is bfloat16 on GPUs that have it.
      device: `cpu`, `cuda`, or `auto`.
      compile: whether PyTorch compiles the layers.
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
    model: str | None = None
    width: int | None = None
    heads: int | None = None
    layers: int | None = None
    mlp_width: int | None = None
    start: str | None = None
    mask_documents: bool = False
    objective: str = "next-token"
    mix: float = 1.0
    mix_schedule: str = "constant"
    batch_size: int = 32
    accumulate: int = 1
    length: int = 512
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "rsqrt"
    warmup: int | None = None
    weight_decay: float | None = None
    betas: tuple[float, float] | None = None
    z_loss: float = 0.0
    clip: float = 1.0
    seed: int = 0
    workers: int = 0
    validate: str | None = None
    validate_tokens: int | None = None
    validate_every: int = 1000
    checkpoint_every: int = 1000
    keep: int = 2
    precision: str = "auto"
    compile: bool = False
    device: str = "auto"
    parallel: str = "ddp"

    def __post_init__(self) -> None:
        for name, accepted in _ACCEPTED.items():
            if getattr(self, name) not in accepted:
                raise UsageError(
                    f"{_option(name)} {getattr(self, name)!r}: there are {_listed(accepted)}"
                )
        for name, least in _LEAST.items():
            value = getattr(self, name)
            # Written so that a NaN is refused.
            if value is not None and not least <= value < math.inf:
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
        self._check_pairs()

    def _check_pairs(self) -> None:
        for name in _SHAPE:
            if self.start is not None and getattr(self, name) is not None:
                raise UsageError(f"{_option(name)} doesn't go with --from, which has a shape")
        if self.betas is not None and self.optimizer != "adamw":
            raise UsageError(f"--betas are of --optimizer adamw, not {self.optimizer}")
        if self.betas is not None and not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"--betas {self.betas[0]} {self.betas[1]}: each is from 0, below 1")
        if self.validate_tokens is not None and self.validate is None:
            raise UsageError("--validate-tokens is for --validate DIR")
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

    @property
    def warmup_steps(self) -> int:
        """In which the learning rate rises."""
        if self.warmup is not None:
            return self.warmup
        return min(self.steps // _WARMUP_SHARE, _LONGEST_WARMUP)

    def model_config(self, vocabulary_size: int, document_start: int) -> ModelConfig:
        """The shape of a model of so many ids, if none is begun with.

        Raises:
          UsageError: there is no such shape.
        """
        numbers = {name: getattr(self, name) for name in _SHAPE if name != "model"}
        config = ModelConfig.of(self.model or _USUAL_SIZE, vocabulary_size, **numbers)
        return self.with_documents(config, document_start)

    def with_documents(self, config: ModelConfig, document_start: int) -> ModelConfig:
        """The shape with these options' view of documents, which begin with this id."""
        start = document_start if self.mask_documents else None
        return dataclasses.replace(config, document_start=start)

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
            "warmup": self.warmup_steps,
        }


_DECISIVE = (
    "objective",
    "mix",
    "mix_schedule",
    "batch_size",
    "length",
    "optimizer",
    "learning_rate",
    "schedule",
    "weight_decay",
    "betas",
    "z_loss",
    "clip",
    "seed",
    "compile",
    "validate_tokens",
)
_SHAPE = ("model", "width", "heads", "layers", "mlp_width")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _listed(accepted: tuple[str | None, ...]) -> str:
    return ", ".join(each for each in accepted if each is not None)


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
      stride: tokens from one sequence to the next, of which only the last so many are predicted but
        in the first one; None for sequences that don't overlap.
      workers: processes that read data; 0 reads in this one.
      precision: in which matrices are multiplied.
      device: `cpu`, `cuda`, or `auto`.
    """

    model: str
    tokens: str
    output: str | None = None
    batch_size: int = 32
    length: int | None = None
    stride: int | None = None
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
