"""Codebooks against BPE of as many entries, a corpus at a time: how much text an id stands for.

All are made of nineteen documents in twenty of each corpus and compared on the others: BPE with
GPT-2's pre-tokenization and within lines, `optimal` of an n-gram model of the bytes, and `used`.
"""

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import data, measure
from benchmarks.bpe import train_bpe
from benchmarks.codebook import _HELD_OUT, Text, _limited, bpe_ids
from corpusmill.compress import ByteStrings, Codebook, FreezeOptions, NgramModel, freeze
from corpusmill.ngram_agg.counts_runs import count_ngrams
from corpusmill.ngram_agg.full_tables import build_table, forward_contexts

_WINDOW_BITS = 16
# The one between is the default.
_PHRASE_PRICES = (1, 4, 16)
_MAX_ORDER = 5
# Contexts of bytes that were seen once say next to nothing.
_MIN_COUNT = 2


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("corpora", __doc__, 0, repeat=1)
    parser.add_argument("--megabytes", type=int, default=40, help="of each corpus, at most")
    arguments = parser.parse_args(argv)
    os.environ["RAYON_NUM_THREADS"] = "1"
    paths = sorted((data.SHARED / "corpora").glob("*.jsonl.gz"))
    measure.print_table(
        "bytes an id on held-out documents, 65,536 entries each",
        (
            *("corpus", "MB to fit on", "BPE, pre-tokenized", "BPE within lines"),
            *codebooks(_WINDOW_BITS),
            "not UTF-8",
        ),
        [_compare(path, arguments.megabytes) for path in paths],
    )


def _compare(path: Path, megabytes: int) -> tuple[str | float, ...]:
    texts = list(_limited(data.texts(path), megabytes * 1_000_000))
    train = [text for i, text in enumerate(texts) if i % _HELD_OUT != _HELD_OUT - 1]
    text = Text(train, texts[_HELD_OUT - 1 :: _HELD_OUT])
    fit_on, held_out = (ByteStrings.of(part) for part in (text.train, text.held_out))
    size = len(held_out.data)
    bpe = [
        size / bpe_ids(train_bpe(text.train, pre_tokenized=each), text.held_out)
        for each in (True, False)
    ]
    books = [
        freeze(ngram_model_of(fit_on) if each.allocation == "optimal" else None, each, {}, fit_on)
        for each in codebooks(_WINDOW_BITS).values()
    ]
    lengths = [size / len(book.encode_batch(held_out)[0]) for book in books]
    name = path.name.removesuffix(".jsonl.gz")
    return name, len(fit_on.data) / 1e6, *bpe, *lengths, _broken_share(books[-1])


def codebooks(window_bits: int) -> dict[str, FreezeOptions]:
    """What is compared, by names for it; for the greedy parse where they don't say another."""
    used = partial(FreezeOptions, "used", window_bits)
    return {
        "`optimal`": FreezeOptions("optimal", window_bits),
        "`used`, boundaries `none`": used(boundaries="none"),
        **{f"words, phrase price {price}": used(phrase_price=price) for price in _PHRASE_PRICES},
        "words, flexible": used("flexible"),
    }


def _broken_share(book: Codebook) -> float:
    """The share of strings that aren't whole characters."""
    broken = 0
    for string in book.strings:
        try:
            string.decode()
        except UnicodeDecodeError:
            broken += 1
    return broken / book.vocab_size


def ngram_model_of(text: ByteStrings) -> NgramModel:
    """The n-gram model of documents."""
    ends = np.arange(1, len(text) + 1) + text.offsets[1:] - 1
    tokens = np.full(len(text.data) + len(text), 256, np.uint16)
    is_byte = np.ones(len(tokens), bool)
    is_byte[ends] = False
    tokens[is_byte] = text.data
    run = count_ngrams(tokens, max_order=_MAX_ORDER, vocabulary_size=257, end_of_document=256)
    contexts = forward_contexts(run.packing, [run], range(_MAX_ORDER + 1), _MIN_COUNT)
    return NgramModel(build_table(run.packing, contexts))


if __name__ == "__main__":
    main(sys.argv[1:])
