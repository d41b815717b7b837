"""The byte model that looks at the last few bytes, by the n-gram job's counts."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

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
    table_contexts,
)
from corpusmill.compress.byte_strings import Bytes, ByteStrings, Offsets, read_only
from corpusmill.ngram_agg.compiled import compiled
from corpusmill.ngram_agg.full_tables import FullTable

_COLUMNS = ("high", "low", "offsets", "tokens", "cumulative", "slots")


@dataclass(frozen=True)
class NgramModel:
    """Witten and Bell's mixture of the contexts of 0 to `context_bytes` bytes.

    The context of a prefix is its last bytes; a prefix that is shorter has only the shorter ones,
    which were counted anywhere in the text, as windows start anywhere.

    Attributes:
      table: next bytes of all contexts, the empty one included, of a vocabulary of 256 bytes and
        the end of documents.
      precision: frequencies add up to 2^precision.
    """

    table: FullTable
    precision: int = PRECISION
    kind = "ngram"
    lanes = LANES

    def __post_init__(self) -> None:
        check_precision(self.precision)

    @property
    def context_bytes(self) -> int:
        return self.table.packing.max_order

    @cached_property
    def content_hash(self) -> str:
        digest = hashlib.sha256(f"ngram {self.precision} {self.context_bytes}\n".encode())
        for name in _COLUMNS:
            column = self.table.columns[name]
            digest.update(f"{name} {column.dtype.str} {len(column)}\n".encode())
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()

    def frequencies(self, prefixes: ByteStrings) -> Frequencies:
        """As `ByteModel.frequencies`."""
        out = np.empty((len(prefixes), 256), np.uint32)
        _frequencies(self.contexts(1), read_only(prefixes.data), read_only(prefixes.offsets), out)
        return out

    def start(self, texts: int) -> ModelState:
        """As `ByteModel.start`."""
        return PrefixState(self, texts)

    def contexts(self, remembered: int = REMEMBERED) -> Contexts:
        """What the model knows, for compiled coders: see `table_contexts`."""
        return table_contexts(self.table, self._key_words, self.precision, remembered)

    @cached_property
    def _key_words(self) -> Words:
        return key_words(self.table.packing)


@compiled
def _frequencies(contexts: Contexts, data: Bytes, bounds: Offsets, out: Frequencies) -> None:
    for i in range(len(bounds) - 1):
        found = find_contexts(contexts, data, bounds[i], bounds[i + 1])
        mix_contexts(contexts, found, out[i])
