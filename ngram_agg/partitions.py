"""Cutting the sorted n-grams of a corpus into partitions of equal size.

The cuts come from a bottom-k sample of the distinct n-grams (the k with the smallest hashes,
Cohen & Kaplan 2007): it depends on the set of n-grams alone, so any split of the corpus and any
order of merging gives the same partitions, and it estimates how many n-grams there are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from corpusmill.ngram_agg.counts_runs import CountsRun
from corpusmill.ngram_agg.hashing import hash_keys
from corpusmill.ngram_agg.packing import Packing, Words, unpack_columns

SAMPLE_SIZE = 1 << 15
# With fewer sampled n-grams than this in a partition, its size would be too much left to chance.
_SAMPLED_PER_PARTITION = 16
MOST_PARTITIONS = SAMPLE_SIZE // _SAMPLED_PER_PARTITION
# Samples that wait to be merged may hold so many times the n-grams of one.
_GROWTH = 4
# A cut may stand this far from the ideal place, as a share of a partition, where that makes its
# prefix shorter: a shorter prefix means that fewer contexts are cut in two.
_SLACK = 0.1

Cut = tuple[int, ...]


@dataclass(frozen=True)
class KeySample:
    """The n-grams with the smallest hashes; all n-grams where there are fewer than the sample.

    Attributes:
      hashes: uint64 of shape [rows], rising.
      high, low: the n-grams' keys, each of shape [rows].
    """

    hashes: Words
    high: Words
    low: Words

    def __len__(self) -> int:
        return len(self.hashes)

    def distinct(self, size: int = SAMPLE_SIZE) -> int:
        """Estimated number of distinct n-grams; exact where the sample holds them all."""
        if len(self) < size:
            return len(self)
        return round((size - 1) * 2.0**64 / float(self.hashes[-1]))


def sample_stream(runs: Iterable[CountsRun], size: int = SAMPLE_SIZE) -> KeySample:
    """The sample of several runs, holding one at a time."""
    held = [empty_sample()]
    for run in runs:
        # A full sample, which is the first one then, lets few candidates through.
        held = add_sample(held, _candidates(run, held[0], size), size)
    return merge_samples(held, size)


def add_sample(
    samples: list[KeySample], sample: KeySample, size: int = SAMPLE_SIZE
) -> list[KeySample]:
    """One sample more; they are merged when they have grown: sorting costs more than holding."""
    samples = [*samples, sample]
    if sum(map(len, samples)) > _GROWTH * size:
        return [merge_samples(samples, size)]
    return samples


def merge_samples(samples: Sequence[KeySample], size: int = SAMPLE_SIZE) -> KeySample:
    """The sample of the union of the runs that the samples are of."""
    hashes = np.concatenate([sample.hashes for sample in samples])
    high = np.concatenate([sample.high for sample in samples])
    low = np.concatenate([sample.low for sample in samples])
    order = np.argsort(hashes)
    if _collide(hashes[order], high[order], low[order]):
        # Sorting by three words is ten times slower, so only where the result depends on it.
        order = np.lexsort((low, high, hashes))
    hashes, high, low = hashes[order], high[order], low[order]
    rows = np.flatnonzero(np.append(len(hashes) > 0, _differ(hashes, high, low)))[:size]
    return KeySample(hashes[rows], high[rows], low[rows])


def _differ(hashes: Words, high: Words, low: Words) -> Words:
    """Whether each row differs from the one before it; the first row has no entry."""
    return np.asarray((hashes[1:] != hashes[:-1]) | (high[1:] != high[:-1]) | (low[1:] != low[:-1]))


def _collide(hashes: Words, high: Words, low: Words) -> bool:
    """Whether different keys, in the order of their hashes, have the same hash."""
    return bool(((hashes[1:] == hashes[:-1]) & _differ(hashes, high, low)).any())


def _candidates(run: CountsRun, sample: KeySample, size: int) -> KeySample:
    hashes = hash_keys(run.high, run.low)
    if len(sample) == size:
        rows = np.flatnonzero(hashes <= sample.hashes[-1])
    elif len(run) > size:
        rows = np.argpartition(hashes, size)[:size]
    else:
        rows = np.arange(len(run))
    return KeySample(hashes[rows], run.high[rows], run.low[rows])


def empty_sample() -> KeySample:
    """The sample of nothing."""
    return KeySample(*(np.empty(0, np.uint64) for _ in range(3)))


def partition_cuts(
    packing: Packing, sample: KeySample, rows_per_partition: int, size: int = SAMPLE_SIZE
) -> list[Cut]:
    """Where to cut the sorted n-grams so that each partition has about `rows_per_partition`.

    Returns:
      Rising prefixes of n-grams: partition p holds the n-grams from cut p - 1 (inclusive) to
      cut p (exclusive), compared token by token. Where the sample is too small for so many
      partitions there are fewer, larger ones.
    """
    most = len(sample) if len(sample) < size else size // _SAMPLED_PER_PARTITION
    count = max(1, min(-(-sample.distinct(size) // rows_per_partition), most))
    order = np.lexsort((sample.low, sample.high))
    ngrams = np.column_stack(unpack_columns(packing, sample.high[order], sample.low[order]))
    # differs[i]: the first token in which the sampled n-grams i and i + 1 differ.
    differs = np.argmax(ngrams[1:] != ngrams[:-1], axis=1)
    step = len(ngrams) / count
    cuts = []
    for partition in range(1, count):
        first = round((partition - _SLACK) * step)
        last = max(first + 1, round((partition + _SLACK) * step))
        row = min(first + int(np.argmin(differs[first - 1 : last - 1])), len(ngrams) - 1)
        cuts.append(tuple(ngrams[row, : differs[row - 1] + 1].tolist()))
    return sorted(set(cuts))
