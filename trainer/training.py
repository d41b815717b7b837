"""A model that learns, step by step.

A step takes `accumulate` micro-batches in each process. The loss is divided by the number of
predictions in the whole step, so neither the size of the micro-batches nor the number of processes
that share them makes a difference.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import state_dict as whole
from torch.distributed.tensor import DTensor

from corpus.errors import UsageError
from ngram_agg.target_options import TargetOptions
from trainer.checkpoints import Checkpoint
from trainer.data import Batch
from trainer.distributed import DEVICES, PARALLEL, Processes, gradients_exchanged
from trainer.metrics import Outcome
from trainer.models import SIZES, ModelConfig, Transformer
from trainer.objective import PRECISIONS, Objective, matrix_type, on_device, predictions
from trainer.optim import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule

OBJECTIVES = ("next-token", "compact", "all-ngrams")
MIX_SCHEDULES = ("constant", "linear-to-zero")

_ACCEPTED = {
    "model": tuple(SIZES),
    "objective": OBJECTIVES,
    "mix_schedule": MIX_SCHEDULES,
    "optimizer": tuple(OPTIMIZERS),
    "schedule": tuple(SCHEDULES),
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

    def decisive(self, processes: Processes) -> dict[str, Any]:
        """What decides the result; the rest may be another one when the run goes on."""
        chosen = {name: getattr(self, name) for name in _DECISIVE}
        if self.target is not None:
            chosen["target"] = dataclasses.asdict(self.target)
        if self.schedule == "cosine" or self.mix_schedule == "linear-to-zero":
            chosen["steps"] = self.steps
        return chosen | {
            # However they are divided among processes.
            "micro_batches_per_step": self.accumulate * processes.ranks,
            "precision": str(matrix_type(self.precision, processes.device)).removeprefix("torch."),
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


class Trainer:
    """A model and an optimizer, step by step, alone or together with other processes."""

    def __init__(self, options: TrainOptions, model: ModelConfig, processes: Processes) -> None:
        """Makes the model that the seed decides, in every process the same."""
        torch.manual_seed(options.seed)
        transformer = Transformer(model)
        precision = matrix_type(options.precision, processes.device)
        objective = Objective(transformer, precision, options.z_loss)
        self.step = 0
        self._model = transformer
        self.objective = processes.wrap(objective, options.parallel, transformer.blocks)
        self._options, self._processes = options, processes
        self.optimizer = make_optimizer(options.optimizer, transformer, options.learning_rate)
        self._schedule = make_schedule(
            options.schedule, options.learning_rate, options.warmup, options.steps
        )

    @property
    def learning_rate(self) -> float:
        """Of the step to come, or of the one under way."""
        return self._schedule(self.step)

    def take_step(self, batches: Sequence[Batch]) -> Outcome:
        """Learns from this process's micro-batches of a step."""
        self.step += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        batches = [on_device(batch, self._processes.device) for batch in batches]
        positions = self._processes.add_up(torch.stack(list(map(predictions, batches))).sum())
        losses = self._backward(batches, positions)
        parameters = self.objective.parameters()
        norm = torch.nn.utils.clip_grad_norm_(parameters, self._options.clip or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return Outcome(losses[0], losses[1], _whole(norm), positions)

    def _backward(self, batches: Sequence[Batch], positions: Tensor) -> Tensor:
        """Adds up gradients; returns loss and next-token loss over all processes."""
        ranks = self._processes.ranks
        losses = torch.zeros(2, device=self._processes.device)
        for number, batch in enumerate(batches, 1):
            with gradients_exchanged(self.objective, number == len(batches)):
                loss = self.objective(batch, self._options.mix_at(self.step), positions)
                # Both DDP and FSDP average over the processes; this makes it a sum.
                (loss.total * ranks).backward()
            losses += torch.stack([loss.total.detach(), loss.next_token])
        return self._processes.add_up(losses)

    def checkpoint(self, state: Mapping[str, Any]) -> Checkpoint:
        """What is needed to go on from here; all processes call it, the first one has it all.

        There must have been a step: to learn what state the optimizer keeps, PyTorch would take an
        empty one.

        Args:
          state: what the checkpoint holds besides, as JSON.
        """
        options = whole.StateDictOptions(full_state_dict=True, cpu_offload=True)
        found: Any = whole.get_state_dict(self._model, self.optimizer, options=options)
        model, optimizer = found
        # Only the first process gets any.
        kept = optimizer.get("state", {})
        return Checkpoint(
            step=self.step,
            model=model,
            optimizer={
                f"{parameter}/{name}": tensor
                for parameter, tensors in kept.items()
                for name, tensor in tensors.items()
            },
            random=_random_states(self._processes.device),
            state=dict(state),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on from a checkpoint of a run with the same configuration."""
        states: dict[str, dict[str, Tensor]] = {}
        for key, tensor in checkpoint.optimizer.items():
            parameter, name = key.rsplit("/", 1)
            states.setdefault(parameter, {})[name] = tensor
        optimizer: Any = whole.get_optimizer_state_dict(self._model, self.optimizer)
        whole.set_state_dict(
            self._model,
            self.optimizer,
            model_state_dict=dict(checkpoint.model),
            optim_state_dict=optimizer | {"state": states},
            options=whole.StateDictOptions(full_state_dict=True),
        )
        torch.set_rng_state(checkpoint.random["cpu"])
        if self._processes.device.type == "cuda" and "cuda" in checkpoint.random:
            torch.cuda.set_rng_state(checkpoint.random["cuda"])
        self.step = checkpoint.step


def _random_states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state()} if device.type == "cuda" else states


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
