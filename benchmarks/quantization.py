"""What does each part of the exact arithmetic of a transformer byte model cost, in bits per byte?

The float network that `train-m1` trained, in float64, with the roundings of the exact model put in
one after the other, and each alone (docs/exact-m1.md). With all of them it says what the exact
model says, or there is an error.
"""

import argparse
import functools
import sys
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks import measure
from corpusmill.compress.byte_models import TransformerModel, open_model
from corpusmill.compress.byte_models.byte_model import quantize
from corpusmill.compress.byte_models.transformer_state import START
from corpusmill.compress.byte_models.transformer_weights import (
    ACTIVATION_BITS,
    LARGEST_GATE,
    LIMIT,
    SCORE_BITS,
    WEIGHT_BITS,
    merged_weights,
)
from corpusmill.compress.datasets.samples import sample_text
from corpusmill.corpus.datasets import read_manifest
from corpusmill.trainer.byte_runs import ByteRunOptions, ByteRuns
from corpusmill.trainer.opening import open_model as opened_model
from corpusmill.trainer.train_m1 import bits_per_byte, network_weights

PARTS = {
    "weights": "weights rounded to 2^-14, embeddings to 2^-12",
    "activations": "activations rounded to 2^-12, the norm's root and quotients too",
    "functions": "exponentials, sigmoids, sines, cosines from tables; scores, logits to 2^-10",
    "frequencies": "frequencies of 16 bits, each at least 1",
}
_ACTIVATION = 1 << ACTIVATION_BITS
_SCORE = 1 << SCORE_BITS
_WEIGHT = 1 << WEIGHT_BITS
# Of the network's norms.
_EPSILON = torch.finfo(torch.float32).eps
# Means of values are integers above 2^53 in the exact model.
_TOLERANCE = 1e-6


