"""The byte model that looks at no context."""

import hashlib
from dataclasses import dataclass

import numpy as np

from compress.byte_models.base import (
    PRECISION,
    Frequencies,
    Words,
    blend,
    check_precision,
    quantize,
    uniform,
)
from compress.byte_strings import ByteStrings


@dataclass(frozen=True)
class StaticModel:
    """How often each byte occurs anywhere.

    Attributes:
      counts: uint64 [256].
      precision: frequencies add up to 2^precision.
    """

    counts: Words
    precision: int = PRECISION
    kind = "static"
    context_bytes = 0

    def __post_init__(self) -> None:
        check_precision(self.precision)

    @property
    def content_hash(self) -> str:
        digest = hashlib.sha256(f"static {self.precision}\n".encode())
        digest.update(self.counts.astype("<u8").tobytes())
        return digest.hexdigest()

    def frequencies(self, prefixes: ByteStrings) -> Frequencies:
        """As `ByteModel.frequencies`; all rows are equal."""
        probabilities = np.empty(256, np.uint64)
        row = np.empty(256, np.uint32)
        seen = np.flatnonzero(self.counts)
        uniform(probabilities)
        blend(probabilities, seen, self.counts[seen])
        quantize(probabilities, self.precision, row)
        return np.tile(row, (len(prefixes), 1))
