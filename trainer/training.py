"""A model that learns, step by step.

A step takes `accumulate` micro-batches in each process. The loss is divided by the number of
predictions in the whole step, so neither the size of the micro-batches nor the number of processes
that share them makes a difference.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import state_dict as whole
from torch.distributed.tensor import DTensor

from corpusmill.corpus.errors import UsageError
from corpusmill.trainer.batches import Batch
from corpusmill.trainer.checkpoints import Checkpoint
from corpusmill.trainer.distributed import Processes, gradients_exchanged
from corpusmill.trainer.metrics import Outcome
from corpusmill.trainer.model_config import ModelConfig
from corpusmill.trainer.models import Transformer
from corpusmill.trainer.objective import Objective, matrix_type, on_device, predictions
from corpusmill.trainer.optim import make_optimizer, make_schedule
from corpusmill.trainer.options import TrainOptions

# That PyTorch looks for.
_COMPILERS = ("g++", "clang++")


class Trainer:
    """A model and an optimizer, step by step, alone or together with other processes."""

    def __init__(
        self,
        options: TrainOptions,
        model: ModelConfig,
        processes: Processes,
        parameters: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Makes the model that the seed decides, or with these parameters, the same everywhere."""
        torch.manual_seed(options.seed)
        transformer = Transformer(model)
        if parameters is not None:
            transformer.load_state_dict(parameters)
        if options.compile:
            # When they are first called.
            for block in transformer.blocks:
                block.compile()
        precision = matrix_type(options.precision, processes.device)
        objective = Objective(transformer, precision, options.z_loss)
        self.step = 0
        self._model = transformer
        self.objective = processes.wrap(objective, options.parallel, transformer.blocks)
        self._options, self._processes = options, processes
        self.optimizer = make_optimizer(
            options.optimizer,
            transformer,
            options.learning_rate,
            options.weight_decay,
            options.betas,
        )
        self._schedule = make_schedule(
            options.schedule, options.learning_rate, options.warmup_steps, options.steps
        )

    @property
    def parameters(self) -> int:
        """Numbers that the model has."""
        return sum(each.numel() for each in self._model.parameters())

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
        """Goes on from a checkpoint of a run with the same configuration.

        Args:
          checkpoint: the same in all processes, but that the first one's parameters alone are
            looked at: it sends each tensor to the others.
        """
        options = whole.StateDictOptions(
            full_state_dict=True, broadcast_from_rank0=self._processes.ranks > 1
        )
        optimizer: Any = {}
        if self._processes.is_first:
            states: dict[str, dict[str, Tensor]] = {}
            for key, tensor in checkpoint.optimizer.items():
                parameter, name = key.rsplit("/", 1)
                states.setdefault(parameter, {})[name] = tensor
            optimizer = whole.get_optimizer_state_dict(self._model, self.optimizer)
            optimizer |= {"state": states}
        whole.set_optimizer_state_dict(
            self._model, self.optimizer, optim_state_dict=optimizer, options=options
        )
        # Last: PyTorch has taken an empty step to learn what state the optimizer keeps.
        whole.set_model_state_dict(self._model, dict(checkpoint.model), options=options)
        torch.set_rng_state(checkpoint.random["cpu"])
        if self._processes.device.type == "cuda" and "cuda" in checkpoint.random:
            torch.cuda.set_rng_state(checkpoint.random["cuda"])
        self.step = checkpoint.step


def expect_compiler(device: torch.device) -> None:
    """Raises UsageError where PyTorch has nothing to compile layers with."""
    if device.type == "cpu" and not any(map(shutil.which, _COMPILERS)):
        raise UsageError(
            f"--compile needs a C++ compiler ({' or '.join(_COMPILERS)}); install one, or leave it"
            " out"
        )


def _random_states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state()} if device.type == "cuda" else states


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
