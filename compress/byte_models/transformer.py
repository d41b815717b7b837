"""The transformer byte model, M1, in integer arithmetic.

Floating point sums depend on the order of their terms, which libraries choose by shape, thread and
processor. Here everything is a whole number, and matrices are multiplied as floats only where each
partial sum is an integer below 2^53, which is exact in any order. docs/exact-m1.md goes through all
operations.

Fixed point: activations are in units of 2^-12 and clamped to +-256, weights in units of 2^-14,
angles' cosines and sines in units of 2^-14, scores and logits in units of 2^-10.
"""

import hashlib
import math
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_models.base import (
    ALL_BYTES,
    LANES,
    Frequencies,
    Words,
    check_precision,
    quantize,
)
from corpusmill.compress.byte_models.transformer_state import START, PrefixTable, TransformerState
from corpusmill.compress.byte_strings import Bytes, ByteStrings, Offsets, read_only
from corpusmill.ngram_agg.compiled import compiled

Array = npt.NDArray[Any]

# With 2^14, the least frequency of 1 for each of 256 bytes would cost 0.7% more bits.
TRANSFORMER_PRECISION = 16

ACTIVATION_BITS = 12
WEIGHT_BITS = 14
SCORE_BITS = 10
_EXPONENTIAL_BITS = 30
SIGMOID_BITS = 16
# exp(-x) is nothing beyond, the sigmoid is 0 or 1.
_LARGEST_EXPONENT = 22
LARGEST_GATE = 16
# Activations are clamped to this.
LIMIT = 1 << 20
# Integers up to here, and sums that stay below, are exact in float64.
_EXACT = 1 << 53
# So many positions at a time, of 26 KB each at the size 3m: the system clears larger arrays anew.
_BLOCK = 1024
# Prefixes, of 1 KB each: rounds of freezing ask for the same ones, and so do windows.
_MOST_REMEMBERED = 1 << 18

MATRICES = ("attention_input", "attention_output", "mlp_input", "mlp_output", "output")


