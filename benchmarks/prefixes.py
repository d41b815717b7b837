"""How many bytes of windows does a transformer's table of prefixes know, the more text it has seen?

An n-gram model takes the network's place: its windows are about as long, and it reads megabytes.
The table and what reads through it are those of the transformer; so much room is what the network
would have, whose prefixes take some 8 KB each at the size 3m.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import measure
from benchmarks.codebook import Text, byte_counts
from corpusmill.compress import ByteStrings, EqualInfoCodec, NgramModel, ngram_model
from corpusmill.compress.byte_models.byte_model import Frequencies
from corpusmill.compress.byte_models.transformer_state import START, PrefixTable, TransformerState
from corpusmill.compress.byte_strings import Offsets
from corpusmill.compress.tally import tally
from corpusmill.corpus.ragged import offsets_of

_BYTES_OF_A_PREFIX = 8192
_LANES = 4096


class TableModel:
    """An n-gram model as a `Network`, behind a table; a position's key and value are its byte."""

    kind = "table"
    content_hash = ""
    length = 256
    lanes = most_rows = _LANES

    def __init__(self, model: NgramModel, prefixes: int) -> None:
        self._model = model
        self.precision = model.precision
        self.context_bytes = model.context_bytes
        self._table = PrefixTable(self, prefixes)

    def frequencies(self, prefixes: ByteStrings) -> Frequencies:
        return self._model.frequencies(prefixes)

    def start(self, texts: int) -> TransformerState:
        return TransformerState(self._table, texts)

    def new_cache(self, slots: int) -> npt.NDArray[np.uint8]:
        return np.zeros((1, 1, slots), np.uint8)

    def compute(
        self,
        tokens: npt.NDArray[Any],
        positions: Offsets,
        firsts: Offsets,
        cache: npt.NDArray[np.uint8],
        asked: Offsets,
    ) -> Frequencies:
        is_byte = tokens != START
        cache[0, 0, (firsts + positions)[is_byte]] = tokens[is_byte]
        places = positions[asked, None] - np.arange(self.context_bytes)[::-1]
        is_inside = places > 0
        context = cache[0, 0, (firsts[asked, None] + places)[is_inside]]
        offsets = offsets_of(is_inside.sum(axis=1))
        return self._model.frequencies(ByteStrings(context, offsets))


@dataclasses.dataclass
class Seen:
    """Of a table, after so much text: shares of the last stretch of it."""

    megabytes: float
    known: float
    window_bytes: float


def read_through(model: TableModel, documents: Sequence[bytes], bits: int) -> list[Seen]:
    """What a table knows of one stretch of text after the other, each as long as all before it."""
    codec = EqualInfoCodec(model, 16, bits)
    found, at, megabytes = [], 0, 0.25
    ends = np.cumsum([len(document) for document in documents]) / 1e6
    while at < len(documents):
        end = max(at + 1, int(np.searchsorted(ends, megabytes)))
        batch = ByteStrings.of(documents[at:end])
        with tally() as counts:
            codec.encode_batch(batch)
        found.append(
            Seen(
                ends[min(end, len(ends)) - 1],
                1 - counts["positions_computed"] / counts["bytes_read"],
                counts["bytes_read"] / counts["model_starts"],
            )
        )
        print(f"{bits} bits: {found[-1]}", file=sys.stderr, flush=True)
        at, megabytes = end, 2 * megabytes
    return found


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prefixes", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=64, help="of text, at most")
    parser.add_argument("--corpus", choices=("shared", "embedded"), help="default: shared")
    parser.add_argument("--bits", type=int, nargs="+", default=[32], help="of windows")
    parser.add_argument(
        "--room", type=int, nargs="+", default=[1 << 17, 1 << 20, 1 << 22], help="prefixes"
    )
    arguments = parser.parse_args(argv)
    text = Text.load(arguments.megabytes, arguments.corpus)
    documents = [each.encode() for each in text.train if each]
    counted = ngram_model(byte_counts(text))
    rows = []
    for bits in arguments.bits:
        for room in arguments.room:
            for seen in read_through(TableModel(counted, room), documents, bits):
                size = room * _BYTES_OF_A_PREFIX / 2**30
                times = 1 / (1 - seen.known)
                rows.append((bits, size, *dataclasses.astuple(seen), times))
    columns = ("bits", "table, GiB", "after, MB", "known", "bytes a window", "times as fast")
    measure.print_table(
        "share of bytes of the last half of the text so far that were in the table, and what that"
        " saves of the network's work",
        columns,
        rows,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
