"""How fast does the exact transformer byte model code, against the same model in float?"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks import data, measure
from corpusmill.compress import ArithmeticCodec, ByteStrings, EqualInfoCodec, open_model
from corpusmill.compress.byte_models import TransformerModel
from corpusmill.compress.byte_models.torch_transformer import TorchTransformer
from corpusmill.compress.byte_models.transformer_state import PrefixTable
from corpusmill.compress.byte_models.transformer_weights import MATRICES
from corpusmill.compress.tally import tally

# Of an H200, by its data sheet: float64 operations and bytes a second.
_H200_OPERATIONS = 67e12
_H200_BYTES = 4.8e12


class FloatModel:
    """The network in float32 as a script would have it: one document, byte by byte, with a cache.

    Its frequencies are not exact, so nobody else can decode with them.
    """

    kind = "float"
    context_bytes = 1 << 30
    lanes = 1
    content_hash = ""

    def __init__(self, model: TransformerModel, device: str = "cpu") -> None:
        self.precision = model.precision
        self.length = model.length
        scales = {"embedding": 12}
        self.tensors = {
            name: torch.from_numpy(tensor.astype(np.float32)).to(device)
            / (1 << scales.get(name, 14))
            for name, tensor in model.tensors.items()
        }
        self.device = device
        self.head_size = 2 * model.tensors["cosines"].shape[1]

    def start(self, texts: int) -> "FloatState":
        assert texts == 1
        return FloatState(self)

    def frequencies(self, prefixes: ByteStrings):
        """Of the empty prefix, which the codec asks for when it is made."""
        assert list(prefixes) == [b""]
        return self.start(1).frequencies()


class FloatState:
    def __init__(self, model: FloatModel) -> None:
        self._model = model
        layers, _, inner = model.tensors["attention_output"].shape
        self._cache = torch.zeros(layers, 2, model.length, inner, device=model.device)
        self.restart(np.zeros(1, np.int64))

    def restart(self, _texts) -> None:
        self._read_tokens: list[int] = []
        self._compute([256], 0)

    def read(self, _texts, following) -> None:
        self._read_tokens.append(int(following[0]))
        if len(self._read_tokens) == self._model.length:
            self._read_tokens = self._read_tokens[self._model.length // 2 :]
            self._compute([256, *self._read_tokens], 0)
        else:
            self._compute(self._read_tokens[-1:], len(self._read_tokens))

    def frequencies(self):
        room = (1 << self._model.precision) - 256
        shares = (torch.softmax(self._logits.double(), 0).cpu().numpy() * room).astype(np.uint32)
        shares[shares.argmax()] += np.uint32(room - int(shares.sum()))
        return (shares + np.uint32(1))[None]

    @torch.inference_mode()
    def _compute(self, tokens: list[int], first: int) -> None:
        tensors, end = self._model.tensors, first + len(tokens)
        hidden = tensors["embedding"][tokens]
        width = hidden.shape[1:]
        angles = [tensors[name][first:end, None] for name in ("cosines", "sines")]
        later = torch.ones(len(tokens), end, dtype=torch.bool, device=self._model.device)
        later = later.triu(first + 1)
        for layer, (keys, values) in enumerate(self._cache):
            normalized = torch.nn.functional.rms_norm(hidden, width)
            queries, new, values[first:end] = (
                normalized @ tensors["attention_input"][layer].T
            ).chunk(3, dim=1)
            keys[first:end] = self._turned(new, *angles)
            shape = (-1, keys.shape[1] // self._model.head_size, self._model.head_size)
            by_head = [
                each.reshape(shape).transpose(0, 1)
                for each in (self._turned(queries, *angles), keys[:end], values[:end])
            ]
            scores = (by_head[0] @ by_head[1].mT).masked_fill(later, -torch.inf)
            mixed = (scores.softmax(-1) @ by_head[2]).transpose(0, 1).reshape(len(tokens), -1)
            hidden = hidden + mixed @ tensors["attention_output"][layer].T
            normalized = torch.nn.functional.rms_norm(hidden, width)
            gate, inner = (normalized @ tensors["mlp_input"][layer].T).chunk(2, dim=1)
            gated = torch.nn.functional.silu(gate) * inner
            hidden = hidden + gated @ tensors["mlp_output"][layer].T
        last = torch.nn.functional.rms_norm(hidden[-1:], width)
        self._logits = (last @ tensors["output"].T)[0]

    def _turned(self, vectors, cosines, sines):
        real, imaginary = vectors.reshape(len(vectors), -1, cosines.shape[-1], 2).unbind(-1)
        turned = [real * cosines - imaginary * sines, real * sines + imaginary * cosines]
        return torch.stack(turned, dim=-1).reshape(vectors.shape)


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured of a codec; processor time on a processor, else time."""

    encode: float
    decode: float
    bits: float
    computed: float
    occupied: float

    def cells(self) -> tuple[float, float, float, float, float]:
        return self.encode, self.decode, self.bits, self.computed, self.occupied


