"""The byte model that looks at no context."""

import hashlib
from dataclasses import dataclass

import numpy as np

from corpusmill.compress.byte_models.byte_model import (
    LANES,
    PRECISION,
    Frequencies,
    ModelState,
    PrefixState,
    Words,
    check_precision,
)
from corpusmill.compress.byte_models.contexts import (
    REMEMBERED,
    Contexts,
    find_contexts,
    key_words,
    mix_contexts,
    only_context,
    table_contexts,
)
from corpusmill.compress.byte_strings import ByteStrings, read_only


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
    lanes = LANES
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
        contexts = self.contexts(1)
        row = np.empty(256, np.uint32)
        mix_contexts(contexts, find_contexts(contexts, read_only(row.view(np.uint8)), 0, 0), row)
        return np.tile(row, (len(prefixes), 1))

    def start(self, texts: int) -> ModelState:
        """As `ByteModel.start`."""
        return PrefixState(self, texts)

    def contexts(self, remembered: int = REMEMBERED) -> Contexts:
        """What the model knows, for compiled coders: see `table_contexts`."""
        table = only_context(self.counts)
        return table_contexts(table, key_words(table.packing), self.precision, remembered)
