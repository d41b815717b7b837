"""The transformer byte model in PyTorch, for other devices: the same integers, to the bit.

Nearly all of it is float64 arithmetic on whole numbers below 2^53, which doesn't round, and the
rest is int64 (docs/exact-m1.md). Nothing in between is looked at from outside, so a device works
through all layers without waiting.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corpusmill.compress.byte_models.byte_model import ALL_BYTES, Frequencies
from corpusmill.compress.byte_models.transformer import TransformerModel
from corpusmill.compress.byte_models.transformer_state import START, PrefixTable, TransformerState
from corpusmill.compress.byte_models.transformer_weights import (
    ACTIVATION_BITS,
    LARGEST_GATE,
    LIMIT,
    MATRICES,
    SCORE_BITS,
    SIGMOID_BITS,
    WEIGHT_BITS,
    largest_input,
)
from corpusmill.compress.byte_strings import ByteStrings, Offsets
from corpusmill.corpus.errors import CorpusmillError, UsageError

Array = npt.NDArray[Any]

# Enough to keep the largest device busy; each takes C positions of the cache.
_LANES = 4096
# An exponential's upper and lower part.
_PART_BITS = 15
# Texts of the probe, and how far they are read.
_PROBE = 64
_PROBE_POSITIONS = 8
# cuBLAS then makes float64 products of narrower ones.
_EMULATION = "CUBLAS_EMULATE_DOUBLE_PRECISION"


class TorchTransformer:
    """A transformer byte model whose states are computed on a device of PyTorch.

    Its frequencies and its content hash are those of the model that it is made of. Before it is
    used it computes a fixed probe and compares it with that model's.
    """

    kind = TransformerModel.kind
    context_bytes = ALL_BYTES
    most_rows = _LANES

    def __init__(self, model: TransformerModel, device: str, lanes: int = _LANES) -> None:
        """Brings a model onto a device.

        Args:
          model: the exact model.
          device: as PyTorch names it: `cpu`, `cuda`, `cuda:1`.
          lanes: how many texts are best read at a time.

        Raises:
          UsageError: there is no such device.
          CorpusmillError: it doesn't compute what it should.
        """
        check_device(device)
        self._model = model
        self._device = torch.device(device)
        self.lanes = lanes
        self._tensors = {
            name: torch.from_numpy(tensor.astype(np.float64)).to(self._device)
            for name, tensor in model.tensors.items()
        }
        # The exponential of everything beyond the table.
        self._exponentials = torch.nn.functional.pad(self._tensors["exponentials"], (0, 1))
        layers, _, self._inner = model.tensors["attention_output"].shape
        self._layers = range(layers)
        self._head_size = 2 * model.tensors["cosines"].shape[1]
        self._check()
        self._table = PrefixTable(self)

    @property
    def length(self) -> int:
        return self._model.length

    @property
    def precision(self) -> int:
        return self._model.precision

    @property
    def content_hash(self) -> str:
        return self._model.content_hash

    def frequencies(self, prefixes: ByteStrings) -> Frequencies:
        """As `ByteModel.frequencies`; computed by the model that this one is made of."""
        return self._model.frequencies(prefixes)

    def start(self, texts: int) -> TransformerState:
        """The state of coders that read so many texts byte by byte.

        Raises:
          MemoryError: the device has too little for so many, then or while they are read.
        """
        return TransformerState(self._table, texts)

    def new_cache(self, slots: int) -> Tensor:
        """As `Network.new_cache`: float64. What was never computed is finite."""
        shape = (len(self._layers), 2, slots, self._inner)
        with _out_of_memory():
            return torch.zeros(shape, dtype=torch.float64, device=self._device)

    def compute(
        self, tokens: Array, positions: Offsets, firsts: Offsets, cache: Tensor, asked: Offsets
    ) -> Frequencies:
        """As `Network.compute`."""
        seen = int(positions.max()) + 1
        with _out_of_memory(), torch.inference_mode():
            rows = self._moved(np.stack([tokens, positions, firsts]))
            found = self._run(rows[0], rows[1], rows[2], self._moved(asked), cache, seen)
            return found.to(torch.int32).cpu().numpy().view(np.uint32)

    def _moved(self, array: Array) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _run(
        self,
        tokens: Tensor,
        positions: Tensor,
        firsts: Tensor,
        asked: Tensor,
        cache: Tensor,
        seen: int,
    ) -> Tensor:
        """Frequencies, int64 [asked, 256]; no text's position is `seen` or above."""
        tensors = self._tensors
        hidden = tensors["embedding"][tokens]
        cosines, sines = tensors["cosines"][positions], tensors["sines"][positions]
        everything = torch.arange(seen, device=self._device)
        for layer in self._layers:
            normalized = _normalized(hidden)
            projected = self._multiplied(normalized, tensors["attention_input"][layer])
            queries, keys, values = _rounded(projected, WEIGHT_BITS).chunk(3, dim=1)
            cache[layer, 0, firsts + positions] = _turned(keys, cosines, sines)
            cache[layer, 1, firsts + positions] = values
            queries = _turned(queries, cosines, sines)
            if layer == self._layers[-1]:
                hidden, queries = hidden[asked], queries[asked]
                positions, firsts = positions[asked], firsts[asked]
            paths = firsts[:, None] + everything
            hidden_from = everything > positions[:, None]
            mixed = self._attended(queries, cache[layer], paths, hidden_from)
            hidden = _added(hidden, self._multiplied(mixed, tensors["attention_output"][layer]))
            normalized = _normalized(hidden)
            gated = self._gated(self._multiplied(normalized, tensors["mlp_input"][layer]))
            hidden = _added(hidden, self._multiplied(gated, tensors["mlp_output"][layer]))
        return self._to_frequencies(self._multiplied(_normalized(hidden), tensors["output"]))

    def _multiplied(self, rows: Tensor, matrix: Tensor) -> Tensor:
        """Whole numbers times the rows of a matrix; no sum of any of the products reaches 2^53."""
        return rows @ matrix.T

    def _attended(self, queries: Tensor, cache: Tensor, paths: Tensor, is_later: Tensor) -> Tensor:
        """Means of the values on each row's path, weighted by exp(query * key), rounded down.

        Args:
          queries: [rows, inner].
          cache: of the layer, [2, slots, inner].
          paths: slots of the positions from 0 on, [rows, seen].
          is_later: the positions after the row's own, [rows, seen].

        Returns:
          Whole numbers of shape [rows, inner].
        """
        heads = self._inner // self._head_size
        at = paths[:, None] * heads + torch.arange(heads, device=self._device)[:, None]
        keys, values = cache.view(2, -1, self._head_size)[:, at]
        queries = queries.view(len(queries), heads, self._head_size, 1)
        scores = _shifted(keys @ queries, 2 * ACTIVATION_BITS - SCORE_BITS).squeeze(-1)
        scores = scores.masked_fill(is_later[:, None], -torch.inf)
        weights = self._exponential(scores.amax(-1, keepdim=True) - scores)
        upper = _shifted(weights, _PART_BITS)
        lower = weights - upper * (1 << _PART_BITS)
        # Sums of a weight's halves times values stay below 2^53, those of whole ones don't.
        sums = (torch.stack([upper, lower], dim=-2) @ values).long()
        total = weights.sum(-1, keepdim=True).long()
        whole = (sums[..., 0, :] << _PART_BITS) + sums[..., 1, :]
        means = torch.div(whole, total, rounding_mode="floor")
        return means.view(len(means), self._inner).double()

    def _exponential(self, below: Tensor) -> Tensor:
        """The table's value for how far a score is below the largest; 0 beyond the table."""
        return self._exponentials[below.clamp(max=len(self._exponentials) - 1).long()]

    def _gated(self, projected: Tensor) -> Tensor:
        """The second half of each row, y, times x sigmoid(x), x being the first half."""
        gate, inner = _rounded(projected, WEIGHT_BITS).chunk(2, dim=1)
        beyond = LARGEST_GATE << ACTIVATION_BITS
        place = gate.clamp(-beyond, beyond - 1) + beyond
        steps = _shifted(place, ACTIVATION_BITS - SCORE_BITS).long()
        silu = _shifted(gate * self._tensors["sigmoids"][steps], SIGMOID_BITS)
        return _rounded(silu * inner, ACTIVATION_BITS)

    def _to_frequencies(self, products: Tensor) -> Tensor:
        """The softmax of logits, quantized as `byte_model.quantize` says."""
        logits = _shifted(products, ACTIVATION_BITS + WEIGHT_BITS - SCORE_BITS)
        weights = self._exponential(logits.amax(-1, keepdim=True) - logits).long()
        probabilities = (weights << 32) // weights.sum(-1, keepdim=True)
        room = (1 << self.precision) - 256
        shares = (probabilities * room) >> 32
        # The smallest of the most probable bytes, whichever of equals `argmax` takes.
        rank = probabilities * 256 - torch.arange(256, device=self._device)
        left = room - shares.sum(-1, keepdim=True)
        return (shares + 1).scatter_add_(1, rank.argmax(-1, keepdim=True), left)

    def _check(self) -> None:
        """Raises CorpusmillError where the device gives another bit than the model."""
        if not (self._is_multiplying_exactly() and self._is_saying_the_same()):
            raise CorpusmillError(
                f"{self._device} with PyTorch {torch.__version__} does not compute what the byte"
                " model says: what it encodes could not be decoded; use --device cpu"
            )

    def _is_multiplying_exactly(self) -> bool:
        """Whether products of matrices are right also where they come close to 2^53."""
        raw = np.random.PCG64(0)
        for name in MATRICES:
            matrix = self._model.tensors[name].astype(np.int64)
            matrix = matrix.reshape(-1, matrix.shape[-2], matrix.shape[-1])[-1]
            largest = largest_input(self._model.tensors, name)
            words = raw.random_raw(_PROBE * matrix.shape[1]).reshape(_PROBE, -1)
            rows = largest - (words % np.uint64(1 << 9)).astype(np.int64)
            # With the signs of a row of the matrix all terms of a sum have the same.
            rows *= np.where(matrix[np.arange(_PROBE) % len(matrix)] < 0, -1, 1)
            moved = torch.from_numpy(rows.astype(np.float64)).to(self._device)
            weights = self._tensors[name].view(-1, *matrix.shape)[-1]
            found = self._multiplied(moved, weights).cpu().numpy()
            if not np.array_equal(found, rows @ matrix.T):
                return False
        return True

    def _is_saying_the_same(self) -> bool:
        """Whether texts have the frequencies that they have with the model."""
        bytes_ = np.random.PCG64(1).random_raw(_PROBE * self.length) >> np.uint64(56)
        texts = bytes_.astype(np.uint8).reshape(_PROBE, -1)[:, : self.length - 1]
        rows = np.arange(_PROBE)
        cache = self.new_cache(_PROBE * self.length)
        own = self._model.new_cache(_PROBE * self.length)
        for position in range(min(self.length, _PROBE_POSITIONS)):
            tokens = texts[:, position - 1] if position else np.full(_PROBE, START)
            places = np.full(_PROBE, position)
            step = (tokens, places, rows * self.length)
            if not np.array_equal(
                self.compute(*step, cache, rows), self._model.compute(*step, own, rows)
            ):
                return False
        return True


