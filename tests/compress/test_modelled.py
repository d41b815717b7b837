"""Codecs that run a byte model, against slow definitions of what they do."""

import dataclasses
import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.compress import (
    ArithmeticCodec,
    ByteStrings,
    CodebookCodec,
    EqualInfoCodec,
    FreezeOptions,
    PaddedCodec,
    StaticArithmeticCodec,
    SubwordCodec,
    freeze,
)
from corpusmill.compress.coders.bits import ids_to_boundary, pack, unpack
from corpusmill.compress.coders.equal_info import scaled
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.tokenizers import load_tokenizer
from tests.compress.models import Opaque
from tests.compress.samples import DATA, HARD, TEXT, frequencies, ngram, static
from tests.compress.test_codecs import MODELLED, WINDOWED, name_of
from tests.compress.windows import WindowCode


def encoded(codec, document):
    ids, _ = codec.encode_batch(ByteStrings.of([document]))
    return ids.tolist()


def decoded(codec, ids):
    return codec.decode_batch(np.array(ids, np.uint16), np.array([0, len(ids)]))[0]


def digits(values, bits):
    """The bits of numbers, one after the other."""
    return "".join(f"{value:0{bits}b}" for value in values)


@given(st.integers(1, 1 << 128), st.integers(0, 1 << 24), st.integers(9, 24))
def test_128_bits_are_multiplied_as_python_does(number, frequency, precision):
    frequency = min(frequency, 1 << precision)
    words = np.uint64(number >> 64 & (1 << 64) - 1), np.uint64(number & (1 << 64) - 1)
    high, low = scaled(*words, np.uint64(frequency), precision)
    assert int(high) << 64 | int(low) == (number * frequency >> precision) % (1 << 128)


