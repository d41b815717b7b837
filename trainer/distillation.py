"""Compact targets from a model: a few likely tokens, and tokens drawn from all others.

The k most likely tokens alone, with their probabilities made to add up to 1, are another
distribution than the model's; with drawn ones the target is the model's in expectation.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from corpusmill.ngram_agg.given_targets import Part
from corpusmill.trainer.batches import IGNORED, Batch
from corpusmill.trainer.models import Transformer


def sample_distribution(logits: Tensor, head: int, points: Tensor) -> tuple[Tensor, Tensor]:
    """What `write_targets` takes of a distribution.

    Args:
      logits: floating point of shape [positions, vocabulary].
      head: likely tokens that are kept with their probabilities.
      points: from 0, below 1, of shape [positions, tail_draws]: each draws one of all others, in
        proportion to their probabilities, by the inverse of the distribution function over the ids.

    Returns:
      Ids, int64 of shape [positions, head + tail_draws], and the probabilities of the first `head`
      of them, float64 of shape [positions, head].
    """
    probabilities = logits.double().softmax(-1)
    kept, ids = probabilities.topk(head)
    below = probabilities.scatter(-1, ids, 0.0).cumsum(-1)
    drawn = torch.searchsorted(below, points.double() * below[:, -1:], right=True)
    return torch.cat([ids, drawn.clamp(max=logits.shape[-1] - 1)], -1), kept


@torch.no_grad()
def model_distributions(
    model: Transformer, batches: Iterable[Batch], head: int, tail_draws: int, seed: int = 0
) -> Iterator[Part]:
    """What a model expects at each position of a dataset, for `write_targets`.

    Args:
      model: the teacher, on its device.
      batches: one epoch of the dataset, not shuffled, on any device.
      head: likely tokens of a position.
      tail_draws: tokens drawn for all others.
      seed: of the draws.
    """
    # The raw numbers of a bit generator are promised to stay as they are.
    source = np.random.PCG64(np.random.SeedSequence(seed))
    weight = model.output_weight[: model.config.vocabulary_size]
    for batch in batches:
        hidden = model(batch.tokens.to(weight.device))[batch.next_tokens != IGNORED]
        raw = source.random_raw(len(hidden) * tail_draws).reshape(len(hidden), tail_draws)
        points = torch.from_numpy((raw >> np.uint64(11)) * 2.0**-53).to(weight.device)
        ids, probabilities = sample_distribution(hidden @ weight.T, head, points)
        yield ids.cpu().numpy(), probabilities.cpu().numpy()
