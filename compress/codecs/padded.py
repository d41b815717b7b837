"""Equal-info windows as arXiv 2404.03626 has them, to be compared with; one of them loses text."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_strings import ByteStrings, Ids, Offsets, read_only
from corpusmill.compress.codecs.modelled import Known, ModelCodec, joined
from corpusmill.compress.coders import padded as coding
from corpusmill.compress.coders.bits import Codes, check_sizes, ids_to_boundary, pack, unpack
from corpusmill.compress.coders.lanes import Lanes, by_document
from corpusmill.corpus.errors import DataError, UsageError

PADDINGS = ("zeros", "delay")


@dataclass(frozen=True)
class PaddedCodec(ModelCodec):
    """Windows whose arithmetic codes are filled up with zeros; model and coder start with each.

    Attributes:
      window_bits: of a window, up to 64.
      padding: `zeros` takes as many bytes into a window as fit, and decodes a code to the longest
        string that has it, which isn't always the one that was encoded. `delay` leaves the bytes
        at a window's end that don't change its code for the next one, and decodes a code to the
        shortest string that has it: less compression, but nothing is lost.

    Raises:
      UsageError: the sizes don't fit each other or the model, or there is no such padding.
    """

    window_bits: int = 16
    padding: str = "zeros"
    kind = "equal-info"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self.window_bits, self.token_bits)
        if self.padding not in PADDINGS:
            raise UsageError(f"padding {self.padding!r} is none of {', '.join(PADDINGS)}")
        if not self.model.precision <= self.window_bits <= coding.MAX_WINDOW_BITS:
            raise UsageError(
                f"windows of {self.window_bits} bits cannot be padded; accepted are"
                f" {self.model.precision} (the model's precision) to {coding.MAX_WINDOW_BITS}"
            )

    @property
    def is_lossless(self) -> bool:
        return self.padding == "delay"

    @property
    def options(self) -> Mapping[str, Any]:
        return {
            "model": self.model.kind,
            "window_bits": self.window_bits,
            "padding": self.padding,
            "token_bits": self.token_bits,
        }

    @property
    def window_ids(self) -> int:
        return ids_to_boundary(self.window_bits, self.token_bits)

    def _encode(self, documents: ByteStrings, most_lanes: int) -> list[Ids]:
        data = read_only(documents.data)
        lanes = Lanes(self.model, np.flatnonzero(documents.lengths()), most_lanes)
        at = documents.offsets[lanes.documents]
        start = at.copy()
        registers = self._fresh_registers(lanes.number)
        owners, codes = [], [np.empty(0, np.uint64)]
        while len(lanes.active):
            active, end = lanes.active, documents.offsets[lanes.documents + 1]
            took, due, ended, found = coding.encode_lanes(
                *(lanes.sums(), self.model.precision, data, at, start, end, active),
                *(self.window_bits, self.padding == "delay", registers),
            )
            owners.append(lanes.documents[active[ended]])
            codes.append(found[ended])
            lanes.read(active[took], data[at[active[took]] - 1])
            lanes.restart(active[due])
            refilled = lanes.end_documents(active[ended & (at[active] == end[active])])
            at[refilled] = start[refilled] = documents.offsets[lanes.documents[refilled]]
        values, bounds = by_document(owners, codes, len(documents))
        words = np.stack([np.zeros_like(values), values], axis=1)
        return [
            pack(words[first:last], self.window_bits, self.token_bits)
            for first, last in itertools.pairwise(bounds)
        ]

    def _decode(
        self, ids: Ids, offsets: Offsets, most_lanes: int, *, whole: bool
    ) -> tuple[npt.NDArray[np.uint8], Offsets, Known]:
        documents = [
            self._codes(ids[first:last], whole) for first, last in itertools.pairwise(offsets)
        ]
        codes, ends = joined(documents, np.uint64)
        firsts, counts = ends[:-1], np.diff(ends)
        lanes = Lanes(self.model, np.flatnonzero(counts), most_lanes)
        place = firsts[lanes.documents]
        registers = self._fresh_registers(lanes.number)
        owners, text, known = [], [np.empty(0, np.uint8)], [np.empty(0, np.int64)]
        while len(lanes.active):
            active, own = lanes.active, lanes.documents
            wrote, due, ended, found = coding.decode_lanes(
                *(lanes.sums(), self.model.precision, codes, place, active),
                *(self.window_bits, self.padding == "delay", registers),
            )
            if (ended & ~wrote).any():
                raise DataError("a window's code is no string's")
            owners.append(own[active[wrote]])
            text.append(found[wrote])
            windows = place[active[wrote]] - firsts[own[active[wrote]]] + 1
            known.append(windows * self.window_bits)
            lanes.read(active, found)
            lanes.restart(active[due])
            place[active[ended]] += 1
            is_done = ended & (place[active] == firsts[own[active]] + counts[own[active]])
            refilled = lanes.end_documents(active[is_done])
            place[refilled] = firsts[lanes.documents[refilled]]
        data, bounds = by_document(owners, text, len(documents))
        return data, bounds, by_document(owners, known, len(documents))[0]

    def _codes(self, ids: Ids, whole: bool) -> npt.NDArray[np.uint64]:
        codes, left = unpack(ids, self.window_bits, self.token_bits)
        if whole and left >= self.token_bits:
            raise DataError(
                f"its last window has {left} bits of {self.window_bits}: ids are missing"
            )
        return codes[:-1, 1]

    def _fresh_registers(self, number: int) -> Codes:
        registers = np.zeros((number, coding.REGISTERS), np.uint64)
        for row in registers:
            coding.begin_pass(row, self.window_bits, False)
        return registers