def check_device(device: str) -> None:
    """Raises UsageError where a device isn't there, or is set up to compute with less precision."""
    if torch.device(device).type != "cuda":
        return
    if not torch.cuda.is_available():
        raise UsageError(
            f"there is no {device}: PyTorch {torch.__version__} finds no GPU; use --device cpu"
        )
    if os.environ.get(_EMULATION, "0") != "0":
        raise UsageError(
            f"{_EMULATION}={os.environ[_EMULATION]} makes products of matrices inexact: unset it"
        )


@contextlib.contextmanager
def _out_of_memory() -> Iterator[None]:
    """Raises MemoryError where PyTorch says it in its own way."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(str(error)) from error


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Whole numbers below 2^53 divided by 2^bits and rounded down."""
    return (values * 2.0**-bits).floor_()


def _rounded(values: Tensor, bits: int) -> Tensor:
    """Whole numbers divided by 2^bits, rounded, and clamped to the range of activations.

    The sum is rounded only where it is above 2^53, and then it is clamped.
    """
    return _shifted(values + 2.0 ** (bits - 1), bits).clamp_(-LIMIT, LIMIT)


def _normalized(hidden: Tensor) -> Tensor:
    """Rows divided by the root of their mean square."""
    squares = (hidden * hidden).sum(-1, keepdim=True).long()
    mean = torch.div(squares << 8, hidden.shape[-1], rounding_mode="floor")
    # A square root that isn't rounded correctly is off by less than one.
    root = mean.double().sqrt().long()
    root = root - (root * root > mean).long()
    root = root + ((root + 1) * (root + 1) <= mean).long()
    inverse = torch.div(1 << 40, root + 1, rounding_mode="floor")
    return ((hidden.long() * inverse + (1 << 23)) >> 24).double()


def _turned(vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Pairs of each head's numbers, turned by angles: [rows, inner] by [rows, head size / 2]."""
    pairs = vectors.reshape(len(vectors), -1, cosines.shape[1], 2)
    cosines, sines = cosines[:, None], sines[:, None]
    real, imaginary = pairs.unbind(-1)
    turned = [real * cosines - imaginary * sines, real * sines + imaginary * cosines]
    return _rounded(torch.stack(turned, dim=-1), WEIGHT_BITS).view(vectors.shape)


def _added(hidden: Tensor, products: Tensor) -> Tensor:
    """Adds a sublayer's output to its input."""
    return (hidden + _rounded(products, WEIGHT_BITS)).clamp_(-LIMIT, LIMIT)
