"""The numbers of the transformer byte model, M1: of a network of floats, and what is exact.

Fixed point: activations are in units of 2^-12 and clamped to +-256, weights in units of 2^-14,
angles' cosines and sines in units of 2^-14, scores and logits in units of 2^-10.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_models.transformer_state import START

Array = npt.NDArray[Any]

ACTIVATION_BITS = 12
WEIGHT_BITS = 14
SCORE_BITS = 10
EXPONENTIAL_BITS = 30
SIGMOID_BITS = 16
# exp(-x) is nothing beyond, the sigmoid is 0 or 1.
_LARGEST_EXPONENT = 22
LARGEST_GATE = 16
# Activations are clamped to this.
LIMIT = 1 << 20
# Integers up to here, and sums that stay below, are exact in float64.
_EXACT = 1 << 53
# Sums of squares, of products of queries and keys, and of weighted values have to fit 63 bits.
LARGEST_WIDTH = 1 << 13
LARGEST_LENGTH = 1 << 12

MATRICES = ("attention_input", "attention_output", "mlp_input", "mlp_output", "output")


class LayerWeights(NamedTuple):
    """Floats of a layer: gains of norms [width], matrices [outputs, inputs]."""

    attention_norm: Array
    query: Array
    key: Array
    value: Array
    attention_output: Array
    mlp_norm: Array
    gate: Array
    inner: Array
    mlp_output: Array


class NetworkWeights(NamedTuple):
    """What a trained network is, to the exact model that is made of it.

    Attributes:
      embedding: [257 or more tokens, width], which is the matrix of the logits, too.
      layers: one after the other.
      norm: [width], the gains of the last norm.
    """

    embedding: Array
    layers: Sequence[LayerWeights]
    norm: Array


def quantized_tensors(network: NetworkWeights, heads: int, length: int) -> dict[str, Array]:
    """The tensors of a network of floats; see `TransformerModel.quantized`."""
    weights = merged_weights(network, heads)
    embedding = weights.pop("embedding")
    head_size = weights["attention_output"].shape[2] // heads
    return {
        "embedding": _fixed(embedding, ACTIVATION_BITS),
        **{name: _fixed(values, WEIGHT_BITS) for name, values in weights.items()},
        **tables(length, head_size),
    }


def merged_weights(network: NetworkWeights, heads: int) -> dict[str, Array]:
    """A network's weights as `TransformerModel.tensors` has them, but as floats.

    Args:
      network: its weights.
      heads: attention heads in a layer.
    """
    layers = network.layers
    head_size = len(layers[0].query) // heads
    attention_inputs = [
        np.concatenate([layer.query / math.sqrt(head_size), layer.key, layer.value])
        * layer.attention_norm
        for layer in layers
    ]
    mlp_inputs = [np.concatenate([layer.gate, layer.inner]) * layer.mlp_norm for layer in layers]
    return {
        "embedding": network.embedding[: START + 1],
        "attention_input": np.array(attention_inputs),
        "attention_output": np.array([layer.attention_output for layer in layers]),
        "mlp_input": np.array(mlp_inputs),
        "mlp_output": np.array([layer.mlp_output for layer in layers]),
        "output": network.embedding[:START] * network.norm,
    }


def tables(length: int, head_size: int) -> dict[str, Array]:
    """The tensors that are functions' values."""
    frequencies = 10_000.0 ** -(np.arange(0, head_size, 2) / head_size)
    angles = np.outer(np.arange(length), frequencies)
    steps = 1 << SCORE_BITS
    exponents = np.arange(_LARGEST_EXPONENT * steps) / steps
    gates = (np.arange(2 * LARGEST_GATE * steps) + 0.5) / steps - LARGEST_GATE
    return {
        "cosines": _fixed(np.cos(angles), WEIGHT_BITS),
        "sines": _fixed(np.sin(angles), WEIGHT_BITS),
        "exponentials": _fixed(np.exp(-exponents), EXPONENTIAL_BITS),
        "sigmoids": _fixed(1 / (1 + np.exp(-gates)), SIGMOID_BITS),
    }


def _fixed(values: Array, bits: int) -> Array:
    scaled = np.rint(values.astype(np.float64) * (1 << bits))
    if not (np.abs(scaled) < 1 << 31).all():
        raise ValueError("a parameter of a transformer is too large, or no number")
    return scaled.astype(np.int32)


def check_shapes(tensors: Mapping[str, Array]) -> None:
    """Raises ValueError where tensors don't fit each other."""
    embedding, attention, mlp = (
        tensors[name] for name in ("embedding", "attention_output", "mlp_output")
    )
    layers, width, inner = attention.shape
    mlp_width = mlp.shape[2]
    length, pairs = tensors["cosines"].shape
    expected = {
        "embedding": (START + 1, width),
        "output": (256, width),
        "attention_input": (layers, 3 * inner, width),
        "attention_output": (layers, width, inner),
        "mlp_input": (layers, 2 * mlp_width, width),
        "mlp_output": (layers, width, mlp_width),
        "cosines": (length, pairs),
        "sines": (length, pairs),
        "exponentials": (len(tensors["exponentials"]),),
        "sigmoids": (2 * LARGEST_GATE << SCORE_BITS,),
    }
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != expected or any(tensor.dtype != np.int32 for tensor in tensors.values()):
        raise ValueError(f"tensors of shapes {found} don't make a transformer")
    if length % 2 or not pairs or inner % (2 * pairs) or not embedding.size or not attention.size:
        raise ValueError(f"a transformer can't have length {length} or heads of {2 * pairs}")
    if max(width, 2 * pairs) > LARGEST_WIDTH or length > LARGEST_LENGTH:
        raise ValueError(f"width {width} or length {length} is too large for exact sums")


def check_values(tensors: Mapping[str, Array]) -> None:
    """Raises ValueError where a number might leave the range in which it is exact."""
    ranges = {
        "embedding": (-LIMIT, LIMIT),
        "cosines": (-(1 << WEIGHT_BITS), 1 << WEIGHT_BITS),
        "sines": (-(1 << WEIGHT_BITS), 1 << WEIGHT_BITS),
        "exponentials": (0, 1 << EXPONENTIAL_BITS),
        "sigmoids": (0, 1 << SIGMOID_BITS),
    }
    for name, (least, most) in ranges.items():
        tensor = tensors[name]
        if tensor.min() < least or tensor.max() > most:
            raise ValueError(f"{name} of a transformer are not from {least} to {most}")
    if not tensors["exponentials"][0]:
        raise ValueError("exponentials of a transformer begin with 0")
    for name in MATRICES:
        row_sums = np.abs(tensors[name].astype(np.int64)).sum(axis=-1)
        if int(row_sums.max()) * largest_input(tensors, name) >= _EXACT:
            raise ValueError(f"sums of {name} of a transformer may reach 2^53 and not be exact")


def largest_input(tensors: Mapping[str, Array], name: str) -> int:
    """The largest absolute value that a matrix of these tensors is multiplied by."""
    if name in ("attention_output", "mlp_output"):
        return LIMIT
    return (math.isqrt(tensors["output"].shape[1] - 1) + 1) << ACTIVATION_BITS