class Network:
    """A transformer in float64, some parts of which are as in the exact model."""

    def __init__(
        self, weights: Mapping[str, np.ndarray], exact: TransformerModel, parts: Collection[str]
    ) -> None:
        """Takes the floats, and the model that was made of them."""
        self._parts = parts
        self._exact = exact
        self._head_size = 2 * exact.tensors["cosines"].shape[1]
        self._tables = {
            name: torch.from_numpy(exact.tensors[name].astype(np.float64))
            for name in ("exponentials", "sigmoids", "cosines", "sines")
        }
        self._weights = {
            name: self._taken(name, torch.from_numpy(values.astype(np.float64)))
            for name, values in weights.items()
        }

    def _taken(self, name: str, values: Tensor) -> Tensor:
        if "weights" not in self._parts:
            return values
        unit = _ACTIVATION if name == "embedding" else _WEIGHT
        return torch.from_numpy(self._exact.tensors[name].astype(np.float64)) / unit

    @torch.inference_mode()
    def bits(self, tokens: Tensor, following: Tensor) -> float:
        """What the bytes of runs take that follow, -1 where none does."""
        weights = self._weights
        hidden = self._rounded(weights["embedding"][tokens])
        for layer in range(len(weights["attention_input"])):
            queries, keys, values = (
                self._by_head(each)
                for each in self._projected(
                    self._normalized(hidden), weights["attention_input"][layer]
                ).chunk(3, -1)
            )
            mixed = self._attended(self._turned(queries), self._turned(keys), values)
            mixed = mixed.transpose(1, 2).reshape(*hidden.shape[:2], -1)
            output = weights["attention_output"][layer]
            hidden = self._rounded(hidden + self._projected(mixed, output))
            gates, inner = self._projected(
                self._normalized(hidden), weights["mlp_input"][layer]
            ).chunk(2, -1)
            gated = self._rounded(self._silu(gates) * inner)
            hidden = self._rounded(hidden + self._projected(gated, weights["mlp_output"][layer]))
        logits = self._normalized(hidden) @ weights["output"].T
        places = following >= 0
        return self._cost(logits[places], following[places])

    def _rounded(self, values: Tensor) -> Tensor:
        if "activations" not in self._parts:
            return values
        whole = torch.floor(values * _ACTIVATION + 0.5)
        return whole.clamp(-LIMIT, LIMIT) / _ACTIVATION

    def _lowered(self, values: Tensor) -> Tensor:
        """Rounded down."""
        if "activations" not in self._parts:
            return values
        return torch.floor(values * _ACTIVATION) / _ACTIVATION

    def _projected(self, values: Tensor, matrix: Tensor) -> Tensor:
        return self._rounded(values @ matrix.T)

    def _by_head(self, values: Tensor) -> Tensor:
        return values.reshape(*values.shape[:2], -1, self._head_size).transpose(1, 2)

    def _normalized(self, hidden: Tensor) -> Tensor:
        width = hidden.shape[-1]
        if "activations" not in self._parts:
            return hidden / (hidden.square().mean(-1, keepdim=True) + _EPSILON).sqrt()
        whole = (hidden * _ACTIVATION).long()
        root = ((whole.square().sum(-1, keepdim=True) << 8) // width).double().sqrt().long()
        return ((whole * ((1 << 40) // (root + 1)) + (1 << 23)) >> 24).double() / _ACTIVATION

    def _turned(self, vectors: Tensor) -> Tensor:
        length, pairs = vectors.shape[2], self._head_size // 2
        if "functions" in self._parts:
            cosines, sines = (
                self._tables[name][:length] / _WEIGHT for name in ("cosines", "sines")
            )
        else:
            powers = torch.arange(pairs, dtype=torch.float64) / pairs
            angles = torch.outer(torch.arange(length, dtype=torch.float64), 10_000.0**-powers)
            cosines, sines = angles.cos(), angles.sin()
        real, imaginary = vectors.unflatten(-1, (pairs, 2)).unbind(-1)
        turned = (real * cosines - imaginary * sines, real * sines + imaginary * cosines)
        return self._rounded(torch.stack(turned, -1).flatten(-2))

    def _attended(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        scores = self._scored(queries @ keys.mT)
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
        weights = self._exponentials(scores - scores.amax(-1, keepdim=True))
        mean = (weights @ values) / weights.sum(-1, keepdim=True)
        return self._lowered(mean)

    def _scored(self, values: Tensor) -> Tensor:
        return torch.floor(values * _SCORE) / _SCORE if "functions" in self._parts else values

    def _exponentials(self, values: Tensor) -> Tensor:
        """Of values that are not above 0."""
        if "functions" not in self._parts:
            return values.exp()
        table = self._tables["exponentials"]
        places = (-values * _SCORE).clamp(max=len(table))
        return torch.cat([table, table.new_zeros(1)])[places.long()] / (1 << 30)

    def _silu(self, values: Tensor) -> Tensor:
        if "functions" not in self._parts:
            return self._lowered(torch.nn.functional.silu(values))
        places = torch.floor((values + LARGEST_GATE) * _SCORE).long()
        table = self._tables["sigmoids"]
        return self._lowered(values * table[places.clamp(0, len(table) - 1)] / (1 << 16))

    def _cost(self, logits: Tensor, following: Tensor) -> float:
        scores = self._scored(logits)
        weights = self._exponentials(scores - scores.amax(-1, keepdim=True))
        if "frequencies" not in self._parts:
            shares = weights / weights.sum(-1, keepdim=True)
            return -shares.gather(1, following[:, None]).log2().sum().item()
        whole = (weights * (1 << 30)).numpy().astype(np.uint64)
        shares = (whole << np.uint64(32)) // whole.sum(axis=1, keepdims=True)
        frequencies = np.empty(shares.shape, np.uint32)
        for row, share in zip(frequencies, shares, strict=True):
            quantize(share, self._exact.precision, row)
        found = frequencies[np.arange(len(frequencies)), following.numpy()]
        return -float(np.log2(found / 2**self._exact.precision).sum())


def load(run: str) -> tuple[dict[str, np.ndarray], TransformerModel]:
    """The weights of a run of `train-m1`, and the exact model that it saved."""
    exact = open_model(run)
    assert isinstance(exact, TransformerModel)
    inner, pairs = (exact.tensors[name].shape[-1] for name in ("attention_output", "cosines"))
    weights = network_weights(opened_model(run).model)
    return merged_weights(weights, heads=inner // (2 * pairs)), exact


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantization", description=__doc__)
    parser.add_argument("--m1", required=True, help="folder of a run of `train-m1`")
    parser.add_argument("--tokens", required=True, help="tokens dataset of bytes to evaluate on")
    parser.add_argument("--kilobytes", type=int, default=64, help="of text, in runs")
    arguments = parser.parse_args(argv)
    weights, exact = load(arguments.m1)
    text = sample_text(arguments.tokens, read_manifest(arguments.tokens), 64 << 20)
    number = max(1, arguments.kilobytes * 1024 // exact.length // 64)
    batches = list(ByteRuns(text, ByteRunOptions("anywhere", exact.length, 64, 0), batches=number))
    size = sum(int((batch.next_tokens >= 0).sum()) for batch in batches)

    @functools.cache
    def bits(parts: tuple[str, ...], precision: int = exact.precision) -> float:
        network = Network(weights, TransformerModel(exact.tensors, precision), parts)
        return sum(network.bits(each.tokens, each.next_tokens) for each in batches) / size

    base = bits(())
    names = tuple(PARTS)
    rows = [("none: float64", base, 0.0, 0.0)]
    for last, name in enumerate(names, 1):
        together, alone = bits(names[:last]), bits((name,))
        print(f"{name}: {together:.6f}, alone {alone:.6f}", file=sys.stderr, flush=True)
        cost = (100 * (each / base - 1) for each in (together, alone))
        rows.append((PARTS[name], together, *cost))
    expected = bits_per_byte(exact, batches)
    if abs(expected - rows[-1][1]) > _TOLERANCE:
        raise SystemExit(f"all parts together give {rows[-1][1]}, the exact model {expected}")
    for precision in (14, 20):
        other = bits(names, precision)
        cost = 100 * (other / base - 1)
        rows.append((f"all of it, but frequencies of {precision} bits", other, cost, cost))
    measure.print_table(
        f"bits per byte of {size:,} bytes in runs of {exact.length}, {START} before each",
        ("part", "with those above", "costs, %", "alone, %"),
        [(name, f"{value:.5f}", *map("{:.4f}".format, costs)) for name, value, *costs in rows],
    )


if __name__ == "__main__":
    main(sys.argv[1:])