@given(st.data(), st.integers(9, 128), st.sampled_from([8, 16]))
def test_codes_become_ids_and_back(data, code_bits, token_bits):
    if code_bits < token_bits:
        return
    codes = data.draw(st.lists(st.integers(0, (1 << code_bits) - 1), max_size=20))
    words = [[code >> 64, code & (1 << 64) - 1] for code in codes]
    ids = pack(np.array(words, np.uint64).reshape(-1, 2), code_bits, token_bits)
    stream = digits(codes, code_bits)
    assert digits(ids.tolist(), token_bits) == stream.ljust(len(ids) * token_bits, "0")
    assert len(ids) == -(-len(stream) // token_bits)
    found, left = unpack(ids, code_bits, token_bits)
    assert left < token_bits
    assert found[:-1].tolist() == words
    whole = ids_to_boundary(code_bits, token_bits)
    assert whole * token_bits % code_bits == 0


@pytest.mark.parametrize("codec", WINDOWED, ids=name_of)
@settings(max_examples=10)
@given(data=DATA)
def test_windows_are_those_of_the_definition(codec, data):
    data = data[:40]
    codes = WindowCode(codec.model, codec.window_bits, codec.reset).encode(data)
    stream = digits(codes, codec.window_bits)
    ids = encoded(codec, data)
    assert digits(ids, codec.token_bits) == stream.ljust(len(ids) * codec.token_bits, "0")


@pytest.mark.parametrize("window_bits", [9, 16, 20])
def test_windows_of_codebook_sizes_are_the_codebooks(window_bits):
    model = ngram(precision=9)
    book = CodebookCodec(freeze(model, FreezeOptions("coder", window_bits), {}))
    codec = EqualInfoCodec(model, 8, window_bits)
    for document in [*TEXT, *HARD]:
        stream = digits(encoded(book, document), window_bits)
        ids = encoded(codec, document)
        assert digits(ids, 8) == stream.ljust(8 * len(ids), "0")


def exact_ids(model, precision, token_bits, document):
    """The ids of `ac`, with integers of any size."""
    if not document:
        return []
    symbols = []
    for i, byte in enumerate(document):
        row = frequencies(model, document[:i])
        symbols.append((sum(row[:byte]), row[byte]))
    symbols.append((1 << precision, 1))
    low, width, bits = 0, 1 << 56, 56
    for below, frequency in symbols:
        while width < 1 << 48:
            low, width, bits = low << 8, width << 8, bits + 8
        step = width // ((1 << precision) + 1)
        low, width = low + step * below, step * frequency
    size = -(-(bits - 56) // token_bits) * token_bits
    while True:
        rest = bits - size
        first = -(-low >> rest) << rest if rest >= 0 else low
        if first + (1 << rest) <= low + width:
            whole = f"{first >> rest:0{size}b}"
            return [int(whole[i : i + token_bits], 2) for i in range(0, size, token_bits)]
        size += token_bits


@pytest.mark.parametrize("token_bits", [8, 16])
@pytest.mark.parametrize("precision", [9, 14, 24])
@settings(max_examples=15)
@given(data=DATA)
def test_arithmetic_codes_are_those_of_exact_arithmetic(precision, token_bits, data):
    model = ngram(precision=precision)
    ids = encoded(ArithmeticCodec(model, token_bits), data[:60])
    assert ids == exact_ids(model, precision, token_bits, data[:60])


def test_arithmetic_codes_are_as_short_as_the_model_says():
    model, document = ngram(), TEXT[0] * 40
    chance = Fraction(1, 1)
    for i, byte in enumerate(document):
        chance *= Fraction(frequencies(model, document[:i])[byte], 1 << 14)
    least = (chance.denominator // chance.numerator).bit_length()
    size = 8 * len(encoded(ArithmeticCodec(model, 8), document))
    # The stop symbol takes 14 bits, and 0.0001 of every byte; filling up less than an id.
    assert least < size < least + 14 + 0.0001 * len(document) + 2 + 8


@pytest.mark.parametrize("codec", MODELLED, ids=name_of)
@settings(max_examples=10)
@given(documents=st.lists(DATA.map(lambda data: data[:50]), max_size=6))
def test_any_byte_model_is_read_in_lanes_with_the_same_result(codec, documents):
    if codec.kind == "static-ac":
        return
    strings = ByteStrings.of(documents)
    ids, offsets = codec.encode_batch(strings)
    same = dataclasses.replace(codec, model=Opaque(codec.model))
    found, bounds = same.encode_batch(strings)
    assert (found.tolist(), bounds.tolist()) == (ids.tolist(), offsets.tolist())
    assert list(same.decode_batch(ids, offsets)) == documents
    assert same.text_ends(ids, offsets).tolist() == codec.text_ends(ids, offsets).tolist()


def test_more_documents_than_lanes():
    documents = [TEXT[i % len(TEXT)][: i % 37] for i in range(700)]
    for codec in (WINDOWED[3], ArithmeticCodec(ngram())):
        same = dataclasses.replace(codec, model=Opaque(codec.model))
        ids, offsets = same.encode_batch(ByteStrings.of(documents))
        assert ids.tolist() == codec.encode_batch(ByteStrings.of(documents))[0].tolist()
        assert list(same.decode_batch(ids, offsets)) == documents


@pytest.mark.parametrize("codec", MODELLED, ids=name_of)
def test_hard_documents_come_back(codec):
    # What is left for the next window again and again takes long.
    longest = 80 if isinstance(codec, PaddedCodec) else 5000
    documents = [document[:longest] for document in HARD]
    documents += [bytes([byte]) for byte in range(256)]
    ids, offsets = codec.encode_batch(ByteStrings.of(documents))
    assert list(codec.decode_batch(ids, offsets)) == documents


@pytest.mark.parametrize("codec", [WINDOWED[0], WINDOWED[9], ArithmeticCodec(ngram())], ids=name_of)
def test_long_documents_come_back(codec):
    # More than is coded at a time.
    document = np.random.default_rng(1).bytes(150_000) + TEXT[0] * 3000 + bytes(100_000)
    ids, offsets = codec.encode_batch(ByteStrings.of([document]))
    assert codec.decode_batch(ids, offsets)[0] == document


@pytest.mark.parametrize("codec", MODELLED, ids=name_of)
@settings(max_examples=15)
@given(data=st.data())
def test_any_ids_decode_or_are_refused(codec, data):
    numbers = st.integers(0, codec.vocab_size - 1)
    ids = data.draw(st.lists(numbers, max_size=12))
    try:
        text = decoded(codec, ids)
    except DataError:
        return
    assert decoded(codec, encoded(codec, text)) == text


def test_every_equal_info_code_is_a_string():
    codec = EqualInfoCodec(ngram())
    ids = np.arange(1 << 16).astype(np.uint16)
    strings = codec.decode_batch(ids, np.arange(len(ids) + 1))
    assert len(set(strings)) == 1 << 16
    assert codec.encode_batch(strings)[0].tolist() == ids.tolist()


@pytest.mark.parametrize("codec", MODELLED, ids=name_of)
def test_documents_that_lack_ids_are_refused(codec):
    ids = encoded(codec, TEXT[0] * 3)
    if not codec.window_ids:
        for less in range(1, len(ids)):
            with pytest.raises(DataError, match="end before the document does"):
                decoded(codec, ids[:less])
        with pytest.raises(DataError, match="more ids after the end"):
            decoded(codec, [*ids, 0])
    with pytest.raises(DataError, match=r"outside the vocabulary"):
        decoded(codec, [codec.vocab_size & 0xFFFF or 256]) if codec.token_bits == 8 else (
            codec.decode_batch(np.array([1 << 16]), np.array([0, 1]))
        )


def test_ids_that_end_within_a_window_are_refused():
    codec = EqualInfoCodec(ngram(), 16, 32)
    ids = encoded(codec, TEXT[0])
    with pytest.raises(DataError, match="its last window has 16 bits of 32"):
        decoded(codec, ids[:-1])
    crossing = EqualInfoCodec(ngram(), 16, 24)
    with pytest.raises(DataError, match="more than the end of the last window"):
        decoded(crossing, [1, 2 << 8 | 1])


def test_what_does_not_fit_is_refused():
    for make, message in [
        (lambda: EqualInfoCodec(ngram(), 16, 12), "use windows of at least 16 bits or ids of 8"),
        (lambda: EqualInfoCodec(ngram(), 7, 16), "ids of 7 bits"),
        (lambda: EqualInfoCodec(static([bytes(999)]), 8, 10), "no code for some bytes"),
        (lambda: EqualInfoCodec(ngram(), 8, 13, 2), "unless the model starts afresh"),
        (lambda: EqualInfoCodec(ngram(), 16, 16, 0), "after 0 windows"),
        (lambda: PaddedCodec(ngram(), 16, 128), "accepted are 14"),
        (lambda: PaddedCodec(ngram(), 16, 16, "ones"), "none of zeros, delay"),
        (lambda: StaticArithmeticCodec(ngram()), "needs a static byte model"),
    ]:
        with pytest.raises(UsageError, match=message):
            make()


def lost_windows(codec, documents):
    """The share of windows of 16 bits and ids that decode to more than was encoded."""
    ids, offsets = codec.encode_batch(ByteStrings.of(documents))
    windows = list(codec.decode_batch(ids, np.arange(len(ids) + 1)))
    lost = 0
    for document, (first, last) in zip(documents, itertools.pairwise(offsets), strict=True):
        at = 0
        for window in windows[first:last]:
            own = document[at : at + len(window)]
            # The window ends where they part: a byte more that is the same would have fit.
            pairs = enumerate(zip(own, window, strict=False))
            at += next((i for i, (one, other) in pairs if one != other), len(own))
            lost += own != window
        assert at == len(document)
    return lost / len(ids)


def test_the_papers_windows_lose_text(articles):
    fit_on, held_out = articles
    model = ngram(fit_on[:300], order=4)
    documents = held_out[:40]
    assert 0.05 < lost_windows(PaddedCodec(model, 16, 16, "zeros"), documents) < 0.4
    assert lost_windows(PaddedCodec(model, 16, 16, "delay"), documents) == 0
    sizes = [
        len(codec.encode_batch(ByteStrings.of(documents))[0])
        for codec in (
            EqualInfoCodec(model),
            PaddedCodec(model, 16, 16, "zeros"),
            PaddedCodec(model, 16, 16, "delay"),
        )
    ]
    assert sizes == sorted(sizes)
    assert sizes[1] > 1.05 * sizes[0]


def test_real_text_comes_back(articles):
    fit_on, held_out = articles
    model = ngram(fit_on[:300], order=4)
    for codec in (ArithmeticCodec(model), EqualInfoCodec(model, 16, 32, 2)):
        ids, offsets = codec.encode_batch(ByteStrings.of(held_out))
        assert list(codec.decode_batch(ids, offsets)) == held_out


@pytest.fixture(scope="module")
def tokenizers(shared_data):
    folder = shared_data / "tokenizers"
    spec = f"{folder / 'gpt2_vocab.json'},{folder / 'gpt2_merges.txt'}"
    return load_tokenizer(spec), load_tokenizer(str(folder / "mistral_v1.model"))


def test_subword_ids_are_the_tokenizers(tokenizers):
    documents = [b"", b"the cat", "猫 🐈 naïve".encode(), b"<|endoftext|>", b"  two  spaces \n"]
    for tokenizer in tokenizers:
        codec = SubwordCodec(tokenizer)
        ids, offsets = codec.encode_batch(ByteStrings.of(documents))
        assert ids[offsets[1] : offsets[2]].tolist() == tokenizer.encode("the cat").tolist()
        assert list(codec.decode_batch(ids, offsets)) == documents
        ends = codec.text_ends(ids, offsets)
        assert [ends[end - 1] for end in offsets[2:]] == [len(each) for each in documents[1:]]


def test_subword_codecs_refuse_what_would_not_come_back(tokenizers, tmp_path):
    with pytest.raises(DataError, match="takes UTF-8 only"):
        SubwordCodec(tokenizers[0]).encode_batch(ByteStrings.of([b"\xff"]))
    lower = tmp_path / "tokenizer.json"
    lower.write_text(
        '{"version": "1.0", "normalizer": {"type": "Lowercase"}, "model":'
        ' {"type": "WordLevel", "vocab": {"the": 0, "?": 1}, "unk_token": "?"}}'
    )
    codec = SubwordCodec(load_tokenizer(str(lower)))
    assert decoded(codec, encoded(codec, b"the")) == b"the"
    with pytest.raises(DataError, match="begins with 'The'"):
        encoded(codec, b"The")
