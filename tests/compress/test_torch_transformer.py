"""The transformer on devices of PyTorch, beside the oracle and the model that it is made of."""

import dataclasses
import functools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.compress import ArithmeticCodec, ByteStrings, EqualInfoCodec
from corpusmill.compress.byte_models import on_device, open_model, torch_transformer
from corpusmill.compress.byte_models.torch_transformer import TorchTransformer
from corpusmill.compress.byte_models.transformer_state import START
from corpusmill.compress.byte_models.transformer_weights import LIMIT
from corpusmill.compress.codecs import PaddedCodec, codec_on_device, open_codec
from corpusmill.compress.datasets.compressed import read_documents
from corpusmill.compress.tally import tally
from corpusmill.corpus.errors import CorpusmillError, DataError, UsageError
from tests.compress.samples import HARD, TEXT, ngram, tiny_transformer
from tests.compress.test_transformer import LENGTH, oracle
from tests.golden.make import CODEC_FOLDER, HERE

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@functools.cache
def model_of(scale=1.0, precision=16, seed=0):
    return tiny_transformer(LENGTH, scale=scale, precision=precision, seed=seed)


@functools.cache
def on(device, scale=1.0, precision=16, seed=0):
    return TorchTransformer(model_of(scale, precision, seed), device)


def texts_read(model, texts):
    """What a state says after texts that are read side by side."""
    state = model.start(len(texts))
    for place in range(max(map(len, texts), default=0)):
        rows = np.flatnonzero([len(text) > place for text in texts])
        state.read(rows, np.array([texts[row][place] for row in rows], np.uint8))
    return state.frequencies()


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=20)
@given(
    texts=st.lists(st.binary(max_size=3 * LENGTH), max_size=4),
    made=st.tuples(
        st.sampled_from([1.0, 30.0, 300.0]), st.sampled_from([9, 16, 24]), st.integers(0, 2)
    ),
)
def test_frequencies_are_those_of_the_oracle(texts, made, device):
    expected = [oracle(model_of(*made), text) for text in texts]
    assert texts_read(on(device, *made), texts).tolist() == expected
    assert texts_read(model_of(*made), texts).tolist() == expected


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=20)
@given(data=st.data())
def test_states_go_through_the_same(data, device):
    """Reading and starting anew in any order, with tables that have seen other texts."""
    count = data.draw(st.integers(1, 5))
    states = [model_of().start(count), on(device).start(count)]
    for _ in range(data.draw(st.integers(0, 3 * LENGTH))):
        some = data.draw(st.permutations(range(count)))[: data.draw(st.integers(0, count))]
        rows = np.array(some, np.int64)
        following = data.draw(st.binary(min_size=len(some), max_size=len(some)))
        restart = data.draw(st.integers(0, 5)) == 0
        for state in states:
            if restart:
                state.restart(rows)
            else:
                state.read(rows, np.frombuffer(following, np.uint8))
    assert (states[0].frequencies() == states[1].frequencies()).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("length", [2, LENGTH, 100])
@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 1000, 4096])
def test_any_number_of_texts_is_computed_alike(rows, length, device):
    """Products of matrices take other ways for other sizes."""
    model = tiny_transformer(length, scale=30.0)
    networks = [model, TorchTransformer(model, device)]
    caches = [network.new_cache(rows * length) for network in networks]
    generator = np.random.default_rng(rows)
    texts = np.arange(rows)
    for position in range(min(length, 4)):
        tokens = generator.integers(0, 256, rows) if position else np.full(rows, START)
        where = (np.full(rows, position), texts * length)
        found = [
            network.compute(tokens, *where, cache, texts)
            for network, cache in zip(networks, caches, strict=True)
        ]
        assert (found[0] == found[1]).all()


