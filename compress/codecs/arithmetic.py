"""The codecs `ac` and `static-ac`: a document is one arithmetic code."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_models import StaticModel
from corpusmill.compress.byte_models.contexts import Contexts
from corpusmill.compress.byte_strings import Bytes, ByteStrings, Ids, Offsets, read_only
from corpusmill.compress.codecs.modelled import Known, ModelCodec, joined_texts
from corpusmill.compress.coders import arithmetic as coding
from corpusmill.compress.coders.lanes import Lanes, by_document
from corpusmill.corpus.errors import DataError, UsageError

# Bytes of a document whose intervals are found at a time.
_CHUNK = 1 << 16


@dataclass(frozen=True)
class ArithmeticCodec(ModelCodec):
    """A document as the digits of one number, cut into ids (`compress.coders.arithmetic`)."""

    kind = "ac"

    @property
    def options(self) -> Mapping[str, Any]:
        return {"model": self.model.kind, "token_bits": self.token_bits}

    def _encode(self, documents: ByteStrings, most_lanes: int) -> list[Ids]:
        contexts = self._contexts()
        if contexts is None:
            streams = self._encode_in_lanes(documents, most_lanes)
        else:
            streams = self._encode_counted(contexts, documents)
        return [stream.view(self._digits).astype(self.dtype) for stream in streams]

    def _encode_counted(self, contexts: Contexts, documents: ByteStrings) -> list[Bytes]:
        data = read_only(documents.data)
        below, frequencies = np.empty((2, _CHUNK), np.uint32)
        streams = []
        for start, end in itertools.pairwise(documents.offsets.tolist()):
            stream = _Encoder(end - start, self.model.precision)
            for first in range(start, end, _CHUNK):
                size = min(_CHUNK, end - first)
                coding.find_intervals(
                    contexts, data, start, first, below[:size], frequencies[:size]
                )
                stream.add(below[:size], frequencies[:size])
            streams.append(stream.finish(self._token_bytes))
        return streams

    def _encode_in_lanes(self, documents: ByteStrings, most_lanes: int) -> list[Bytes]:
        data = read_only(documents.data)
        lanes = Lanes(self.model, np.flatnonzero(documents.lengths()), most_lanes)
        below, frequencies = np.empty((2, len(data)), np.uint32)
        at = documents.offsets[lanes.documents]
        while len(lanes.active):
            active, sums = lanes.active, lanes.sums()
            places = at[active]
            following = data[places]
            below[places] = sums[active, following]
            frequencies[places] = sums[active, following + np.int64(1)] - below[places]
            lanes.read(active, following)
            at[active] += 1
            is_done = at[active] == documents.offsets[lanes.documents[active] + 1]
            refilled = lanes.end_documents(active[is_done])
            at[refilled] = documents.offsets[lanes.documents[refilled]]
        streams = []
        for start, end in itertools.pairwise(documents.offsets.tolist()):
            stream = _Encoder(end - start, self.model.precision)
            stream.add(below[start:end], frequencies[start:end])
            streams.append(stream.finish(self._token_bytes))
        return streams

    def _decode(
        self, ids: Ids, offsets: Offsets, most_lanes: int, *, whole: bool
    ) -> tuple[npt.NDArray[np.uint8], Offsets, Known]:
        if len(ids) and ids.max() >= self.vocab_size:
            raise DataError(f"id {ids.max()} is outside the vocabulary of {self.vocab_size:,}")
        data = ids.astype(self._digits).view(np.uint8)
        streams = ByteStrings(read_only(data), np.asarray(offsets) * self._token_bytes)
        contexts = self._contexts()
        if contexts is None:
            return self._decode_in_lanes(streams, most_lanes, whole)
        return joined_texts(
            [
                self._decode_counted(contexts, streams.data[first:last], whole)
                for first, last in itertools.pairwise(streams.offsets)
            ]
        )

    def _decode_counted(
        self, contexts: Contexts, stream: Bytes, whole: bool
    ) -> tuple[npt.NDArray[np.uint8], Known]:
        text = np.empty(64 + 4 * len(stream) if len(stream) else 0, np.uint8)
        known = np.empty(0 if whole else len(text), np.int64)
        registers = np.zeros(coding.REGISTERS, np.uint64)
        coding.begin_decoding(registers, stream, 0, len(stream))
        at, symbol = 0, 0
        while len(stream):
            at, symbol = coding.decode_symbols(contexts, stream, at, registers, text, known)
            if symbol >= coding.STOP:
                self._check_end(symbol, coding.bits_needed(registers), len(stream), whole)
                break
            text = np.concatenate([text, np.empty_like(text)])
            known = np.concatenate([known, np.empty_like(known)])
        return text[:at].copy(), known[:at].copy()

    def _decode_in_lanes(
        self, streams: ByteStrings, most_lanes: int, whole: bool
    ) -> tuple[npt.NDArray[np.uint8], Offsets, Known]:
        lanes = Lanes(self.model, np.flatnonzero(streams.lengths()), most_lanes)
        registers = np.zeros((lanes.number, coding.REGISTERS), np.uint64)
        self._begin(lanes, lanes.active, streams, registers)
        owners, text, known = [], [np.empty(0, np.uint8)], [np.empty(0, np.int64)]
        while len(lanes.active):
            active, own = lanes.active, lanes.documents
            first, end = streams.offsets[own], streams.offsets[own + 1]
            symbols, bits = coding.decode_lanes(
                lanes.sums(), self.model.precision, streams.data, first, end, active, registers
            )
            is_done = symbols >= coding.STOP
            for symbol, needed, lane in zip(
                symbols[is_done], bits[is_done], active[is_done], strict=True
            ):
                self._check_end(symbol, needed, end[lane] - first[lane], whole)
            wrote = active[~is_done]
            following = symbols[~is_done].astype(np.uint8)
            owners.append(own[wrote])
            text.append(following)
            known.append(bits[~is_done])
            lanes.read(wrote, following)
            self._begin(lanes, lanes.end_documents(active[is_done]), streams, registers)
        data, bounds = by_document(owners, text, len(streams))
        return data, bounds, by_document(owners, known, len(streams))[0]

    def _begin(self, lanes: Lanes, begun: Offsets, streams: ByteStrings, registers: Any) -> None:
        for lane in begun:
            first, end = streams.offsets[lanes.documents[lane] :][:2]
            coding.begin_decoding(registers[lane], streams.data, first, end)

    def _check_end(self, symbol: int, needed_bits: int, stream_bytes: int, whole: bool) -> None:
        """Raises DataError where a document that must be whole ends otherwise than by stopping."""
        if not whole:
            return
        if symbol != coding.STOP or needed_bits > 8 * stream_bytes:
            raise DataError("its ids end before the document does, or are no document's")
        if -(-needed_bits // self.token_bits) * self._token_bytes != stream_bytes:
            raise DataError("there are more ids after the end of the document")

    @property
    def _token_bytes(self) -> int:
        return self.token_bits // 8

    @property
    def _digits(self) -> np.dtype[Any]:
        """Ids as they stand in the stream."""
        return np.dtype(f">u{self._token_bytes}")


@dataclass(frozen=True)
class StaticArithmeticCodec(ArithmeticCodec):
    """The same with a model that looks at no context.

    Raises:
      UsageError: the model does.
    """

    kind = "static-ac"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.model, StaticModel):
            raise UsageError(f"static-ac needs a static byte model, not one of {self.model.kind}")


class _Encoder:
    """The stream of one document, as its symbols come; the empty document has none."""

    def __init__(self, length: int, precision: int) -> None:
        # At most precision + 1 bits a symbol, the stop symbol's and 56 that follow. Memory that
        # isn't written to is never really taken.
        self._out = np.empty((length + 1) * (precision + 2) // 8 + 8, np.uint8)
        self._registers = np.zeros(coding.REGISTERS, np.uint64)
        self._precision = precision
        self._length = length
        coding.begin_encoding(self._registers)

    def add(self, below: npt.NDArray[np.uint32], frequencies: npt.NDArray[np.uint32]) -> None:
        coding.encode_symbols(below, frequencies, self._precision, self._registers, self._out)

    def finish(self, token_bytes: int) -> Bytes:
        if not self._length:
            return self._out[:0]
        size = coding.finish_encoding(self._precision, token_bytes, self._registers, self._out)
        return self._out[:size].copy()
