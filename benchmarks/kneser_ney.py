"""How well can a simple model predict the ids? A quick stand-in for training networks on them.

An interpolated Kneser-Ney model of order 5 (Kneser and Ney 1995, with one discount an order as in
Chen and Goodman 1998) learns the ids of a text, and says how many bits a byte other documents take.
All dictionaries are fitted on the same text of Simple English Wikipedia.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import measure
from benchmarks.bpe import train_bpe
from benchmarks.codebook import Text, _limited_list
from benchmarks.corpora import codebooks, ngram_model_of
from corpusmill.compress import ByteStrings, freeze

_ORDER = 5

Ids = npt.NDArray[np.int64]
Documents = Sequence[npt.ArrayLike]
Encode = Callable[[Sequence[str]], Documents]


def bits(train: Documents, held_out: Documents, size: int) -> float:
    """The bits that held-out documents take, their ends included.

    Args:
      train: the ids of documents to learn.
      held_out: those of others.
      size: how many ids there are.
    """
    end = np.array([size])
    stream = np.concatenate([end, *(part for ids in (*train, *held_out) for part in (ids, end))])
    first_held_out = 1 + sum(len(np.asarray(ids)) + 1 for ids in train)
    # Numbers of the n-grams that end at each place, whatever stands before the stream.
    ngrams: list[Ids] = [np.zeros(len(stream), np.int64), stream.astype(np.int64)]
    for _ in range(_ORDER - 1):
        keys = np.roll(ngrams[-1], 1) * (size + 1) + stream
        ngrams.append(np.unique(keys, return_inverse=True)[1])
    probabilities = np.full(len(stream) - first_held_out, 1 / (size + 1))
    for order in range(1, _ORDER + 1):
        probabilities = _interpolated(ngrams, order, first_held_out, probabilities)
    return float(-np.log2(probabilities).sum())


def _interpolated(
    ngrams: Sequence[Ids], order: int, first_held_out: int, lower: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The probability of each held-out id, given those of the order below."""
    own, contexts = ngrams[order], np.roll(ngrams[order - 1], 1)
    numbers, places, counts = np.unique(own[:first_held_out], return_index=True, return_counts=True)
    if order < _ORDER:
        # How many different ids stand before it counts, not how often it is there.
        longer = np.unique(ngrams[order + 1][:first_held_out], return_index=True)[1]
        found, counts = np.unique(own[longer], return_counts=True)
        assert len(found) == len(numbers)
    once, twice = (np.count_nonzero(counts == times) for times in (1, 2))
    discount = once / max(1, once + 2 * twice)
    most = max(map(int, (own.max(), contexts.max()))) + 1
    count_of = np.zeros(most)
    count_of[numbers] = counts
    totals = np.bincount(contexts[places], counts, minlength=most)
    followers = np.bincount(contexts[places], minlength=most)
    total = totals[contexts[first_held_out:]]
    held = np.maximum(count_of[own[first_held_out:]] - discount, 0)
    left = discount * followers[contexts[first_held_out:]]
    known = total > 0
    result = lower.copy()
    result[known] = (held[known] + left[known] * lower[known]) / total[known]
    return result


def dictionaries(text: Text, window_bits: int) -> Iterator[tuple[str, Encode]]:
    """Ways of turning documents into 2^window_bits ids, pre-tokenized BPE first."""
    size = 1 << window_bits
    for name, pre_tokenized in (("BPE, pre-tokenized", True), ("BPE within lines", False)):
        bpe = train_bpe(text.train, pre_tokenized=pre_tokenized, vocabulary=size)
        yield name, lambda texts, bpe=bpe: [each.ids for each in bpe.encode_batch_fast(list(texts))]
    fit_on = ByteStrings.of(text.train)
    for name, options in codebooks(window_bits).items():
        model = ngram_model_of(fit_on) if options.allocation == "optimal" else None
        book = freeze(model, options, {}, fit_on)
        yield name, lambda texts, book=book: [book.encode(each) for each in texts]


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kneser_ney", description=__doc__)
    add: Any = parser.add_argument
    add("--megabytes", type=int, default=40, help="of text, to fit dictionaries on")
    add("--learn", type=int, default=20, help="megabytes of it that the model learns")
    add("--window-bits", type=int, nargs="+", default=[12, 16])
    options = parser.parse_args(argv)
    os.environ["RAYON_NUM_THREADS"] = "1"
    text = Text.load(options.megabytes, None)
    learnt = _limited_list(text.train, options.learn * 1_000_000)
    size = sum(len(each.encode()) for each in text.held_out)
    for window_bits in options.window_bits:
        rows = []
        for name, encode in dictionaries(text, window_bits):
            held_out = encode(text.held_out)
            ids = sum(len(np.asarray(each)) for each in held_out)
            rows.append((name, size / ids, bits(encode(learnt), held_out, 1 << window_bits) / size))
        _, usual_length, usual_bits = rows[0]
        measure.print_table(
            f"{1 << window_bits:,} ids, KN-{_ORDER} of {options.learn} MB",
            ("", "bytes an id", "BPE = 1", "bits a byte", "% above BPE"),
            [(n, b, b / usual_length, k, 100 * (k / usual_bits - 1)) for n, b, k in rows],
        )


if __name__ == "__main__":
    main(sys.argv[1:])
