"""Byte models of small texts, and byte strings that are hard on coders."""

import gzip
import itertools
import json

import numpy as np
from hypothesis import strategies as st

from corpusmill.compress.byte_models import NgramModel, StaticModel, TransformerModel
from corpusmill.compress.byte_models.transformer_weights import LayerWeights, NetworkWeights
from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.ngram_agg.counts_runs import count_ngrams
from corpusmill.ngram_agg.full_tables import build_table, forward_contexts

TEXT = [
    b"the cat sat on the mat and the dog sat on the log",
    b"a cat and a dog",
    "thé à la crème, 猫".encode(),
    b"",
    bytes(4),
]
HARD = [
    b"",
    b"\x00",
    bytes(5000),
    b"\xff" * 300,
    bytes(range(256)),
    b"the cat",
    "猫は好きです。".encode(),
    b"\xc3\x28\xe2\x82 not UTF-8 \xf0\x9f",
    b"def f(x):\n\treturn {x: [x]}\n",
    np.random.default_rng(0).bytes(3000),
]
# Strings of the models' own alphabet, and of any bytes.
DATA = st.one_of(
    st.binary(max_size=60),
    st.text("the catsdogmn", max_size=60).map(str.encode),
    st.sampled_from(HARD),
)


def tokens_of(documents):
    """The tokens that `tokenize --tokenizer bytes` makes."""
    return np.concatenate(
        [np.append(np.frombuffer(each, np.uint8), np.uint16(256)) for each in documents]
    )


def static(documents=TEXT, precision=14):
    counts = np.bincount(np.frombuffer(b"".join(documents), np.uint8), minlength=256)
    return StaticModel(counts.astype(np.uint64), precision)


def ngram(documents=TEXT, order=3, precision=14, min_count=2):
    run = count_ngrams(
        tokens_of(documents), max_order=order, vocabulary_size=257, end_of_document=256
    )
    contexts = forward_contexts(run.packing, [run], range(order + 1), min_count)
    return NgramModel(build_table(run.packing, contexts), precision)


def tiny_transformer(length, *, scale=1.0, precision=16, seed=0):
    """Two layers of random weights, those of layers `scale` times as large."""
    width, heads, mlp_width = 8, 2, 12
    raw = np.random.PCG64(seed)

    def weights(*shape):
        values = raw.random_raw(int(np.prod(shape))) >> np.uint64(40)
        return (values.astype(np.float64) / 2**23 - 1).reshape(shape)

    def layer():
        return LayerWeights(
            attention_norm=1 + weights(width),
            mlp_norm=1 + weights(width),
            query=scale * weights(width, width),
            key=scale * weights(width, width),
            value=scale * weights(width, width),
            attention_output=scale * weights(width, width),
            gate=scale * weights(mlp_width, width),
            inner=scale * weights(mlp_width, width),
            mlp_output=scale * weights(width, mlp_width),
        )

    embedding, norm = weights(257, width), 1 + weights(width)
    network = NetworkWeights(embedding, [layer(), layer()], norm)
    return TransformerModel.quantized(network, heads, length, precision)


def frequencies(model, prefix):
    return model.frequencies(ByteStrings.of([prefix]))[0].tolist()


def wiki(shared_data, documents, skip=0):
    """Articles of Simple English Wikipedia."""
    path = shared_data / "corpora" / "simplewiki.jsonl.gz"
    with gzip.open(path, "rt") as file:
        lines = itertools.islice(file, skip, skip + documents)
        return [json.loads(line)["text"].encode() for line in lines]
