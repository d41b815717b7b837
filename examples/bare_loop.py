"""Compact targets in a training loop and a model of your own.

python examples/bare_loop.py data/tokens data/targets
"""

import itertools
import sys

import torch
from torch import nn

from corpusmill.trainer.data import Loader, TokenDataset
from corpusmill.trainer.losses import sparse_cross_entropy
from corpusmill.trainer.order import DataOptions


def train(tokens: str, targets: str, steps: int = 50) -> list[float]:
    """Returns the loss of each step; both datasets may be URLs."""
    dataset = TokenDataset(tokens, DataOptions(batch_size=8, length=64), targets)
    vocabulary_size = dataset.manifest.tokenizer["vocabulary_size"]
    model = nn.Sequential(nn.Embedding(vocabulary_size, 64), nn.Linear(64, vocabulary_size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for batch in itertools.islice(Loader(dataset, workers=1), steps):
        each = sparse_cross_entropy(model(batch.tokens), batch.target_tokens, batch.target_weights)
        loss = each.sum() / batch.target_weights.sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    print(train(*sys.argv[1:]))
