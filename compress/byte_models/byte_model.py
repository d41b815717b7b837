"""What all byte models have in common, and the arithmetic of the counted ones.

A decoder has to get the frequencies that the encoder had, to the bit. So everything here is integer
arithmetic, which has no rounding to disagree on. A probability is a number in units of 2^-32:

- `blend` gives a context its part of the distribution of the next shorter context (Witten & Bell
  1991): of N occurrences with T distinct next bytes, N/(N+T) goes to what was counted, T/(N+T) to
  what the shorter context says;
- `quantize` turns probabilities into frequencies.
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_strings import Bytes, ByteStrings, Offsets
from corpusmill.corpus.ragged import offsets_of
from corpusmill.ngram_agg.compiled import compiled

Frequencies = npt.NDArray[np.uint32]
Words = npt.NDArray[Any]

# As in arXiv 2404.03626.
PRECISION = 14
# A frequency of 1 for each byte, and as much again to tell them apart; 32 bits times 24 fit in 64.
MIN_PRECISION = 9
MAX_PRECISION = 24
# More than any prefix of a window has.
ALL_BYTES = 1 << 30
# Enough to keep a processor busy.
LANES = 256

_UNIFORM = np.uint64(1 << 24)
_UNIT_BITS = np.uint64(32)
_LARGEST_TOTAL = np.uint64((1 << 31) - 1)


class ByteModel(Protocol):
    """Says how probable each byte is after a prefix.

    Attributes:
      kind: `static`, `ngram`, ...
      precision: frequencies of a prefix add up to 2^precision.
      context_bytes: how many of a prefix' last bytes matter.
      lanes: how many texts are best read side by side.
    """

    @property
    def kind(self) -> str: ...

    @property
    def precision(self) -> int: ...

    @property
    def context_bytes(self) -> int: ...

    @property
    def lanes(self) -> int: ...

    @property
    def content_hash(self) -> str:
        """SHA-256 of what decides the frequencies."""
        ...

    def frequencies(self, prefixes: ByteStrings) -> Frequencies:
        """How often each byte follows each prefix.

        Returns:
          uint32 of shape [prefixes, 256], each at least 1, each row adding up to 2^precision: the
          same bits on every machine, whatever else is in the batch.
        """
        ...

    def start(self, texts: int) -> "ModelState":
        """Begins to read so many texts side by side, each of them empty so far."""
        ...


class ModelState(Protocol):
    """Texts that a byte model reads side by side, byte by byte.

    What it says of a text is what `ByteModel.frequencies` says of the bytes read since its start
    or restart: the same bits, whatever the other texts are.
    """

    def frequencies(self) -> Frequencies:
        """How often each byte follows each text: uint32 of shape [texts, 256]."""
        ...

    def read(self, texts: Offsets, following: Bytes) -> None:
        """Reads one more byte of each of these texts.

        Args:
          texts: their numbers, int64, each once.
          following: the byte of each, uint8.
        """
        ...

    def restart(self, texts: Offsets) -> None:
        """Begins these texts, int64 numbers, anew: they are empty again."""
        ...


class PrefixState:
    """The state of a model that can be asked about any prefix: the last bytes that matter."""

    def __init__(self, model: ByteModel, texts: int) -> None:
        self._model = model
        # At the right end of each text's row; more columns come when they are needed.
        self._last = np.zeros((texts, 0), np.uint8)
        self._lengths = np.zeros(texts, np.int64)

    def frequencies(self) -> Frequencies:
        width = self._last.shape[1]
        is_read = np.arange(width) >= width - self._lengths[:, None]
        offsets = offsets_of(self._lengths)
        return self._model.frequencies(ByteStrings(self._last[is_read], offsets))

    def read(self, texts: Offsets, following: Bytes) -> None:
        longest = self._model.context_bytes
        lengths = np.minimum(self._lengths[texts] + 1, longest)
        width = self._last.shape[1]
        if lengths.max(initial=0) > width:
            more = min(max(8, 2 * width), longest) - width
            self._last = np.pad(self._last, ((0, 0), (more, 0)))
        if longest:
            self._last[texts, :-1] = self._last[texts, 1:]
            self._last[texts, -1] = following
        self._lengths[texts] = lengths

    def restart(self, texts: Offsets) -> None:
        self._lengths[texts] = 0


def check_precision(precision: int) -> None:
    """Raises ValueError where a model can't have this precision."""
    if type(precision) is not int or not MIN_PRECISION <= precision <= MAX_PRECISION:
        raise ValueError(
            f"precision {precision!r} is not a whole number in {MIN_PRECISION} to {MAX_PRECISION}"
        )


@compiled
def uniform(probabilities: Words) -> None:
    """Sets uint64 [256] to the distribution of somebody who has seen nothing."""
    probabilities[:] = _UNIFORM


@compiled
def blend(probabilities: Words, tokens: Words, counts: Words) -> None:
    """Replaces a distribution by that of a longer context.

    With n(b) = count(b) >> s, where s is the least shift for which the counts' sum is below 2^31,
    N the sum of n, T the number of bytes counted and P the distribution before:
    P'(b) = (P(b) * floor(2^32 T / (N + T))) >> 32, plus floor(2^32 n(b) / (N + T)).

    Args:
      probabilities: uint64 [256] in units of 2^-32, adding up to 2^32 or a little less, changed.
      tokens: the bytes that followed, rising; an entry of 256 or more stands for the end of a
        document and is passed over.
      counts: how often, uint64, as long.
    """
    distinct = np.uint64(0)
    total = np.uint64(0)
    for i in range(len(tokens)):
        if tokens[i] < 256:
            distinct += np.uint64(1)
            total += counts[i]
    if distinct == np.uint64(0):
        return
    shift = np.uint64(0)
    while total >> shift > _LARGEST_TOTAL:
        shift += np.uint64(1)
    divisor = distinct
    for i in range(len(tokens)):
        if tokens[i] < 256:
            divisor += counts[i] >> shift
    kept = (distinct << _UNIT_BITS) // divisor
    for byte in range(256):
        probabilities[byte] = (probabilities[byte] * kept) >> _UNIT_BITS
    for i in range(len(tokens)):
        if tokens[i] < 256:
            share = ((counts[i] >> shift) << _UNIT_BITS) // divisor
            probabilities[np.int64(tokens[i])] += share


@compiled
def quantize(probabilities: Words, precision: int, frequencies: Words) -> None:
    """Turns probabilities into frequencies.

    f(b) = 1 + (P(b) * (2^precision - 256)) >> 32; what is missing in 2^precision goes to the most
    probable byte, the smallest of equals.

    Args:
      probabilities: uint64 [256] in units of 2^-32, adding up to no more than 2^32.
      precision: of the result.
      frequencies: uint32 [256], filled.
    """
    room = np.uint64((1 << precision) - 256)
    left = room
    best = 0
    for byte in range(256):
        share = (probabilities[byte] * room) >> _UNIT_BITS
        frequencies[byte] = share + np.uint64(1)
        left -= share
        if probabilities[byte] > probabilities[best]:
            best = byte
    frequencies[best] += left
