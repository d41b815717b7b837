"""A model together with what it's trained for, as the one module that processes share."""

import torch
from torch import Tensor, nn

from corpusmill.corpus.errors import UsageError
from corpusmill.trainer.batches import IGNORED, Batch
from corpusmill.trainer.losses import Loss, linear_cross_entropy, most_likely
from corpusmill.trainer.models import Transformer


class Objective(nn.Module):
    """Computes the loss of a batch.

    Model and loss are one module, because the loss needs the model's output weight, which FSDP
    has as a whole only while its module runs.
    """

    def __init__(self, model: Transformer, precision: torch.dtype, z_loss: float = 0.0) -> None:
        """Joins a model and a loss.

        Args:
          model: the model; its parameters stay in their type.
          precision: in which matrices are multiplied, float32 or bfloat16.
          z_loss: weight of the squared log partition function in the loss.
        """
        super().__init__()
        self.model = model
        self._precision = precision
        self._z_loss = z_loss

    def forward(
        self, batch: Batch, mix: float, positions: Tensor | int, predict: bool = False
    ) -> Loss:
        """The loss of a batch on the model's device.

        Args:
          batch: what to predict.
          mix: how much of the loss is about the targets; the rest is about the next tokens.
          positions: what the sums over the batch's predictions are divided by.
          predict: whether to find the most likely tokens, too.
        """
        device = batch.tokens.device
        with torch.autocast(device.type, self._precision, self._precision != torch.float32):
            hidden, weight = self.model(batch.tokens).flatten(0, 1), self.model.output_weight
            loss = linear_cross_entropy(
                hidden,
                weight,
                batch.next_tokens.flatten(),
                _by_position(batch.target_tokens),
                _by_position(batch.target_weights),
                target_offsets=batch.target_offsets,
                mix=mix,
                z_loss=self._z_loss,
                positions=positions,
            )
            return loss._replace(predicted=most_likely(hidden, weight)) if predict else loss


def _by_position(targets: Tensor | None) -> Tensor | None:
    """Of shape [positions, slots], or flat as they are."""
    return targets.flatten(0, 1) if targets is not None and targets.dim() == 3 else targets


def predictions(batch: Batch) -> Tensor:
    """How many tokens are predicted: an int64 without dimensions."""
    return (batch.next_tokens != IGNORED).sum()


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    return Batch._make(None if each is None else each.to(device) for each in batch)


def matrix_type(precision: str, device: torch.device) -> torch.dtype:
    """The type that `--precision` means on a device.

    Raises:
      UsageError: the device cannot multiply in it.
    """
    if device.type == "cuda" and precision != "float32":
        if torch.cuda.is_bf16_supported():
            return torch.bfloat16
        if precision == "bfloat16":
            raise UsageError("--precision bfloat16: this GPU has no bfloat16; use float32")
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def precision_name(precision: str, device: torch.device) -> str:
    """The name of that type; raises what `matrix_type` raises."""
    return str(matrix_type(precision, device)).removeprefix("torch.")