@dataclass(frozen=True)
class TransformerModel:
    """A decoder-only transformer: RMSNorm, rotary positions, SwiGLU.

    It has a length C, even, the one it was trained with, and sees of a prefix of n bytes those from
    s on: s = 0 where n < C, else s = (n // h - 1) * h with h = C / 2. So it sees at least h bytes
    where there are as many, and one of its positions need not be computed again for each byte. A
    start token stands before the bytes that it sees.

    Attributes:
      tensors: int32. Rows of matrices are outputs; the norms' gains are multiplied into the
        matrices behind them, the attention's 1 / sqrt(head size) into the queries.
        `embedding` [257, width] in units of 2^-12; `output` [256, width];
        `attention_input` [layers, 3 * inner, width]: queries, keys, values, of one head after the
        other; `attention_output` [layers, width, inner]; `mlp_input` [layers, 2 * MLP width,
        width]: gates, then what they gate; `mlp_output` [layers, width, MLP width];
        `cosines` and `sines` [C, head size / 2] of the angles by which pairs of a query's and a
        key's numbers are turned at a position;
        `exponentials`: exp(-i / 1024) in units of 2^-30;
        `sigmoids` [32768]: 1 / (1 + exp(-x)) in units of 2^-16, for x = -16 + (i + 1/2) / 1024.
      precision: frequencies add up to 2^precision.

    Raises:
      ValueError: the tensors don't fit each other, or a sum might not be exact.
    """

    tensors: Mapping[str, Array]
    precision: int = TRANSFORMER_PRECISION
    kind = "transformer"
    context_bytes = ALL_BYTES
    lanes = LANES
    most_rows = _BLOCK

    def __post_init__(self) -> None:
        check_precision(self.precision)
        _check_shapes(self.tensors)
        _check_values(self.tensors)

    @classmethod
    def quantized(
        cls,
        parameters: Mapping[str, Array],
        heads: int,
        length: int,
        precision: int = TRANSFORMER_PRECISION,
    ) -> "TransformerModel":
        """The exact model that is nearest to a network of floats.

        Args:
          parameters: of `corpusmill.trainer.models.Transformer`, by name; 257 tokens or more.
          heads: attention heads in a layer.
          length: C, even.
          precision: see the class.

        Raises:
          ValueError: a parameter is no number, or too large.
        """
        return cls(_quantized(parameters, heads, length), precision)

    @property
    def length(self) -> int:
        """C: a prefix that is shorter is seen as a whole."""
        return len(self.tensors["cosines"])

    @cached_property
    def content_hash(self) -> str:
        digest = hashlib.sha256(f"transformer {self.precision}\n".encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype.str} {tensor.shape}\n".encode())
            digest.update(np.ascontiguousarray(tensor).data)
        return digest.hexdigest()

    def frequencies(self, prefixes: ByteStrings) -> Frequencies:
        """As `ByteModel.frequencies`; some prefixes are remembered from call to call."""
        seen = [prefix[_first_seen(len(prefix), self.length) :] for prefix in prefixes]
        missing = sorted(set(seen).difference(self._remembered))
        computed = dict(zip(missing, self._computed(missing), strict=True))
        known = ChainMap(computed, self._remembered)
        out = np.array([known[each] for each in seen], np.uint32).reshape(-1, 256)
        room = max(0, _MOST_REMEMBERED - len(self._remembered))
        self._remembered.update(islice(computed.items(), room))
        return out

    def _computed(self, seen: Sequence[bytes]) -> Frequencies:
        """Frequencies after byte strings, all different and in their order.

        What they have in common is computed once, as long as it fits in a block.
        """
        strings = ByteStrings.of(seen)
        data, offsets = read_only(strings.data), read_only(strings.offsets)
        out = np.empty((len(seen), 256), np.uint32)
        done = 0
        while done < len(seen):
            tokens, positions, paths, ends = _grow_trie(data, offsets, done, _BLOCK, self.length)
            cache = np.empty((1, 2, len(tokens), self._inner), np.int32)
            nodes = np.arange(len(tokens))
            rows = slice(done, done + len(ends))
            out[rows] = self._run(tokens, positions, nodes, paths, cache, ends)
            done = rows.stop
        return out

    def start(self, texts: int) -> TransformerState:
        """The state of coders that read so many texts byte by byte."""
        return TransformerState(self._table, texts)

    def new_cache(self, slots: int) -> Array:
        """As `Network.new_cache`: int32 [layers, 2, slots, inner]."""
        return np.empty((self._layers, 2, slots, self._inner), np.int32)

    def compute(
        self, tokens: Array, positions: Offsets, firsts: Offsets, cache: Array, asked: Offsets
    ) -> Frequencies:
        """As `Network.compute`."""
        paths = firsts[:, None] + np.arange(positions.max() + 1)
        return self._run(tokens, positions, firsts + positions, paths, cache, asked)

    @cached_property
    def _table(self) -> PrefixTable:
        return PrefixTable(self)

    @cached_property
    def _prepared(self) -> dict[str, Array]:
        """The tensors as they are used: matrices that are multiplied as float64."""
        return {
            name: tensor.astype(np.float64) if name in MATRICES else read_only(tensor)
            for name, tensor in self.tensors.items()
        }

    @property
    def _layers(self) -> int:
        return len(self.tensors["attention_input"])

    @property
    def _inner(self) -> int:
        return int(self.tensors["attention_output"].shape[2])

    @cached_property
    def _remembered(self) -> dict[bytes, Frequencies]:
        """Frequencies after what was seen of prefixes, the first ones that were asked for."""
        return {}

    def _run(
        self,
        tokens: Array,
        positions: Offsets,
        slots: Offsets,
        paths: Offsets,
        cache: Array,
        asked: Offsets,
    ) -> Frequencies:
        """Computes positions of texts, from those before them.

        Args:
          tokens: of each position, [rows].
          positions: in its text, 0 for the start token, [rows].
          slots: where its keys and values go in the cache, [rows].
          paths: int64 [rows, ...]: the slots of the positions 0, 1, ... up to its own.
          cache: int32 [layers, 2, slots, inner]; with one layer each layer takes it over from
            the one before, and has to compute all positions.
          asked: rows whose next byte is wanted, [asked].

        Returns:
          Frequencies of shape [asked, 256].
        """
        tensors = self._prepared
        hidden = tensors["embedding"][tokens]
        for layer in range(self._layers):
            keys, values = cache[layer % len(cache)]
            queries = np.empty((len(hidden), self._inner), np.int32)
            _rotate(
                _normalized(hidden) @ tensors["attention_input"][layer].T,
                positions,
                slots,
                tensors["cosines"],
                tensors["sines"],
                queries,
                keys,
                values,
            )
            if layer == self._layers - 1:
                hidden, queries = hidden[asked], queries[asked]
                positions, paths = positions[asked], paths[asked]
            mixed = np.empty(queries.shape, np.float64)
            head_size = 2 * tensors["cosines"].shape[1]
            _attend(
                queries, keys, values, paths, positions, tensors["exponentials"], head_size, mixed
            )
            _add(mixed @ tensors["attention_output"][layer].T, hidden)
            gates = _normalized(hidden) @ tensors["mlp_input"][layer].T
            gated = np.empty((len(hidden), gates.shape[1] // 2), np.float64)
            _gate(gates, tensors["sigmoids"], gated)
            _add(gated @ tensors["mlp_output"][layer].T, hidden)
        out = np.empty((len(hidden), 256), np.uint32)
        logits = _normalized(hidden) @ tensors["output"].T
        _to_frequencies(logits, tensors["exponentials"], self.precision, out)
        return out


def _first_seen(size: int, length: int) -> int:
    """Where a prefix of `size` bytes begins to be seen by a model of this length."""
    half = length // 2
    return 0 if size < length else (size // half - 1) * half


def _normalized(hidden: Array) -> Array:
    out = np.empty(hidden.shape, np.float64)
    _normalize(hidden, out)
    return out


@compiled
def _grow_trie(
    data: Bytes, offsets: Offsets, first: int, most: int, length: int
) -> tuple[Offsets, Offsets, Offsets, Offsets]:
    """The trie of the strings from `first` on, as many as fit in `most` nodes, or one.

    Args:
      data: strings in their order.
      offsets: where each of them begins.
      first: of the strings to take.
      most: nodes.
      length: strings are shorter.

    Returns:
      Of each node, parents before children, its token and its depth; int64 [nodes, ...]: the nodes
      from the root, which is the start token, down to it; and the last node of each string taken.
    """
    size = max(most, length)
    tokens = np.empty(size, np.int64)
    depths = np.empty(size, np.int64)
    paths = np.empty((size, length), np.int64)
    ends = np.empty(len(offsets) - 1 - first, np.int64)
    tokens[0] = START
    depths[0] = 0
    paths[0, 0] = 0
    nodes = 1
    last = 0
    taken = 0
    longest = 0
    for string in range(first, len(offsets) - 1):
        begin = offsets[string]
        bytes_ = offsets[string + 1] - begin
        common = 0
        if taken:
            before = offsets[string - 1]
            room = min(bytes_, begin - before)
            while common < room and data[before + common] == data[begin + common]:
                common += 1
        if taken and nodes + bytes_ - common > most:
            break
        node = paths[last, common]
        for depth in range(common + 1, bytes_ + 1):
            tokens[nodes] = data[begin + depth - 1]
            depths[nodes] = depth
            paths[nodes, :depth] = paths[node, :depth]
            paths[nodes, depth] = nodes
            node = nodes
            nodes += 1
        longest = max(longest, bytes_)
        ends[taken] = node
        last = node
        taken += 1
    return tokens[:nodes], depths[:nodes], paths[:nodes, : longest + 1].copy(), ends[:taken]


@compiled
def _rounded(value: Any, bits: int) -> Any:
    """An integer, divided by 2^bits, rounded and clamped to the range of activations."""
    whole = (np.int64(value) + (1 << (bits - 1))) >> bits
    return min(max(whole, -LIMIT), LIMIT)


@compiled
def _normalize(hidden: Words, out: Words) -> None:
    """Divides rows by the root of their mean square.

    No result is above 2^12 sqrt(width): with r the root of floor(2^8 sum / width), rounded down,
    (r + 1)^2 > 2^8 sum / width, so that |x| / (r + 1) < sqrt(width) / 2^4, as x^2 <= sum.
    """
    width = hidden.shape[1]
    for row in range(len(hidden)):
        total = np.int64(0)
        for i in range(width):
            value = np.int64(hidden[row, i])
            total += value * value
        # In units of 2^-16. IEEE 754 rounds square roots correctly; rounded down it is the
        # integers' own, because the argument is below 2^52.
        root = np.int64(np.sqrt(np.float64((total << 8) // width)))
        inverse = (1 << 40) // (root + 1)
        for i in range(width):
            out[row, i] = (np.int64(hidden[row, i]) * inverse + (1 << 23)) >> 24


@compiled
def _rotate(
    projected: Words,
    positions: Offsets,
    slots: Offsets,
    cosines: Words,
    sines: Words,
    queries: Words,
    keys: Words,
    values: Words,
) -> None:
    """Turns queries and keys by the angles of their positions; keys and values go to the cache."""
    inner = queries.shape[1]
    pairs = cosines.shape[1]
    for row in range(len(projected)):
        position = positions[row]
        slot = slots[row]
        for head in range(0, inner, 2 * pairs):
            for pair in range(pairs):
                cosine = np.int64(cosines[position, pair])
                sine = np.int64(sines[position, pair])
                at = head + 2 * pair
                real = _rounded(projected[row, at], WEIGHT_BITS)
                imaginary = _rounded(projected[row, at + 1], WEIGHT_BITS)
                turned = real * cosine - imaginary * sine
                queries[row, at] = _rounded(turned, WEIGHT_BITS)
                turned = real * sine + imaginary * cosine
                queries[row, at + 1] = _rounded(turned, WEIGHT_BITS)
                real = _rounded(projected[row, inner + at], WEIGHT_BITS)
                imaginary = _rounded(projected[row, inner + at + 1], WEIGHT_BITS)
                turned = real * cosine - imaginary * sine
                keys[slot, at] = _rounded(turned, WEIGHT_BITS)
                turned = real * sine + imaginary * cosine
                keys[slot, at + 1] = _rounded(turned, WEIGHT_BITS)
        for i in range(inner):
            values[slot, i] = _rounded(projected[row, 2 * inner + i], WEIGHT_BITS)


@compiled
def _attend(
    queries: Words,
    keys: Words,
    values: Words,
    paths: Offsets,
    positions: Offsets,
    exponentials: Words,
    head_size: int,
    out: Words,
) -> None:
    """Means of the values on each row's path, weighted by exp(query * key), rounded down."""
    scores = np.empty(paths.shape[1], np.int64)
    sums = np.empty(head_size, np.int64)
    shift = 2 * ACTIVATION_BITS - SCORE_BITS
    for row in range(len(queries)):
        seen = positions[row] + 1
        for head in range(0, queries.shape[1], head_size):
            # Parts of rows, because places that are added up are not known to be positive, and
            # then the loops are not vectorized.
            query = queries[row, head : head + head_size]
            best = np.int64(-(1 << 62))
            for j in range(seen):
                key = keys[paths[row, j], head : head + head_size]
                product = np.int64(0)
                for i in range(head_size):
                    product += np.int64(query[i]) * np.int64(key[i])
                scores[j] = product >> shift
                best = max(best, scores[j])
            sums[:] = 0
            total = np.int64(0)
            for j in range(seen):
                below = best - scores[j]
                if below < len(exponentials):
                    value = values[paths[row, j], head : head + head_size]
                    weight = np.int64(exponentials[below])
                    total += weight
                    for i in range(head_size):
                        sums[i] += weight * np.int64(value[i])
            for i in range(head_size):
                out[row, head + i] = sums[i] // total


@compiled
def _add(projected: Words, hidden: Words) -> None:
    """Adds a sublayer's output to its input."""
    for row in range(len(hidden)):
        for i in range(hidden.shape[1]):
            changed = np.int64(hidden[row, i]) + _rounded(projected[row, i], WEIGHT_BITS)
            hidden[row, i] = min(max(changed, -LIMIT), LIMIT)


@compiled
def _gate(projected: Words, sigmoids: Words, out: Words) -> None:
    """Multiplies the second half of each row, y, by x sigmoid(x), x being the first half."""
    width = out.shape[1]
    beyond = LARGEST_GATE << ACTIVATION_BITS
    for row in range(len(out)):
        for i in range(width):
            gate = _rounded(projected[row, i], WEIGHT_BITS)
            inner = _rounded(projected[row, width + i], WEIGHT_BITS)
            place = min(max(gate, -beyond), beyond - 1) + beyond
            sigmoid = np.int64(sigmoids[place >> (ACTIVATION_BITS - SCORE_BITS)])
            silu = (gate * sigmoid) >> SIGMOID_BITS
            out[row, i] = _rounded(silu * inner, ACTIVATION_BITS)


@compiled
def _to_frequencies(logits: Words, exponentials: Words, precision: int, out: Frequencies) -> None:
    """The softmax of logits, as frequencies."""
    weights = np.empty(256, np.uint64)
    shift = ACTIVATION_BITS + WEIGHT_BITS - SCORE_BITS
    for row in range(len(logits)):
        best = np.int64(logits[row, 0]) >> shift
        for byte in range(256):
            best = max(best, np.int64(logits[row, byte]) >> shift)
        total = np.uint64(0)
        for byte in range(256):
            below = best - (np.int64(logits[row, byte]) >> shift)
            weights[byte] = np.uint64(exponentials[below] if below < len(exponentials) else 0)
            total += weights[byte]
        for byte in range(256):
            weights[byte] = (weights[byte] << np.uint64(32)) // total
        quantize(weights, precision, out[row])


def _check_shapes(tensors: Mapping[str, Array]) -> None:
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
    if length % 2 or inner % (2 * pairs) or not embedding.size or not attention.size:
        raise ValueError(f"a transformer can't have length {length} or heads of {2 * pairs}")
    # Sums of squares, of products of queries and keys, and of weighted values have to fit 63 bits.
    if max(width, 2 * pairs) > 1 << 13 or length > 1 << 12:
        raise ValueError(f"width {width} or length {length} is too large for exact sums")


def _check_values(tensors: Mapping[str, Array]) -> None:
    """Raises ValueError where a number might leave the range in which it is exact."""
    ranges = {
        "embedding": (-LIMIT, LIMIT),
        "cosines": (-(1 << WEIGHT_BITS), 1 << WEIGHT_BITS),
        "sines": (-(1 << WEIGHT_BITS), 1 << WEIGHT_BITS),
        "exponentials": (0, 1 << _EXPONENTIAL_BITS),
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


def _quantized(parameters: Mapping[str, Array], heads: int, length: int) -> dict[str, Array]:
    """The tensors of a network of floats."""
    weights = merged_weights(parameters, heads)
    embedding = weights.pop("embedding")
    head_size = weights["attention_output"].shape[2] // heads
    return {
        "embedding": _fixed(embedding, ACTIVATION_BITS),
        **{name: _fixed(values, WEIGHT_BITS) for name, values in weights.items()},
        **tables(length, head_size),
    }


def merged_weights(parameters: Mapping[str, Array], heads: int) -> dict[str, Array]:
    """A network's weights as `TransformerModel.tensors` has them, but as floats.

    Args:
      parameters: of `corpusmill.trainer.models.Transformer`, by name.
      heads: attention heads in a layer.
    """
    layers = sum(name.endswith("attention.query.weight") for name in parameters)

    def parts(name: str) -> list[Array]:
        return [parameters[f"blocks.{layer}.{name}.weight"] for layer in range(layers)]

    head_size = parts("attention.query")[0].shape[0] // heads
    attention_gains, mlp_gains = parts("attention_norm"), parts("mlp_norm")
    queries = [query / math.sqrt(head_size) for query in parts("attention.query")]
    attention_inputs = zip(queries, parts("attention.key"), parts("attention.value"), strict=True)
    mlp_inputs = zip(parts("mlp.gate"), parts("mlp.inner"), strict=True)
    embedding = parameters["embedding.weight"]
    return {
        "embedding": embedding[: START + 1],
        "attention_input": np.array(
            [
                np.concatenate(rows) * gain
                for rows, gain in zip(attention_inputs, attention_gains, strict=True)
            ]
        ),
        "attention_output": np.array(parts("attention.output")),
        "mlp_input": np.array(
            [np.concatenate(rows) * gain for rows, gain in zip(mlp_inputs, mlp_gains, strict=True)]
        ),
        "mlp_output": np.array(parts("mlp.output")),
        "output": embedding[:START] * parameters["norm.weight"],
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
        "exponentials": _fixed(np.exp(-exponents), _EXPONENTIAL_BITS),
        "sigmoids": _fixed(1 / (1 + np.exp(-gates)), SIGMOID_BITS),
    }


def _fixed(values: Array, bits: int) -> Array:
    scaled = np.rint(values.astype(np.float64) * (1 << bits))
    if not (np.abs(scaled) < 1 << 31).all():
        raise ValueError("a parameter of a transformer is too large, or no number")
    return scaled.astype(np.int32)
