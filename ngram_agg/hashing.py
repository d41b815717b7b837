"""Hashes of n-gram keys: they choose samples and table slots, never identity."""

import numpy as np

from corpusmill.ngram_agg.compiled import compiled
from corpusmill.ngram_agg.packing import Words


@compiled
def mix(word: np.uint64) -> np.uint64:
    """A bijection of 64-bit words that scatters them (SplitMix64: Steele, Lea & Flood 2014)."""
    word += np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@compiled
def hash_key(high: np.uint64, low: np.uint64) -> np.uint64:
    """A hash of a key; without collisions where `high` is zero."""
    return mix(mix(np.uint64(high)) ^ low)


@compiled
def mix_all(words: Words) -> Words:
    """`mix` of each word."""
    out = np.empty(len(words), np.uint64)
    for i in range(len(words)):
        out[i] = mix(words[i])
    return out


@compiled
def hash_keys(high: Words, low: Words) -> Words:
    """`hash_key` of each key, uint64 of the keys' shape."""
    out = np.empty(len(low), np.uint64)
    for i in range(len(low)):
        out[i] = hash_key(high[i], low[i])
    return out
