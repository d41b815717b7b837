"""What a model learns from in a step, and the ids that it reads."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

IGNORED = -100


def start_id(tokenizer: Mapping[str, Any]) -> int:
    """The id that a model reads before a row: the end of the document before it.

    Codecs have no such id; theirs is the first one that isn't in the vocabulary.

    Args:
      tokenizer: as in a manifest.
    """
    end_of_document = tokenizer["end_of_document"]
    return int(tokenizer["vocabulary_size"] if end_of_document is None else end_of_document)


def model_vocabulary(tokenizer: Mapping[str, Any]) -> int:
    """How many ids a model of such tokens reads: those of the vocabulary, and the `start_id`."""
    return max(int(tokenizer["vocabulary_size"]), start_id(tokenizer) + 1)


class Batch(NamedTuple):
    """Sequences to learn from.

    Attributes:
      tokens: what the model reads, int64 of shape [batch, length].
      next_tokens: what it predicts, int64 of shape [batch, length]; `IGNORED` where there is
        nothing to predict.
      target_tokens: int32 of shape [batch, length, slots]; None without targets.
      target_weights: float32 of shape [batch, length, slots], of sum 1 where there is something to
        predict, else 0; None without targets.
      bytes: int64 of shape [batch], the UTF-8 lengths of the documents that end in each sequence;
        float64 where that is estimated.
      target_offsets: with full distributions, whose lengths differ, target tokens and weights are
        flat, of shape [entries], and position i of the flattened batch has the entries
        target_offsets[i] to target_offsets[i + 1]: int64 of shape [batch * length + 1]; else None.
      places: of the ids of a codec, the place of each next token in its row, from 0: int64 of shape
        [batch, length]; None for a tokenizer's.
    """

    tokens: Tensor
    next_tokens: Tensor
    target_tokens: Tensor | None
    target_weights: Tensor | None
    bytes: Tensor
    target_offsets: Tensor | None = None
    places: Tensor | None = None


def join_batches(batches: Sequence[Batch]) -> Batch:
    """One batch of all sequences."""
    if len(batches) == 1:
        return batches[0]
    columns = zip(*batches, strict=True)
    joined = Batch._make(None if column[0] is None else torch.cat(column) for column in columns)
    if joined.target_offsets is None:
        return joined
    sizes = [batch.target_offsets.diff() for batch in batches if batch.target_offsets is not None]
    ends = torch.cat(sizes).cumsum(0)
    return joined._replace(target_offsets=torch.cat([ends.new_zeros(1), ends]))


class Task(NamedTuple):
    """What the logits of some positions are for.

    Attributes:
      next_tokens: int64 of shape [positions]; `IGNORED` where there is nothing to predict.
      offsets: position i has the entries offsets[i] to offsets[i + 1] of tokens and weights: int64
        of shape [positions + 1]. Those of a `part` don't begin at 0.
      tokens: target tokens of all positions, whatever part this is: an integer type, of shape
        [entries].
      weights: theirs, floating point of shape [entries].
      scale: what losses are multiplied by, without dimensions; float32, or float64 with logits of
        that type.
      mix: share of the targets in the loss, 0 to 1.
      z_loss: weight of the squared log partition function.
    """

    next_tokens: Tensor
    offsets: Tensor
    tokens: Tensor
    weights: Tensor
    scale: Tensor
    mix: float
    z_loss: float

    def part(self, rows: slice) -> "Task":
        """That of some of the positions."""
        return self._replace(
            next_tokens=self.next_tokens[rows],
            offsets=self.offsets[rows.start : rows.stop + 1],
        )