def measured(codec, documents: Sequence[bytes], clock=time.process_time) -> Row:
    batch = ByteStrings.of(documents)
    size = len(batch.data)
    with tally() as counts:
        started = clock()
        ids, offsets = codec.encode_batch(batch)
        encoding = clock() - started
    started = clock()
    back = codec.decode_batch(ids, offsets)
    decoding = clock() - started
    assert list(back) == list(documents)
    return Row(
        size / 1e3 / encoding,
        size / 1e3 / decoding,
        len(ids) * codec.token_bits / size,
        counts["positions_computed"] / size,
        counts["bytes_read"] / counts["lane_steps"],
    )


def some_of(documents: Sequence[bytes], kilobytes: float) -> list[bytes]:
    """The first documents, up to so much text; or the beginning of the first."""
    taken, room = [], int(kilobytes * 1000)
    for document in documents:
        if len(document) <= room:
            taken.append(document)
            room -= len(document)
    return taken or [documents[0][:room]]


def without_table(model: TransformerModel) -> TransformerModel:
    """The same model, with a table that has the empty prefix only."""
    same = TransformerModel(model.tensors, model.precision)
    same.__dict__["_table"] = PrefixTable(same, prefixes=1)
    return same


def windows(model, bits: int) -> EqualInfoCodec:
    return EqualInfoCodec(model, 16, bits)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exact_m1", description=__doc__)
    parser.add_argument("--m1", required=True, help="folder of a transformer byte model")
    parser.add_argument("--kilobytes", type=float, default=130, help="of text, to code")
    parser.add_argument("--float-kilobytes", type=float, default=2, help="with the float model")
    parser.add_argument("--document-bytes", type=int, default=500, help="longer ones are cut")
    parser.add_argument("--text", required=True, help="JSONL that the model has not learnt from")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    model = open_model(arguments.m1)
    texts = (text.encode() for text in data.texts(arguments.text))
    held_out = [text[: arguments.document_bytes] for text in texts]
    documents = some_of(held_out, arguments.kilobytes)
    rows: dict[str, Row] = {}

    def measure_one(name: str, codec, texts: Sequence[bytes], clock=time.process_time) -> None:
        codec.decode_batch(*codec.encode_batch(ByteStrings.of([b"what is compiled"])))
        rows[name] = measured(codec, texts, clock)
        print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)

    few = some_of(held_out, arguments.float_kilobytes)
    measure_one("32 bits, float, one document", windows(FloatModel(model), 32), few)
    measure_one("32 bits, no table", windows(without_table(model), 32), documents)
    fresh = TransformerModel(model.tensors, model.precision)
    measure_one("32 bits", windows(fresh, 32), documents)
    more = some_of(held_out[len(documents) :], arguments.kilobytes)
    measure_one("32 bits, as much again", windows(fresh, 32), more)
    measure_one("128 bits", windows(model, 128), documents)
    measure_one("32 bits, PyTorch", windows(TorchTransformer(model, "cpu"), 32), documents)
    measure_one("`ac`", ArithmeticCodec(model), documents)
    if torch.cuda.is_available():
        for bits in (32, 128):
            codec = windows(TorchTransformer(model, "cuda"), bits)
            measure_one(f"{bits} bits, GPU", codec, texts, time.perf_counter)
    measure.print_table(
        f"{sum(map(len, documents)):,} held-out bytes, processor time of one thread",
        ("", "encode KB/s", "decode KB/s", "bits/byte", "computed/byte", "lanes in use"),
        [(name, *row.cells()) for name, row in rows.items()],
    )
    base, best = rows["32 bits, float, one document"], rows["32 bits"]
    for what in ("encode", "decode"):
        ratio = getattr(best, what) / getattr(base, what)
        measure.print_goal(f"32 bits, {what}, against float by document", ratio, at_least=20)
    print_limit(model)


def limits(
    model: TransformerModel, operations: float, bandwidth: float, seen: float
) -> tuple[float, float]:
    """Bytes a second that a device could compute at most, were one thing all that takes time.

    Args:
      model: what is computed, each byte once.
      operations: float64 operations of matrix products that the device does in a second.
      bandwidth: bytes that it reads or writes in a second.
      seen: positions that a byte looks back on, in the mean.

    Returns:
      By products, two operations a weight of each matrix, and by the cache: keys and values of the
      positions seen, 8 bytes each, are read, copied and read again.
    """
    weights = sum(model.tensors[name].size for name in MATRICES)
    layers, _, inner = model.tensors["attention_output"].shape
    moved = 3 * 8 * layers * 2 * inner * seen
    return operations / (2 * weights), bandwidth / moved


def print_limit(model: TransformerModel) -> None:
    """What an H200 could do at most with float64, by counting."""
    print("\nat most, on an H200 by its data sheet:")
    for seen in (8, 32, 64):
        products, cache = limits(model, _H200_OPERATIONS, _H200_BYTES, seen)
        print(
            f"  {products / 1e6:.1f} MB/s by float64 products, {cache / 1e6:.1f} MB/s by the cache"
            f" with {seen} positions being seen"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
