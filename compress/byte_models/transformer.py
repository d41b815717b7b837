"""The transformer byte model, M1, in integer arithmetic.

Floating point sums depend on the order of their terms, which libraries choose by shape, thread and
processor. Here everything is a whole number, and matrices are multiplied as floats only where each
partial sum is an integer below 2^53, which is exact in any order. docs/exact-m1.md goes through all
operations.
"""

import hashlib
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_models.byte_model import (
    ALL_BYTES,
    LANES,
    Frequencies,
    check_precision,
)
from corpusmill.compress.byte_models.transformer_kernels import (
    add,
    attend,
    gate,
    normalized,
    rotate,
    to_frequencies,
)
from corpusmill.compress.byte_models.transformer_state import START, PrefixTable, TransformerState
from corpusmill.compress.byte_models.transformer_weights import (
    MATRICES,
    NetworkWeights,
    check_shapes,
    check_values,
    quantized_tensors,
)
from corpusmill.compress.byte_strings import Bytes, ByteStrings, Offsets, read_only
from corpusmill.ngram_agg.compiled import compiled

Array = npt.NDArray[Any]

# With 2^14, the least frequency of 1 for each of 256 bytes would cost 0.7% more bits.
TRANSFORMER_PRECISION = 16

# So many positions at a time, of 26 KB each at the size 3m: the system clears larger arrays anew.
_BLOCK = 1024
# Prefixes, of 1 KB each: rounds of freezing ask for the same ones, and so do windows.
_MOST_REMEMBERED = 1 << 18


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
        check_shapes(self.tensors)
        check_values(self.tensors)

    @classmethod
    def quantized(
        cls,
        network: NetworkWeights,
        heads: int,
        length: int,
        precision: int = TRANSFORMER_PRECISION,
    ) -> "TransformerModel":
        """The exact model that is nearest to a network of floats.

        Args:
          network: its weights.
          heads: attention heads in a layer.
          length: C, even.
          precision: see the class.

        Raises:
          ValueError: a parameter is no number, or too large.
        """
        return cls(quantized_tensors(network, heads, length), precision)

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
            rotate(
                normalized(hidden) @ tensors["attention_input"][layer].T,
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
            attend(
                queries, keys, values, paths, positions, tensors["exponentials"], head_size, mixed
            )
            add(mixed @ tensors["attention_output"][layer].T, hidden)
            gates = normalized(hidden) @ tensors["mlp_input"][layer].T
            gated = np.empty((len(hidden), gates.shape[1] // 2), np.float64)
            gate(gates, tensors["sigmoids"], gated)
            add(gated @ tensors["mlp_output"][layer].T, hidden)
        out = np.empty((len(hidden), 256), np.uint32)
        logits = normalized(hidden) @ tensors["output"].T
        to_frequencies(logits, tensors["exponentials"], self.precision, out)
        return out


def _first_seen(size: int, length: int) -> int:
    """Where a prefix of `size` bytes begins to be seen by a model of this length."""
    half = length // 2
    return 0 if size < length else (size // half - 1) * half


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
