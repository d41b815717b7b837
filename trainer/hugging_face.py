"""Compact targets in the Hugging Face Trainer: a collator and a loss, without its packages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corpus.datasets import Manifest
from trainer.data import IGNORED
from trainer.losses import sparse_cross_entropy

_WEIGHT_UNITS = 65535


@dataclass(frozen=True)
class CompactCollator:
    """Rows of a tokens dataset beside those of its targets -> a batch of the Trainer.

    A row is a document or a part of a long one; what is longer than `length` is cut off.

    Attributes:
      slots: tokens with weights of a position.
      end_of_document: the token that stands before a document.
      length: tokens of the longest sequence.
    """

    slots: int
    end_of_document: int
    length: int

    @classmethod
    def of(cls, manifest: Manifest, length: int) -> "CompactCollator":
        """For the targets dataset that has this manifest."""
        end = manifest.tokenizer["end_of_document"]
        return cls(manifest.properties["slots"], end, length)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Fills the rows up to the longest one.

        Args:
          rows: each with `tokens`, `target_tokens` and `target_weights`.

        Returns:
          `input_ids` and `attention_mask`, int64 of shape [rows, length], and as `labels` a
          dictionary for `compact_loss`.
        """
        length = min(self.length, max(len(row["tokens"]) for row in rows))
        inputs = np.full((len(rows), length), self.end_of_document)
        next_tokens = np.full((len(rows), length), IGNORED)
        tokens = np.zeros((len(rows), length * self.slots), np.int64)
        weights = np.zeros((len(rows), length * self.slots), np.float32)
        for i, row in enumerate(rows):
            size = min(len(row["tokens"]), length)
            next_tokens[i, :size] = row["tokens"][:size]
            inputs[i, 1:size] = row["tokens"][: size - 1]
            tokens[i, : size * self.slots] = row["target_tokens"][: size * self.slots]
            weights[i, : size * self.slots] = row["target_weights"][: size * self.slots]
        shape = len(rows), length, self.slots
        return {
            "input_ids": torch.from_numpy(inputs),
            "attention_mask": torch.from_numpy((next_tokens != IGNORED).astype(np.int64)),
            "labels": {
                "next_tokens": torch.from_numpy(next_tokens),
                "target_tokens": torch.from_numpy(tokens.reshape(shape)),
                "target_weights": torch.from_numpy(weights.reshape(shape) / _WEIGHT_UNITS),
            },
        }


def compact_loss(
    outputs: Any, labels: Mapping[str, Tensor], num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """The Trainer's `compute_loss_func` for batches of a `CompactCollator`.

    Args:
      outputs: of the model, with `logits` of shape [rows, length, vocabulary].
      labels: of the batch.
      num_items_in_batch: what to divide by instead of the number of predictions.
    """
    losses = sparse_cross_entropy(
        outputs["logits"], labels["target_tokens"], labels["target_weights"]
    )
    if num_items_in_batch is None:
        num_items_in_batch = (labels["next_tokens"] != IGNORED).sum()
    return losses.sum() / num_items_in_batch
