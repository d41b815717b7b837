"""The codec of equal-info windows, coded while the model runs: windows of any size."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_models import ByteModel
from corpusmill.compress.byte_models.contexts import Contexts
from corpusmill.compress.byte_strings import ByteStrings, Ids, Offsets, read_only
from corpusmill.compress.codecs.modelled import Known, ModelCodec, joined_texts
from corpusmill.compress.coders import equal_info as coding
from corpusmill.compress.coders.apportionment import divide_seats
from corpusmill.compress.coders.bits import Codes, check_sizes, ids_to_boundary, pack, unpack
from corpusmill.compress.coders.lanes import Lanes, by_document
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.ragged import offsets_of

MIN_WINDOW_BITS = 9
MAX_WINDOW_BITS = 128

# Codes at a time. Any 16 codes have whole ids, whatever their size.
_CHUNK = 1 << 16


@dataclass(frozen=True)
class EqualInfoCodec(ModelCodec):
    """The window code (docs/codebooks.md), window by window.

    Attributes:
      window_bits: of a window, 9 to 128.
      reset: windows after which the model starts afresh; None for never. The coder starts afresh
        with every window.

    Raises:
      UsageError: the sizes don't fit each other or the model.
    """

    window_bits: int = 16
    reset: int | None = 1
    kind = "equal-info"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not MIN_WINDOW_BITS <= self.window_bits <= MAX_WINDOW_BITS:
            raise UsageError(
                f"windows of {self.window_bits} bits are not possible; accepted are"
                f" {MIN_WINDOW_BITS} to {MAX_WINDOW_BITS}"
            )
        check_sizes(self.window_bits, self.token_bits)
        check_windows(self.model, self.window_bits, self.reset)

    @property
    def options(self) -> Mapping[str, Any]:
        return {
            "model": self.model.kind,
            "window_bits": self.window_bits,
            "reset": self.reset,
            "token_bits": self.token_bits,
        }

    @property
    def window_ids(self) -> int:
        return ids_to_boundary(self.window_bits, self.token_bits)

    def _encode(self, documents: ByteStrings, most_lanes: int) -> list[Ids]:
        contexts = self._contexts()
        if contexts is None:
            return self._encode_in_lanes(documents, most_lanes)
        return self._encode_counted(contexts, documents)

    def _encode_counted(self, contexts: Contexts, documents: ByteStrings) -> list[Ids]:
        data = read_only(documents.data)
        codes = np.empty((_CHUNK, 2), np.uint64)
        parts = []
        for document in range(len(documents)):
            at, end = documents.offsets[document : document + 2].tolist()
            start, chunks = at, [np.empty(0, self.dtype)]
            registers = self._fresh_registers(1)[0]
            while at < end or registers[coding.INSIDE]:
                at, start, count = coding.encode_windows(
                    *(contexts, data, at, start, end),
                    *(self.window_bits, self.reset or 0, registers, codes),
                )
                chunks.append(pack(codes[:count], self.window_bits, self.token_bits))
            parts.append(np.concatenate(chunks))
        return parts

    def _encode_in_lanes(self, documents: ByteStrings, most_lanes: int) -> list[Ids]:
        data = read_only(documents.data)
        lanes = Lanes(self.model, np.flatnonzero(documents.lengths()), most_lanes)
        at = documents.offsets[lanes.documents]
        registers = self._fresh_registers(lanes.number)
        owners, codes = [], [np.empty((0, 2), np.uint64)]
        while len(lanes.active):
            active, end = lanes.active, documents.offsets[lanes.documents + 1]
            took, ended, due, found = coding.encode_lanes(
                *(lanes.sums(), self.model.precision, data, at, end, active),
                *(self.window_bits, self.reset or 0, registers),
            )
            owners.append(lanes.documents[active[ended]])
            codes.append(found[ended])
            lanes.read(active[took], data[at[active[took]] - 1])
            lanes.restart(active[due])
            refilled = lanes.end_documents(active[ended & (at[active] == end[active])])
            at[refilled] = documents.offsets[lanes.documents[refilled]]
            registers[refilled, coding.WINDOWS] = 0
        values, bounds = by_document(owners, codes, len(documents))
        return [
            pack(values[first:last], self.window_bits, self.token_bits)
            for first, last in itertools.pairwise(bounds)
        ]

    def _decode(
        self, ids: Ids, offsets: Offsets, most_lanes: int, *, whole: bool
    ) -> tuple[npt.NDArray[np.uint8], Offsets, Known]:
        codes = [self._codes(ids[first:last], whole) for first, last in itertools.pairwise(offsets)]
        contexts = self._contexts()
        if contexts is None:
            return self._decode_in_lanes(codes, most_lanes)
        return joined_texts([self._decode_counted(contexts, *each, whole) for each in codes])

    def _codes(self, ids: Ids, whole: bool) -> tuple[Codes, int]:
        """As `unpack`, but without a last code that says nothing or that is filling."""
        codes, left = unpack(ids, self.window_bits, self.token_bits)
        if left < self.token_bits:
            if whole and codes[-1].any():
                raise DataError("its last id has more than the end of the last window")
            left = 0
        elif whole:
            raise DataError(
                f"its last window has {left} bits of {self.window_bits}: ids are missing"
            )
        return codes, left

    def _decode_counted(
        self, contexts: Contexts, codes: Codes, left: int, whole: bool
    ) -> tuple[npt.NDArray[np.uint8], Known]:
        registers = self._fresh_registers(1)[0]
        text = np.empty(64 + 4 * len(codes), np.uint8)
        known = np.empty(0 if whole else len(text), np.int64)
        code = at = start = 0
        while True:
            code, at, start = coding.decode_windows(
                *(contexts, codes, code, left, at, start),
                *(self.window_bits, self.reset or 0, registers, text, known),
            )
            if code == len(codes):
                return text[:at].copy(), known[:at].copy()
            text = np.concatenate([text, np.empty_like(text)])
            known = np.concatenate([known, np.empty_like(known)])

    def _decode_in_lanes(
        self, documents: list[tuple[Codes, int]], most_lanes: int
    ) -> tuple[npt.NDArray[np.uint8], Offsets, Known]:
        counts = np.array([len(codes) - (left == 0) for codes, left in documents], np.int64)
        lefts = np.array([left for _, left in documents], np.int64)
        codes = np.concatenate([np.empty((0, 2), np.uint64), *(each for each, _ in documents)])
        # A code that says nothing stands behind those of most documents.
        firsts = np.cumsum([0, *(len(each) for each, _ in documents)], dtype=np.int64)[:-1]
        # What the model reads between two of its starts is decoded by itself.
        step = self.reset or int(counts.max(initial=1))
        pieces_of = -(-counts // step)
        bounds_of = offsets_of(pieces_of)
        document = np.repeat(np.arange(len(documents)), pieces_of)
        before = (np.arange(len(document)) - bounds_of[document]) * step
        is_last = before + step >= counts[document]
        firsts = firsts[document] + before
        lefts = np.where(is_last, lefts[document], 0)
        counts = np.where(is_last, counts[document] - before, step)
        lanes = Lanes(self.model, np.arange(len(document)), most_lanes)
        place = np.zeros(lanes.number, np.int64)
        registers = self._fresh_registers(lanes.number)
        owners, text, known = [], [np.empty(0, np.uint8)], [np.empty(0, np.int64)]
        while len(lanes.active):
            active, own = lanes.active, lanes.documents
            wrote, due, is_done, found, bits = coding.decode_lanes(
                *(lanes.sums(), self.model.precision, codes, firsts[own], counts[own], lefts[own]),
                *(place, active, self.window_bits, self.reset or 0, registers),
            )
            writers = own[active[wrote]]
            owners.append(writers)
            text.append(found[wrote])
            known.append(before[writers] * self.window_bits + bits[wrote])
            lanes.read(active[wrote], found[wrote])
            # Before what is left behind the last window of a document.
            lanes.restart(active[due & ~is_done])
            refilled = lanes.end_documents(active[is_done])
            place[refilled] = 0
            registers[refilled] = self._fresh_registers(len(refilled))
        data, bounds = by_document(owners, text, len(document))
        return data, bounds[bounds_of], by_document(owners, known, len(document))[0]

    def _fresh_registers(self, number: int) -> Codes:
        registers = np.zeros((number, coding.REGISTERS), np.uint64)
        for row in registers[:1]:
            coding.begin_window(row, self.window_bits)
        registers[1:] = registers[:1]
        return registers

    def _bits_of_whole_text(self, ids: int) -> Known:
        # Less than an id of a window may as well be what fills up a document's last id.
        bits = super()._bits_of_whole_text(ids)
        inside = bits % self.window_bits
        return np.where(inside < self.token_bits, bits - inside, bits)


def check_windows(model: ByteModel, window_bits: int, reset: int | None) -> None:
    """Raises UsageError where the model can't code windows of so many bits."""
    if reset is not None and reset < 1:
        raise UsageError(f"the model cannot start afresh after {reset} windows")
    if reset != 1 and window_bits < model.precision:
        raise UsageError(
            f"windows of {window_bits} bits may have no code for some bytes unless the model starts"
            f" afresh with every window: its frequencies add up to 2^{model.precision}; use windows"
            f" of at least {model.precision} bits"
        )
    if not _first_shares(model, window_bits).all():
        raise coding.no_codes(window_bits, model.precision)


def _first_shares(model: ByteModel, window_bits: int) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Something in proportion to the codes of windows that begin with each byte, 0 for none."""
    frequencies = model.frequencies(ByteStrings.of([b""]))[0]
    if 1 << window_bits > int(coding.WEBSTER_SEATS):
        # More codes than the frequencies add up to.
        return np.asarray(frequencies)
    sums = np.concatenate([[0], frequencies.cumsum()]).astype(np.uint32)
    shares = np.zeros(256, np.uint64)
    divide_seats(sums, model.precision, np.uint64(1 << window_bits), shares)
    return shares
