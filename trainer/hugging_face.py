"""Compact targets in the Hugging Face Trainer, without its packages: rows, a collator, a loss."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corpusmill.corpus import storage
from corpusmill.corpus.datasets import Manifest, read_manifest
from corpusmill.corpus.tokens import read_rows
from corpusmill.ngram_agg.heads import WEIGHT_UNITS
from corpusmill.ngram_agg.targets_files import TargetsReader
from corpusmill.trainer.batches import IGNORED, start_id
from corpusmill.trainer.losses import sparse_cross_entropy
from corpusmill.trainer.row_groups import read_targets_manifest


def target_rows(tokens: str, targets: str, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of a tokens dataset with their targets, file by file, for a `CompactCollator`.

    `datasets.IterableDataset.from_generator(target_rows, gen_kwargs={...})` shares a list of names
    among workers.

    Args:
      tokens: path or URL of a tokens dataset.
      targets: path or URL of the targets that were made from it.
      names: of files of the tokens dataset.

    Yields:
      `tokens`, ids [length]; `target_tokens` and `target_weights`, [length * slots].

    Raises:
      DatasetError: there is no such dataset, or the targets belong to other tokens.
      DataError: a file is missing or damaged.
    """
    manifest = read_manifest(tokens, "tokens")
    reader = TargetsReader(targets, read_targets_manifest(targets, manifest))
    slots = reader.manifest.properties["head"], reader.manifest.properties["tail_draws"]
    sha256 = {record.name: record.sha256 for record in manifest.data_files}
    for name in names:
        url = storage.join(tokens, name)
        for group, (ids, ends) in enumerate(read_rows(url)):
            _, found = reader.read(name, group, sha256[name], ends)
            first = 0
            for last, row in zip(ends.tolist(), found.split(np.diff(ends, prepend=0)), strict=True):
                dense = row.dense(*slots)
                yield {
                    "tokens": ids[first:last],
                    "target_tokens": dense[0].reshape(-1),
                    "target_weights": dense[1].reshape(-1),
                }
                first = last


class CompactLabels(dict[str, Tensor]):
    """Labels of which the Trainer can count what is predicted, to divide a step's loss by it."""

    def __getitem__(self, key: Any) -> Any:
        # For models that predict the next token themselves the Trainer counts labels[..., 1:]; here
        # the next tokens are what stands there already.
        return self if isinstance(key, tuple) else super().__getitem__(key)

    def ne(self, ignored: int) -> Tensor:
        """Where there is something to predict."""
        return super().__getitem__("next_tokens").ne(ignored)


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
        # Targets are of a tokenizer's ids, never of a codec's.
        end = start_id(manifest.tokenizer)
        return cls(manifest.properties["slots"], end, length)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Fills the rows up to the longest one.

        Args:
          rows: each with `tokens`, `target_tokens` and `target_weights`.

        Returns:
          `input_ids` and `attention_mask`, int64 of shape [rows, length], and as `labels`
          `CompactLabels` for `compact_loss`.
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
            "labels": CompactLabels(
                next_tokens=torch.from_numpy(next_tokens),
                target_tokens=torch.from_numpy(tokens.reshape(shape)),
                target_weights=torch.from_numpy(weights.reshape(shape) / WEIGHT_UNITS),
            ),
        }


def compact_loss(
    outputs: Any, labels: Mapping[str, Tensor], num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """The Trainer's `compute_loss_func` for batches of a `CompactCollator`.

    Args:
      outputs: of the model, with `logits` of shape [rows, length, vocabulary].
      labels: of the batch.
      num_items_in_batch: predictions of the whole step, of which the batch may be a part; by
        default those of the batch.
    """
    losses = sparse_cross_entropy(
        outputs["logits"], labels["target_tokens"], labels["target_weights"]
    )
    if num_items_in_batch is None:
        num_items_in_batch = (labels["next_tokens"] != IGNORED).sum()
    return losses.sum() / num_items_in_batch
