"""How short do the codecs that run a byte model make text, and what do the paper's windows lose?"""

import argparse
import itertools
import sys
import time
from collections.abc import Sequence

import numpy as np

from benchmarks import measure
from benchmarks.codebook import Text, byte_counts
from corpusmill.compress import (
    ArithmeticCodec,
    ByteStrings,
    CodebookCodec,
    Codec,
    EqualInfoCodec,
    FreezeOptions,
    PaddedCodec,
    StaticArithmeticCodec,
    freeze,
    ngram_model,
    static_model,
)

_TOKEN_BITS = 16


def codecs(counts: str) -> dict[str, Codec]:
    """All codecs, by what they are called in the table."""
    model = ngram_model(counts)
    book = freeze(model, FreezeOptions("coder", 16), {})
    found: dict[str, Codec] = {"codebook `coder`, 16 bits": CodebookCodec(book)}
    for bits in (16, 32, 64):
        found[f"{bits} bits"] = EqualInfoCodec(model, _TOKEN_BITS, bits)
        for padding in ("zeros", "delay"):
            padded = PaddedCodec(model, _TOKEN_BITS, bits, padding)
            found[f"{bits} bits, `{padding}`"] = padded
    found["128 bits"] = EqualInfoCodec(model, _TOKEN_BITS, 128)
    for reset, name in ((2, "reset every 2nd"), (None, "reset never")):
        found[f"16 bits, {name}"] = EqualInfoCodec(model, _TOKEN_BITS, 16, reset)
    found["`ac`"] = ArithmeticCodec(model, _TOKEN_BITS)
    found["`static-ac`"] = StaticArithmeticCodec(static_model(counts), _TOKEN_BITS)
    return found


def lost_windows(codec: Codec, documents: Sequence[bytes]) -> float:
    """The share of windows that decode to something else; windows are decoded one by one."""
    ids, offsets = codec.encode_batch(ByteStrings.of(documents))
    step = codec.window_ids or len(ids)
    windows = list(codec.decode_batch(ids, np.arange(0, len(ids) + 1, step)))
    lost = 0
    for document, (first, last) in zip(documents, itertools.pairwise(offsets // step), strict=True):
        at = 0
        for window in windows[first:last]:
            own = document[at : at + len(window)]
            # The window ended where they part: a byte more that is the same would have fitted.
            pairs = enumerate(zip(own, window, strict=False))
            at += next((i for i, (one, other) in pairs if one != other), len(own))
            lost += own != window
    return lost / len(windows)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codecs", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=40, help="of text")
    parser.add_argument("--held-out-kilobytes", type=int, default=150, help="to code, at most")
    parser.add_argument("--corpus", choices=("shared", "embedded"), help="default: shared")
    arguments = parser.parse_args(argv)
    text = Text.load(arguments.megabytes, arguments.corpus)
    documents = []
    room = arguments.held_out_kilobytes * 1000
    for document in (each.encode() for each in text.held_out):
        room -= len(document)
        if room > 0:
            documents.append(document)
    batch = ByteStrings.of(documents)
    size = len(batch.data)
    rows = []
    lengths = {}
    for name, codec in codecs(byte_counts(text)).items():
        # The first time compiles.
        codec.decode_batch(*codec.encode_batch(ByteStrings.of([b"a text"])))
        started = time.process_time()
        ids, offsets = codec.encode_batch(batch)
        encoding = time.process_time() - started
        started = time.process_time()
        codec.decode_batch(ids, offsets)
        decoding = time.process_time() - started
        lengths[name] = size / len(ids)
        lost = lost_windows(codec, documents) if isinstance(codec, PaddedCodec) else 0.0
        speeds = (size / 1e6 / encoding, size / 1e6 / decoding)
        rows.append((name, lengths[name], f"{lost:.1%}", *speeds))
    measure.print_table(
        f"{size:,} held-out bytes, an n-gram model, ids of {_TOKEN_BITS} bits, processor time",
        ("", "bytes/id", "windows lost", "encode MB/s", "decode MB/s"),
        rows,
    )
    for bits, goal in ((16, 1.05), (32, 1.02)):
        gained = lengths[f"{bits} bits"] / lengths[f"{bits} bits, `zeros`"]
        measure.print_goal(f"{bits} bits, against the paper's", gained, at_least=goal)


if __name__ == "__main__":
    main(sys.argv[1:])
