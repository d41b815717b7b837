"""The operations of the transformer byte model, M1, in whole numbers; see docs/exact-m1.md."""

from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_models.byte_model import Frequencies, Words, quantize
from corpusmill.compress.byte_models.transformer_weights import (
    ACTIVATION_BITS,
    LARGEST_GATE,
    LIMIT,
    SCORE_BITS,
    SIGMOID_BITS,
    WEIGHT_BITS,
)
from corpusmill.compress.byte_strings import Offsets
from corpusmill.ngram_agg.compiled import compiled

Array = npt.NDArray[Any]


def normalized(hidden: Array) -> Array:
    out = np.empty(hidden.shape, np.float64)
    _normalize(hidden, out)
    return out


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
def rotate(
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
def attend(
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
def add(projected: Words, hidden: Words) -> None:
    """Adds a sublayer's output to its input."""
    for row in range(len(hidden)):
        for i in range(hidden.shape[1]):
            changed = np.int64(hidden[row, i]) + _rounded(projected[row, i], WEIGHT_BITS)
            hidden[row, i] = min(max(changed, -LIMIT), LIMIT)


@compiled
def gate(projected: Words, sigmoids: Words, out: Words) -> None:
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
def to_frequencies(logits: Words, exponentials: Words, precision: int, out: Frequencies) -> None:
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
