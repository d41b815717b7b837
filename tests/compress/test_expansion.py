"""The strings of codebooks, against what the definitions say, string by string."""

import heapq

import numpy as np
import pytest

from corpusmill.compress.codebooks import expansion
from corpusmill.compress.codebooks import trie as trie_module
from corpusmill.compress.codebooks.double_array import ROOT_BASE, build_double_array
from corpusmill.compress.codebooks.expansion import expand_coder, expand_optimal
from corpusmill.compress.codebooks.trie import NO_PARENT
from corpusmill.corpus.errors import UsageError
from tests.compress.samples import frequencies, ngram, static
from tests.compress.windows import WindowCode

MODELS = {
    "ngram": lambda precision: ngram(precision=precision),
    "static": lambda precision: static(precision=precision),
    "uniform": lambda precision: static([], precision),
    "certain": lambda precision: static([bytes(10_000)], precision),
}


def quiet(_):
    pass


def most_probable(model, size):
    """The definition of the allocation `optimal`, with a queue of Python integers."""
    probabilities = {
        bytes([byte]): f << 63 - model.precision for byte, f in enumerate(frequencies(model, b""))
    }
    queue = [(-p, string) for string, p in probabilities.items()]
    heapq.heapify(queue)
    chosen = dict.fromkeys(probabilities, 0)
    while len(chosen) < size:
        negative, string = heapq.heappop(queue)
        chosen[string] = 1
        for byte, f in enumerate(frequencies(model, string)):
            child = string + bytes([byte])
            heapq.heappush(queue, (-(-negative * f >> model.precision), child))
    return sorted(chosen)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("window_bits", "precision"), [(9, 9), (9, 14), (10, 24)])
def test_optimal_takes_the_most_probable_strings(model, window_bits, precision):
    byte_model = MODELS[model](precision)
    trie = expand_optimal(byte_model, window_bits, quiet)
    assert list(trie.strings()) == most_probable(byte_model, 1 << window_bits)


def test_batches_and_rounds_make_no_difference(monkeypatch):
    model = ngram()
    wanted = list(expand_optimal(model, 12, quiet).strings())
    coder = list(expand_coder(model, 16, quiet).strings())
    monkeypatch.setattr(expansion, "_BATCH", 7)
    monkeypatch.setattr(expansion, "_SHARE_AT_FIRST", 3)
    monkeypatch.setattr(expansion, "_SHARE", 500)
    assert list(expand_optimal(model, 12, quiet).strings()) == wanted
    assert list(expand_coder(model, 16, quiet).strings()) == coder


@pytest.mark.parametrize("model", ["ngram", "static", "uniform"])
@pytest.mark.parametrize(("window_bits", "precision"), [(9, 9), (10, 9), (14, 14)])
def test_coder_has_the_strings_of_the_window_code(model, window_bits, precision):
    byte_model = MODELS[model](precision)
    strings = list(expand_coder(byte_model, window_bits, quiet).strings())
    reference = WindowCode(byte_model, window_bits)
    step = max(1, len(strings) >> 7)
    numbers = range(0, len(strings), step)
    assert [strings[number] for number in numbers] == [reference.string(n) for n in numbers]
    assert len(set(strings)) == 1 << window_bits
    assert strings == sorted(strings)


def test_progress_adds_up():
    found = []
    expand_coder(static(), 16, found.append)
    assert sum(found) == 1 << 16
    expand_optimal(static(), 10, found.append)
    assert all(number > 0 for number in found)


def test_windows_too_short_for_the_model_are_refused():
    with pytest.raises(UsageError, match=r"windows of 9 bits .* 2\^14"):
        expand_coder(static(), 9, quiet)


def test_strings_that_take_too_much_room_are_refused(monkeypatch):
    trie = expand_coder(static([bytes(10_000)]), 14, quiet)
    assert trie.strings().lengths().max() > 4000
    monkeypatch.setattr(trie_module, "_MAX_POOL", 1 << 20)
    with pytest.raises(UsageError, match="bytes, more than 4 GiB"):
        trie.strings()


@pytest.mark.parametrize(
    ("model", "window_bits"), [*zip(MODELS, [9, 10, 11, 12], strict=True), ("static", 17)]
)
def test_a_double_array_has_the_trie_and_nothing_else(model, window_bits):
    trie = expand_optimal(MODELS[model](14), window_bits, quiet)
    array = build_double_array(trie)
    children = {}
    for code, (parent, byte) in enumerate(zip(trie.parents.tolist(), trie.bytes, strict=True)):
        children.setdefault(parent, {})[int(byte)] = code
    slots = array.slots.astype(np.int64)
    bases = {NO_PARENT: ROOT_BASE}
    for code in range(NO_PARENT, len(trie)):
        own = np.arange(256) + bases[code]
        fits = np.flatnonzero(slots[own] & 255 == np.arange(256)).tolist()
        assert fits == sorted(children.get(code, {}))
        for byte, child in children.get(code, {}).items():
            slot = bases[code] + byte
            high = array.high_codes[slot] if window_bits > 16 else array.high_codes[0]
            assert int(array.low_codes[slot]) + (int(high) << 16) == child
            bases[child] = int((slots[slot] >> 8) + (slots[slot] >> 12))
