"""What is chosen of a training run. No torch: a command's help doesn't wait for it."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.options import FILE, FOLDER, check, flag, option
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.trainer.model_config import SIZES, ModelConfig
from corpusmill.trainer.order import DEFAULT_LANES

OBJECTIVES = ("next-token", "compact", "all-ngrams")
MIX_SCHEDULES = ("constant", "linear-to-zero")
OPTIMIZERS = ("adamw", "adafactor")
SCHEDULES = ("rsqrt", "cosine", "constant")
PRECISIONS = ("auto", "float32", "bfloat16")
DEVICES = ("auto", "cpu", "cuda")
PARALLEL = ("ddp", "fsdp")
STARTS = ("anywhere", "documents")

_DATASETS = "folder or URL of a tokens, compressed or examples dataset"
_RUN = "folder or URL of a run or a checkpoint"
_PRECISION = "precision of matrices; auto: bfloat16 on GPUs that can"
_DEVICE = "device; auto: a GPU, if there is one"

_USUAL_SIZE = "3m"
# Of the steps the warm-up is one in so many, up to so many.
_WARMUP_SHARE, _LONGEST_WARMUP = 10, 1000
# A batch has to fit in memory; what is more is a slip.
_MOST = 1 << 24


@dataclass(frozen=True)
class TrainOptions:
    """A training run.

    Attributes:
      target: what targets are made of that are computed from counts.
      workers: for each process that trains.
      validate_every: the last step has an evaluation, too; so it is with checkpoints.

    Raises:
      UsageError: a value isn't accepted, or doesn't fit another one.
    """

    tokens: str = option(_DATASETS, metavar=FOLDER)
    output: str = option("folder or URL of the run", metavar=FOLDER)
    steps: int = option("optimizer steps in all", least=1)
    targets: str | None = option(
        "folder or URL of the targets made from it by enrich", None, metavar=FOLDER
    )
    counts: str | None = option(
        "folder or URL of counts, from which compact targets or those of all n-grams are computed",
        None,
        metavar=FOLDER,
    )
    target: TargetOptions | None = None
    size: str | None = option(
        "size of the model: parameters without the embedding (default: 3m)", None, choices=SIZES
    )
    width: int | None = option("width of hidden states, instead of the size's", None, least=1)
    heads: int | None = option(
        "attention heads in a layer, which share the width, instead of the size's",
        None,
        least=1,
    )
    layers: int | None = option("layers, instead of the size's", None, least=1)
    mlp_width: int | None = option(
        "width of the MLP's inner states, instead of the size's", None, least=1
    )
    start: str | None = option(
        "run or checkpoint whose parameters and shape the model begins with",
        None,
        name="from",
        metavar="RUN",
    )
    mask_documents: bool = option("tokens see nothing before their document", False)
    objective: str = option(
        "distributions that are learnt: one-hot; compact targets, of --targets or --counts; or"
        " those of all n-grams of --counts",
        "next-token",
        choices=OBJECTIVES,
    )
    mix: float = option(
        "share of the targets in the loss, 0 to 1; the rest is about the next tokens",
        1.0,
        metavar="SHARE",
        least=0,
    )
    mix_schedule: str = option(
        "course of that share over the run", "constant", choices=MIX_SCHEDULES
    )
    batch_size: int = option("sequences in a micro-batch", 32, least=1, most=_MOST)
    accumulate: int = option("micro-batches of each process in a step", 1, least=1, most=_MOST)
    length: int = option("tokens of a sequence", 512, least=1, most=_MOST)
    optimizer: str = option("optimizer", "adamw", choices=OPTIMIZERS)
    learning_rate: float = option("highest learning rate", 1e-3, metavar="RATE", least=0)
    schedule: str = option(
        "course of the learning rate after the warm-up", "rsqrt", choices=SCHEDULES
    )
    warmup: int | None = option(
        "steps in which the learning rate rises (default: a tenth of all, 1000 at most)",
        None,
        least=0,
    )
    weight_decay: float | None = option(
        "weight decay of matrices (default: 0.1; adafactor: 0)", None, metavar="D", least=0
    )
    betas: tuple[float, float] | None = option(
        "decay of the averages of adamw (default: 0.9 0.95)", None, metavar="B"
    )
    z_loss: float = option(
        "weight of the squared log partition function in the loss", 0.0, metavar="WEIGHT", least=0
    )
    clip: float = option(
        "norm to which longer gradients are cut; 0: none", 1.0, metavar="NORM", least=0
    )
    seed: int = option("seed of the first parameters and the data's order", 0, least=0)
    lanes: int = option(
        "streams of row groups that batches are taken from in turn; a multiple of processes x"
        " loader workers has each row group read once",
        DEFAULT_LANES,
        least=1,
        most=_MOST,
    )
    workers: int = option(
        "processes that read data; 0: this one", 0, name="loader-workers", least=0
    )
    validate: str | None = option(
        "folder or URL of a dataset like that of --tokens, to evaluate on", None, metavar=FOLDER
    )
    validate_tokens: int | None = option(
        "first tokens of it that are evaluated on, in whole batches (default: all)",
        None,
        least=1,
    )
    validate_every: int = option("steps between two evaluations", 1000, least=1)
    checkpoint_every: int = option("steps between two checkpoints", 1000, least=1)
    keep: int = option("checkpoints that are kept", 2, least=1)
    precision: str = option(_PRECISION, "auto", choices=PRECISIONS)
    compile: bool = option("has PyTorch compile the layers", False)
    device: str = option(_DEVICE, "auto", choices=DEVICES)
    parallel: str = option(
        "sharing of the work among processes of torchrun", "ddp", choices=PARALLEL
    )

    def __post_init__(self) -> None:
        check(self)
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
        numbers = {name: getattr(self, name) for name in _SHAPE if name != "size"}
        config = ModelConfig.of(self.size or _USUAL_SIZE, vocabulary_size, **numbers)
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
    "lanes",
    "compile",
    "validate_tokens",
)
_SHAPE = ("size", "width", "heads", "layers", "mlp_width")


def _option(name: str) -> str:
    return flag(TrainOptions, name)


@dataclass(frozen=True)
class M1Options:
    """A run of `train-m1`.

    Attributes:
      training: how it trains; `tokens` is empty where `input` is given.

    Raises:
      UsageError: there is not exactly one kind of text.
    """

    training: TrainOptions
    input: tuple[str, ...] = option(
        "documents instead, as tokenize reads them; may be repeated", (), metavar="GLOB"
    )
    starts: str = option(
        "places where the runs that are learnt start: anywhere, as windows do, or where they do in"
        " documents that are coded as a whole",
        "anywhere",
        choices=STARTS,
    )

    def __post_init__(self) -> None:
        check(self)
        if bool(self.training.tokens) == bool(self.input):
            raise UsageError("give either --tokens DIR or --input GLOB: what is learnt")


@dataclass(frozen=True)
class EvaluateOptions:
    """An evaluation.

    Raises:
      UsageError: a value isn't accepted.
    """

    run: str = option(_RUN, metavar=FOLDER)
    tokens: str = option(_DATASETS, metavar=FOLDER)
    output: str | None = option("file or URL for the results as JSON", None, metavar=FILE)
    batch_size: int = option("sequences at once", 32, least=1)
    length: int | None = option("tokens of a sequence (default: as in the run)", None, least=1)
    stride: int | None = option(
        "tokens from one sequence to the next; they overlap, and only what is new is predicted"
        " (default: the length)",
        None,
        least=1,
    )
    workers: int = option(
        "processes that read data; 0: this one", 0, name="loader-workers", least=0
    )
    precision: str = option(_PRECISION, "auto", choices=PRECISIONS)
    device: str = option(_DEVICE, "auto", choices=DEVICES)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class GenerateOptions:
    """Texts to be made.

    Raises:
      UsageError: a value isn't accepted.
    """

    run: str = option(_RUN, metavar=FOLDER)
    prompt: str = option("beginning of the text (default: none)", "", metavar="TEXT")
    max_tokens: int = option("ids at most, those of the prompt not counted", 200, least=1)
    number: int = option("texts", 1, least=1)
    temperature: float = option(
        "number that logits are divided by; 0: the most likely id always", 1.0, metavar="T", least=0
    )
    top_p: float = option("probability of the likely ids that are drawn from", 1.0, metavar="SHARE")
    seed: int = option("seed of the draws", 0, least=0)
    device: str = option(_DEVICE, "auto", choices=DEVICES)

    def __post_init__(self) -> None:
        check(self)
        # Written so that a NaN is refused.
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p {self.top_p} is not a share above 0, up to 1")
