"""Targets from a model are its distributions in expectation, and reach the trainer as such."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from corpusmill.trainer import (
    DataOptions,
    Loader,
    TokenDataset,
    model_distributions,
    sample_distribution,
    write_targets,
)
from corpusmill.trainer.model_config import ModelConfig
from corpusmill.trainer.models import Transformer
from tests.trainer import samples

HEAD, DRAWS = 4, 2


def test_draws_have_the_probabilities_of_the_tail():
    torch.manual_seed(0)
    logits = 2 * torch.randn(1, 30)
    expected = logits.double().softmax(-1)[0]
    count = 2000
    points = ((torch.arange(count) + 0.5) / count)[:, None]
    ids, kept = sample_distribution(logits.expand(count, -1), HEAD, points)
    order = expected.argsort(descending=True)
    assert torch.equal(ids[0, :HEAD], order[:HEAD])
    torch.testing.assert_close(kept[0], expected[order[:HEAD]])
    found = torch.bincount(ids[:, HEAD], minlength=30) / count
    tail = expected.clone()
    tail[order[:HEAD]] = 0
    assert (found - tail / tail.sum()).abs().max() <= 1 / count


@pytest.fixture(scope="module")
def teacher():
    """One that is sure of what it says: its distributions differ from position to position."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig.of("500k", samples.VOCABULARY, width=32, layers=1)).eval()
    with torch.no_grad():
        model.norm.weight.mul_(10)
    return model


@torch.no_grad()
def test_the_loader_gives_each_position_the_teachers_distribution(teacher, tmp_path):
    """Averaged over seeds, the targets of a batch are the softmax of its logits."""
    tokens = samples.write_tokens(tmp_path / "tokens", samples.random_files(1, [(60, 41), (30,)]))
    options = DataOptions(batch_size=2, length=16, shuffle=False)
    sums, seeds = 0.0, 10
    for seed in range(seeds):
        output = str(tmp_path / f"targets-{seed}")
        batches = Loader(TokenDataset(tokens, options, epochs=1))
        parts = model_distributions(teacher, batches, HEAD, DRAWS, seed)
        write_targets(tokens, output, parts, head=HEAD, tail_draws=DRAWS, made_of={"seed": seed})
        dense = []
        for batch in Loader(TokenDataset(tokens, options, output, epochs=1)):
            shape = (*batch.tokens.shape, samples.VOCABULARY)
            dense.append(
                torch.zeros(shape)
                .scatter_add(-1, batch.target_tokens.long(), batch.target_weights)
                .flatten(0, 1)
            )
        sums = sums + torch.cat(dense)
    expected = []
    for batch in Loader(TokenDataset(tokens, options, epochs=1)):
        logits = teacher(batch.tokens) @ teacher.output_weight[: samples.VOCABULARY].T
        predicted = (batch.next_tokens >= 0)[..., None]
        expected.append((logits.softmax(-1) * predicted).flatten(0, 1))
    mean, expected = sums / seeds, torch.cat(expected)
    head = expected.topk(HEAD).indices
    assert expected.gather(-1, head).sum(-1).mean() > 0.3
    assert torch.allclose(mean.gather(-1, head), expected.gather(-1, head), atol=1e-4)
    # Bits of single draws even out in sums over the vocabulary's halves.
    error = (mean - expected).unflatten(-1, (2, -1)).sum(-1)
    spread = 0.5 / np.sqrt(seeds * DRAWS)
    assert error.abs().max() < 5 * spread
    assert error.mean(0).abs().max() < 5 * spread / np.sqrt(len(error))


def test_the_reader_comes_without_beam():
    program = (
        "import sys;"
        " from corpusmill.trainer import TokenDataset, write_targets, linear_cross_entropy;"
        " print('apache_beam' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
