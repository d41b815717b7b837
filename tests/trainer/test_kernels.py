"""The Triton kernel against the same step in PyTorch: on a GPU, and interpreted on the CPU."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from corpusmill.trainer.batches import IGNORED, Task
from corpusmill.trainer.losses import linear_cross_entropy, replace_by_gradient

ROOT = Path(__file__).parents[2]
DTYPES = (torch.float32, torch.bfloat16)
# Less than a block, a whole one, and one with a single token in its last block.
VOCABULARIES = (100, 4096, 8193)

has_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs a GPU machine's package triton"
)


def task(vocabulary, device="cpu", mix=0.6, z_loss=0.01):
    """Rows without entries and with several, a token that occurs again, an ignored position."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.tensor([3, 0, 1, 4, 2, 9])
    offsets = functional.pad(counts.cumsum(0), (1, 0))
    tokens = torch.randint(0, vocabulary, (19,), generator=generator, dtype=torch.int32)
    next_tokens = torch.randint(0, vocabulary, (6,), generator=generator)
    next_tokens[2] = IGNORED
    tokens[1] = tokens[0] = next_tokens[0]
    weights = torch.rand(19, generator=generator)
    scale = torch.tensor(0.5)
    tensors = (next_tokens, offsets, tokens, weights, scale)
    return Task(*(each.to(device) for each in tensors), mix, z_loss)


def check(device, dtype, vocabulary):
    """Compares both steps."""
    from corpusmill.trainer import kernels

    for mix, z_loss in ((0.6, 0.01), (0.0, 0.0), (1.0, 0.0)):
        generator = torch.Generator().manual_seed(1)
        given = task(vocabulary, device, mix, z_loss)
        logits = 4 * torch.randn(6, vocabulary, generator=generator)
        # Masked entries of the vocabulary: whole lanes, and one that has a slot of weight 0.
        used = set(given.next_tokens.tolist()) | set(given.tokens.tolist())
        masked = [token for token in range(vocabulary) if token not in used and token % 8]
        logits[:, masked] = -torch.inf
        given.tokens[-1], given.weights[-1] = masked[0], 0
        ours = logits.to(device, dtype)
        expected = ours.float().clone()
        losses = kernels.replace_by_gradient(ours, given)
        torch.testing.assert_close(
            losses, replace_by_gradient(expected, given), rtol=1e-5, atol=1e-5
        )
        # Rounded after the softmax and after each entry: 8 bits of numbers below 1.
        tolerance = 1e-6 if dtype == torch.float32 else 2**-7
        torch.testing.assert_close(ours.float(), expected, rtol=tolerance, atol=tolerance)


@has_triton
def test_interpreted_kernel_equals_pytorch():
    # Triton decides when it is imported whether it compiles.
    done = subprocess.run(
        [sys.executable, "-m", test_interpreted_kernel_equals_pytorch.__module__],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocabulary", [*VOCABULARIES, 50_304])
def test_kernel_on_a_gpu_equals_pytorch(dtype, vocabulary):
    check("cuda", dtype, vocabulary)


@pytest.mark.gpu
def test_loss_on_a_gpu_equals_that_on_the_cpu():
    generator = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(300, 64, generator=generator),
        torch.randn(1000, 64, generator=generator) / 8,
        torch.randint(0, 1000, (300,), generator=generator),
        torch.randint(0, 1000, (300, 9), generator=generator, dtype=torch.int32),
        torch.rand(300, 9, generator=generator),
    )
    found = []
    for device in ("cpu", "cuda"):
        hidden, weight, *targets = (each.to(device) for each in inputs)
        hidden.requires_grad_()
        weight.requires_grad_()
        loss = linear_cross_entropy(hidden, weight, *targets, mix=0.5, z_loss=0.01, chunk=128)
        gradients = torch.autograd.grad(loss.total, (hidden, weight))
        found.append([each.cpu() for each in (*loss, *gradients)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5)


def main():
    torch.set_num_threads(1)
    for dtype in DTYPES:
        for vocabulary in VOCABULARIES:
            check("cpu", dtype, vocabulary)


if __name__ == "__main__":
    main()