@pytest.mark.parametrize("device", DEVICES)
def test_every_rounding_is_that_of_integers(device):
    """At, above and below what is rounded up or down, of either sign, as large as may be."""
    powers = [1 << bits for bits in range(50)]
    near = {sign * (power + step) for power in powers for step in (-1, 0, 1) for sign in (-1, 1)}
    values = [*near, (1 << 53) - 1, 1 - (1 << 53), *(3 * power for power in powers)]
    given = torch.tensor(values, dtype=torch.float64, device=device)
    for bits in (1, 10, 12, 14, 26, 40):
        shifted = [value >> bits for value in values]
        assert torch_transformer._shifted(given, bits).tolist() == shifted
        rounded = [(value + (1 << bits - 1)) >> bits for value in values]
        clamped = [max(-LIMIT, min(LIMIT, value)) for value in rounded]
        assert torch_transformer._rounded(given, bits).tolist() == clamped


@pytest.mark.parametrize("device", DEVICES)
def test_rows_are_normalized_as_in_integers(device):
    rows = [[0] * 8, [1] + [0] * 7, [LIMIT] * 8, [-LIMIT] * 8, [LIMIT] + [0] * 7, [-5, 4, 3] * 2]
    rows += np.random.default_rng(0).integers(-LIMIT, LIMIT + 1, (200, 8)).tolist()
    for row in rows:
        mean = (sum(each * each for each in row) << 8) // len(row)
        inverse = (1 << 40) // (math.isqrt(mean) + 1)
        expected = [(each * inverse + (1 << 23)) >> 24 for each in row]
        given = torch.tensor([row], dtype=torch.float64, device=device)
        assert torch_transformer._normalized(given).tolist() == [expected]


def codecs_of(model):
    return [
        ArithmeticCodec(model),
        EqualInfoCodec(model, 8, 16),
        EqualInfoCodec(model, 16, 32),
        EqualInfoCodec(model, 16, 128, 2),
        EqualInfoCodec(model, 16, 64, None),
        PaddedCodec(model, 16, 32, "delay"),
    ]


DOCUMENTS = [*TEXT, *(document[:25] for document in HARD)]


