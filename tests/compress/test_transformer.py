"""The exact transformer beside the same arithmetic in Python's integers."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.compress import FreezeOptions, freeze
from corpusmill.compress.byte_models import TransformerModel, open_model, save_model
from corpusmill.compress.byte_models.transformer import TransformerState
from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.corpus.errors import DataError
from tests.compress.samples import HARD, frequencies, tiny_transformer

LENGTH = 8
LIMIT = 1 << 20


def rounded(value, bits):
    return max(-LIMIT, min(LIMIT, (value + (1 << bits - 1)) >> bits))


def times(matrix, vector):
    return [sum(int(w) * x for w, x in zip(row, vector, strict=True)) for row in matrix]


def normalized(hidden):
    root = math.isqrt((sum(x * x for x in hidden) << 8) // len(hidden))
    inverse = (1 << 40) // (root + 1)
    return [(x * inverse + (1 << 23)) >> 24 for x in hidden]


def turned(vector, cosines, sines):
    out = []
    for pair in range(len(vector) // 2):
        c, s = (int(each[pair % len(cosines)]) for each in (cosines, sines))
        real, imaginary = vector[2 * pair : 2 * pair + 2]
        out += [rounded(real * c - imaginary * s, 14), rounded(real * s + imaginary * c, 14)]
    return out


def attended(query, keys, values, exponentials):
    scores = [sum(q * k for q, k in zip(query, key, strict=True)) >> 14 for key in keys]
    weights = [
        int(exponentials[max(scores) - each]) if max(scores) - each < len(exponentials) else 0
        for each in scores
    ]
    columns = zip(*values, strict=True)
    return [
        sum(w * v for w, v in zip(weights, column, strict=True)) // sum(weights)
        for column in columns
    ]


def gated(gate, inner, sigmoids):
    sigmoid = int(sigmoids[(max(-(1 << 16), min((1 << 16) - 1, gate)) + (1 << 16)) >> 2])
    return rounded((gate * sigmoid >> 16) * inner, 12)


def quantized(logits, exponentials, precision):
    below = [max(logits) - each for each in logits]
    weights = [int(exponentials[each]) if each < len(exponentials) else 0 for each in below]
    probabilities = [(each << 32) // sum(weights) for each in weights]
    found = [1 + (each * ((1 << precision) - 256) >> 32) for each in probabilities]
    found[probabilities.index(max(probabilities))] += (1 << precision) - sum(found)
    return found


def oracle(model, prefix):
    """Frequencies by the definition, in Python's integers."""
    tensors = model.tensors
    length, pairs = tensors["cosines"].shape
    if len(prefix) >= length:
        half = length // 2
        prefix = prefix[(len(prefix) // half - 1) * half :]
    rows = [[int(x) for x in tensors["embedding"][token]] for token in (256, *prefix)]
    for layer in range(len(tensors["attention_input"])):
        queries, keys, values = [], [], []
        for position, row in enumerate(rows):
            projected = times(tensors["attention_input"][layer], normalized(row))
            query, key, value = np.array([rounded(x, 14) for x in projected]).reshape(3, -1)
            angles = tensors["cosines"][position], tensors["sines"][position]
            queries.append(turned(query.tolist(), *angles))
            keys.append(turned(key.tolist(), *angles))
            values.append(value.tolist())
        for position, row in enumerate(rows):
            mixed = []
            for head in range(0, len(queries[0]), 2 * pairs):
                part = slice(head, head + 2 * pairs)
                mixed += attended(
                    queries[position][part],
                    [key[part] for key in keys[: position + 1]],
                    [value[part] for value in values[: position + 1]],
                    tensors["exponentials"],
                )
            for name, vector in (("attention", mixed), ("mlp", None)):
                if vector is None:
                    inputs = times(tensors["mlp_input"][layer], normalized(row))
                    gates, inner = np.array([rounded(x, 14) for x in inputs]).reshape(2, -1)
                    vector = [
                        gated(gate, x, tensors["sigmoids"])
                        for gate, x in zip(gates.tolist(), inner.tolist(), strict=True)
                    ]
                added = times(tensors[f"{name}_output"][layer], vector)
                row = [
                    max(-LIMIT, min(LIMIT, x + rounded(y, 14)))
                    for x, y in zip(row, added, strict=True)
                ]
            rows[position] = row
    logits = [each >> 16 for each in times(tensors["output"], normalized(rows[-1]))]
    return quantized(logits, tensors["exponentials"], model.precision)


PREFIXES = st.one_of(st.binary(max_size=4 * LENGTH), st.text("ab", max_size=20).map(str.encode))


@given(st.lists(PREFIXES, max_size=6), st.sampled_from([1.0, 30.0]))
def test_frequencies_are_those_of_the_oracle(prefixes, scale):
    model = tiny_transformer(LENGTH, scale=scale)
    found = model.frequencies(ByteStrings.of(prefixes))
    assert found.shape == (len(prefixes), 256)
    assert found.tolist() == [oracle(model, prefix) for prefix in prefixes]


def test_clamps_and_tables_are_used_to_their_ends():
    """Weights so large that activations leave their range, scores and gates the tables."""
    model = tiny_transformer(LENGTH, scale=300.0)
    for prefix in (b"", b"abc", bytes(range(0, 250, 13))):
        assert frequencies(model, prefix) == oracle(model, prefix)


@pytest.mark.parametrize("precision", [9, 16, 24])
def test_frequencies_are_positive_and_add_up(precision):
    found = tiny_transformer(LENGTH, precision=precision).frequencies(ByteStrings.of(HARD))
    assert found.dtype == np.uint32
    assert found.min() >= 1
    assert (found.sum(axis=1) == 1 << precision).all()


def test_the_batch_makes_no_difference(monkeypatch):
    generator = np.random.default_rng(1)
    prefixes = [generator.bytes(n % 5 + n // 60) + b"ab"[: n % 3] for n in range(500)]
    expected = tiny_transformer(64).frequencies(ByteStrings.of(prefixes))
    order = generator.permutation(len(prefixes))
    for block, most_remembered in ((70, 0), (129, 3), (4096, 1 << 20)):
        monkeypatch.setattr("corpusmill.compress.byte_models.transformer._BLOCK", block)
        monkeypatch.setattr(
            "corpusmill.compress.byte_models.transformer._MOST_REMEMBERED", most_remembered
        )
        model = tiny_transformer(64)
        for part in np.array_split(order, 7):
            found = model.frequencies(ByteStrings.of(prefixes[row] for row in part))
            assert (found == expected[part]).all()


@given(st.data())
def test_a_state_says_what_prefixes_say(data):
    model = tiny_transformer(LENGTH)
    count = data.draw(st.integers(0, 4))
    texts, state = [b""] * count, model.start(count)
    for _ in range(data.draw(st.integers(0, 3 * LENGTH))):
        some = data.draw(st.permutations(range(count)))[: data.draw(st.integers(0, count))]
        rows = np.array(some, np.int64)
        if data.draw(st.integers(0, 9)) == 0:
            state.restart(rows)
            texts = [b"" if i in some else text for i, text in enumerate(texts)]
            continue
        following = data.draw(st.binary(min_size=len(some), max_size=len(some)))
        state.read(rows, np.frombuffer(following, np.uint8))
        for row, byte in zip(some, following, strict=True):
            texts[row] += bytes([byte])
    assert (state.frequencies() == model.frequencies(ByteStrings.of(texts))).all()


def test_a_state_of_long_texts_is_computed_in_blocks(monkeypatch):
    monkeypatch.setattr("corpusmill.compress.byte_models.transformer._BLOCK", 10)
    model = tiny_transformer(LENGTH)
    texts = np.random.default_rng(2).integers(0, 256, (25, 3 * LENGTH), np.uint8)
    state: TransformerState = model.start(len(texts))
    for place in range(texts.shape[1]):
        state.read(np.arange(len(texts)), texts[:, place])
    expected = model.frequencies(ByteStrings.of(text.tobytes() for text in texts))
    assert (state.frequencies() == expected).all()


def test_context_is_as_long_as_the_rule_says():
    model = tiny_transformer(LENGTH)
    text = bytes(range(65, 65 + 3 * LENGTH))
    for size in range(len(text)):
        first = 0 if size < LENGTH else (size // 4 - 1) * 4
        seen = frequencies(model, text[:size])
        assert seen == frequencies(model, text[first:size])
        if first:
            assert seen == frequencies(model, b"?" * first + text[first:size])


def test_saved_models_are_the_same(tmp_path):
    model = tiny_transformer(LENGTH)
    save_model(model, str(tmp_path))
    found = open_model(str(tmp_path))
    assert isinstance(found, TransformerModel)
    assert found.content_hash == model.content_hash
    assert frequencies(found, b"the cat") == frequencies(model, b"the cat")
    for other in (
        tiny_transformer(LENGTH, precision=14),
        tiny_transformer(2 * LENGTH),
        tiny_transformer(LENGTH, seed=1),
    ):
        assert other.content_hash != model.content_hash


@pytest.mark.parametrize("place", [-1, 20, 4])
def test_damaged_models_are_refused(place, tmp_path):
    save_model(tiny_transformer(LENGTH), str(tmp_path))
    file = tmp_path / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=str(tmp_path)):
        open_model(str(tmp_path))
    file.write_bytes(data[:-5])
    with pytest.raises(DataError, match=str(tmp_path)):
        open_model(str(tmp_path))
    file.unlink()
    with pytest.raises(DataError, match=str(tmp_path)):
        open_model(str(tmp_path))


def changed(model, name, value):
    tensor = model.tensors[name].copy()
    tensor.flat[0] = value
    return replace(model, tensors=model.tensors | {name: tensor})


def test_models_that_might_not_be_exact_are_refused():
    model = tiny_transformer(LENGTH)
    for name, value, reason in (
        ("embedding", LIMIT + 1, "embedding"),
        ("cosines", -16385, "cosines"),
        ("exponentials", 0, "begin with 0"),
        ("exponentials", -1, "exponentials"),
        ("sigmoids", 65537, "sigmoids"),
    ):
        with pytest.raises(ValueError, match=reason):
            changed(model, name, value)
    wide = np.full_like(model.tensors["mlp_output"], (1 << 31) - 1)
    many = np.tile(wide, (1, 1, 1 << 2))
    gates = np.tile(model.tensors["mlp_input"], (1, 1 << 2, 1))
    with pytest.raises(ValueError, match="2\\^53"):
        replace(model, tensors=model.tensors | {"mlp_output": many, "mlp_input": gates})
    with pytest.raises(ValueError, match="don't make a transformer"):
        replace(model, tensors=model.tensors | {"mlp_output": many})
    with pytest.raises(ValueError, match="length 7"):
        tiny_transformer(7)
    none = {name: model.tensors[name][:, :0] for name in ("cosines", "sines")}
    with pytest.raises(ValueError, match="heads of 0"):
        replace(model, tensors=model.tensors | none)


@pytest.mark.parametrize("allocation", ["coder", "optimal"])
def test_a_transformer_is_frozen(allocation):
    model = tiny_transformer(LENGTH, precision=9)
    text = ByteStrings.of([b"the cat sat on the mat"] * 3) if allocation == "optimal" else None
    book = freeze(model, FreezeOptions(allocation, 10), {}, text)
    assert book.decode(book.encode(b"the cat")) == b"the cat"


@pytest.mark.slow
def test_other_processors_and_libraries_make_no_difference():
    """The kernels of an old processor, compiled and in BLAS, with other vectors and orders."""
    program = (
        "import sys; from tests.compress.test_transformer import *;"
        "print(open_model(sys.argv[1]).frequencies(ByteStrings.of(HARD)).tolist())"
    )
    golden = str(Path(__file__).parents[1] / "golden" / "m1")
    outputs = []
    for changes in (
        {},
        {"OPENBLAS_CORETYPE": "PRESCOTT", "NUMBA_CPU_NAME": "generic", "OMP_NUM_THREADS": "1"},
    ):
        command = [sys.executable, "-c", program, golden]
        done = subprocess.run(
            command, env=os.environ | changes, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
