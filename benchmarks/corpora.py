"""Codebooks against BPE of as many entries, a corpus at a time: how much text an id stands for.

Both are made of nineteen documents in twenty of each corpus and compared on the others. Codebooks
are fitted on their own starts, of an n-gram model of the bytes.
"""

import gzip
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import data, measure
from benchmarks.codebook import _HELD_OUT, Text, _limited, bpe_ids, train_bpe
from compress import ByteStrings, FreezeOptions, NgramModel, freeze
from compress.codebook import PARSES
from ngram_agg.full_tables import backward_run, build_table
from ngram_agg.runs import count_ngrams

_MAX_ORDER = 5
# Contexts of bytes that were seen once say next to nothing.
_MIN_COUNT = 2


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("corpora", __doc__, 0, repeat=1)
    parser.add_argument("--megabytes", type=int, default=40, help="of each corpus, at most")
    arguments = parser.parse_args(argv)
    paths = sorted((data.SHARED / "corpora").glob("*.jsonl.gz"))
    rows = [_compare(path, arguments.megabytes) for path in paths]
    measure.print_table(
        "bytes an id on held-out documents, 65,536 entries each; and BPE = 1",
        ("corpus", "MB to fit on", "BPE", "greedy", "flexible", "greedy / BPE", "flexible / BPE"),
        rows,
    )


def _compare(path: Path, megabytes: int) -> tuple[str, float, float, float, float, float, float]:
    texts = list(_limited(_documents(path), megabytes * 1_000_000))
    train = [text for i, text in enumerate(texts) if i % _HELD_OUT != _HELD_OUT - 1]
    text = Text(train, texts[_HELD_OUT - 1 :: _HELD_OUT])
    fit_on, held_out = (
        ByteStrings.of(each.encode() for each in part) for part in (text.train, text.held_out)
    )
    size = len(held_out.data)
    usual = size / bpe_ids(train_bpe(text.train, pre_tokenized=True), text.held_out)
    model = _model(fit_on)
    found = []
    for parse in PARSES:
        book = freeze(model, FreezeOptions("optimal", 16, parse), {}, fit_on)
        found.append(size / len(book.encode_batch(held_out, parse)[0]))
    greedy, flexible = found
    name = path.name.removesuffix(".jsonl.gz")
    return name, len(fit_on.data) / 1e6, usual, greedy, flexible, greedy / usual, flexible / usual


def _documents(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from (json.loads(line)["text"] for line in file)


def _model(text: ByteStrings) -> NgramModel:
    ends = np.arange(1, len(text) + 1) + text.offsets[1:] - 1
    tokens = np.full(len(text.data) + len(text), 256, np.uint16)
    is_byte = np.ones(len(tokens), bool)
    is_byte[ends] = False
    tokens[is_byte] = text.data
    run = count_ngrams(tokens, max_order=_MAX_ORDER, vocabulary_size=257, end_of_document=256)
    backward = backward_run(run, range(_MAX_ORDER + 1), _MIN_COUNT)
    return NgramModel(build_table(run.packing, [backward], _MIN_COUNT))


if __name__ == "__main__":
    main(sys.argv[1:])