@pytest.fixture(autouse=True)
def one_thread():
    """More cost more than they bring with a model so small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("number", range(len(codecs_of(model_of()))))
def test_what_one_encodes_the_other_decodes(number, device):
    """In other lanes, batches, orders and threads."""
    codec = codecs_of(model_of())[number]
    other = codecs_of(TorchTransformer(model_of(), device, lanes=7))[number]
    assert other.content_hash == codec.content_hash
    ids, offsets = codec.encode_batch(ByteStrings.of(DOCUMENTS))
    order = np.random.default_rng(1).permutation(len(DOCUMENTS))
    torch.set_num_threads(2)
    for part in np.array_split(order, 2):
        documents = [DOCUMENTS[i] for i in part]
        found, bounds = other.encode_batch(ByteStrings.of(documents))
        own = [ids[offsets[i] : offsets[i + 1]] for i in part]
        assert found.tolist() == np.concatenate(own).tolist()
        assert list(codec.decode_batch(found, bounds)) == documents
    assert list(other.decode_batch(ids, offsets)) == DOCUMENTS


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=20)
@given(data=st.data())
def test_any_ids_decode_or_are_refused(data, device):
    codec = data.draw(st.sampled_from(codecs_of(on(device))))
    ids = data.draw(st.lists(st.integers(0, codec.vocab_size - 1), max_size=8))
    bounds = np.array([0, len(ids)])
    try:
        text = codec.decode_batch(np.array(ids, codec.dtype), bounds)
    except DataError:
        return
    assert list(codec.decode_batch(*codec.encode_batch(text))) == list(text)


class Small(TorchTransformer):
    """A device with room for a few rows only, which is full after a while."""

    def _run(self, *arguments):
        if len(arguments[0]) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super()._run(*arguments)


def test_a_device_that_is_full_gets_fewer_lanes():
    model = Small.__new__(Small)
    model.room = 1 << 20
    model.__init__(model_of(), "cpu", 16)
    documents = [text[::-1] for text in TEXT]
    expected = codecs_of(model_of())
    for codec, same in zip(codecs_of(model), expected, strict=True):
        for model.room in (1 << 20, LENGTH // 2):
            ids, offsets = codec.encode_batch(ByteStrings.of(documents))
            assert ids.tolist() == same.encode_batch(ByteStrings.of(documents))[0].tolist()
            assert list(codec.decode_batch(ids, offsets)) == documents
    model.room = 0
    with pytest.raises(MemoryError, match="CUDA out of memory"):
        codec.encode_batch(ByteStrings.of([b"\xfe\xfe\xfe and what no table has"]))


@pytest.mark.parametrize("name", ["mlp_output", "sigmoids", "embedding"])
def test_a_device_that_computes_something_else_is_refused(name):
    model = TorchTransformer(model_of(), "cpu")
    model._tensors[name] += 1
    with pytest.raises(CorpusmillError, match="could not be decoded; use --device cpu"):
        model._check()


def test_products_that_are_rounded_are_found():
    """As float32 would, or anything that keeps fewer than 53 bits."""

    class Rounding(TorchTransformer):
        def _multiplied(self, rows, weights):
            return super()._multiplied(rows, weights) // 2 * 2

    with pytest.raises(CorpusmillError, match="does not compute"):
        Rounding(model_of(), "cpu")


def test_devices_that_are_not_there_are_refused(monkeypatch):
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match=r"there is no cuda.*use --device cpu"):
            on_device(model_of(), "cuda")
    else:
        monkeypatch.setenv("CUBLAS_EMULATE_DOUBLE_PRECISION", "1")
        with pytest.raises(UsageError, match="unset it"):
            on_device(model_of(), "cuda")
    with pytest.raises(UsageError, match="transformer byte models only, not ngram"):
        codec_on_device(ArithmeticCodec(ngram()), "cuda")
    model = ngram()
    assert on_device(model, "cpu") is model


def test_prefixes_in_the_table_are_not_computed():
    model = tiny_transformer(LENGTH)
    codec = EqualInfoCodec(model, 16, 16)
    documents = ByteStrings.of([TEXT[0]] * 300)
    with tally() as first:
        codec.encode_batch(documents)
    with tally() as again:
        codec.encode_batch(documents)
    assert again["bytes_read"] == first["bytes_read"] == 300 * len(TEXT[0])
    assert again["positions_computed"] < first["positions_computed"] / 10
    assert again["lane_steps"] >= again["bytes_read"]


@pytest.mark.parametrize("device", DEVICES)
def test_a_full_table_is_no_error(device, monkeypatch):
    monkeypatch.setattr("corpusmill.compress.byte_models.transformer_state._TABLE_BYTES", 7000)
    monkeypatch.setattr("corpusmill.compress.byte_models.transformer_state._VISITS", 0)
    documents = ByteStrings.of(DOCUMENTS)
    codec = EqualInfoCodec(TorchTransformer(model_of(), device), 16, 32)
    expected = EqualInfoCodec(model_of(), 16, 32).encode_batch(documents)[0]
    assert codec.encode_batch(documents)[0].tolist() == expected.tolist()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["m1-ac", "m1-equal-info"])
def test_the_golden_ids_are_decoded(name, device):
    codec = open_codec(str(HERE / CODEC_FOLDER / name / "tokenizer"))
    [file] = (HERE / CODEC_FOLDER / name).glob("part-*.parquet")
    lines = (HERE / "corpus.jsonl").read_text().splitlines()
    codec = dataclasses.replace(codec, model=TorchTransformer(codec.model, device))
    found = [text.decode() for _, texts in read_documents(str(file), codec) for text in texts]
    assert found == [json.loads(line)["text"] for line in lines]


@pytest.mark.parametrize("device", DEVICES)
def test_the_golden_model_is_the_same(device):
    model = open_model(str(HERE / "m1"))
    strings = [text[:30] for text in HARD]
    found = texts_read(TorchTransformer(model, device), strings)
    assert (found == model.frequencies(ByteStrings.of(strings))).all()
