import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.compress.byte_models import (
    WindowStartsModel,
    ngram_model,
    open_model,
    save_model,
    static_model,
)
from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.corpus.errors import DataError, DatasetError, UsageError
from tests.compress.samples import DATA, HARD, TEXT, frequencies, ngram, static

UNIT = 1 << 32


def counts_after(documents, context):
    """How often each byte follows a context anywhere."""
    counts = {}
    for text in documents:
        for i in range(len(text) - len(context)):
            if text[i : i + len(context)] == context:
                byte = text[i + len(context)]
                counts[byte] = counts.get(byte, 0) + 1
    return counts


def seen(documents, context):
    """How often a context occurs, at the end of a document too."""
    return sum(
        text[i : i + len(context)] == context
        for text in documents
        for i in range(len(text) - len(context) + 1)
    )


def blended(probabilities, counts):
    if not counts:
        return probabilities
    divisor = sum(counts.values()) + len(counts)
    kept = len(counts) * UNIT // divisor
    return [
        (p * kept >> 32) + counts.get(byte, 0) * UNIT // divisor
        for byte, p in enumerate(probabilities)
    ]


def quantized(probabilities, precision):
    room = (1 << precision) - 256
    result = [1 + (p * room >> 32) for p in probabilities]
    result[probabilities.index(max(probabilities))] += (1 << precision) - sum(result)
    return result


def oracle(documents, prefix, order, precision, min_count):
    probabilities = [1 << 24] * 256
    for length in range(min(order, len(prefix)) + 1):
        context = prefix[len(prefix) - length :]
        if length and seen(documents, context) < min_count:
            break
        probabilities = blended(probabilities, counts_after(documents, context))
    return quantized(probabilities, precision)


@given(DATA, st.integers(0, 5), st.sampled_from([9, 14, 24]), st.integers(1, 3))
def test_ngram_frequencies_are_those_of_the_oracle(prefix, order, precision, min_count):
    prefix = prefix[-20:]
    model = ngram(order=order, precision=precision, min_count=min_count)
    assert frequencies(model, prefix) == oracle(TEXT, prefix, order, precision, min_count)


def test_static_frequencies_are_those_of_no_context():
    expected = oracle(TEXT, b"", 0, 14, 1)
    assert frequencies(static(), b"anything") == expected
    assert frequencies(ngram(order=0), b"anything") == expected


@pytest.mark.parametrize("precision", [9, 14, 24])
def test_frequencies_are_positive_and_add_up_whatever_the_batch(precision):
    for model in (static(precision=precision), ngram(precision=precision)):
        together = model.frequencies(ByteStrings.of(HARD))
        assert together.dtype == np.uint32
        assert together.min() >= 1
        assert (together.sum(axis=1) == 1 << precision).all()
        assert together.tolist() == [frequencies(model, prefix) for prefix in HARD]


def test_only_the_last_bytes_matter():
    model = ngram(order=3)
    assert model.context_bytes == 3
    assert frequencies(model, b"\xffthe") == frequencies(model, b"the")


def test_counts_beyond_32_bits():
    model = static()
    huge = type(model)(model.counts << np.uint64(40))
    difference = np.abs(np.subtract(frequencies(huge, b""), frequencies(model, b"")))
    # The unseen bytes, which had a share of a small corpus, have none of a huge one.
    assert difference.max() < 1 << 14
    assert sum(frequencies(huge, b"")) == 1 << 14


def test_no_counts_at_all_are_uniform():
    empty = type(static())(np.zeros(256, np.uint64))
    assert frequencies(empty, b"") == [64] * 256


def test_precision_outside_its_range_is_refused():
    for precision in (8, 25):
        with pytest.raises(ValueError, match="9 to 24"):
            static(precision=precision)


def test_window_starts_are_counted():
    text = ByteStrings.of([b"abcabd", b"", b"abX"])
    starts, ends = np.array([3, 0, 6, 8]), np.array([6, 6, 9, 9])
    model = WindowStartsModel.fit(static(), text.data, starts, ends, min_count=2)
    after = {b"": {97: 3, 88: 1}, b"a": {98: 3}, b"ab": {99: 1, 100: 1, 88: 1}, b"abc": {97: 1}}
    base = [f << 18 for f in frequencies(static(), b"")]
    for prefix, counts in after.items():
        kept = counts if sum(counts.values()) >= 2 else {}
        assert frequencies(model, prefix) == quantized(blended(base, kept), 24)
    assert frequencies(model, b"bc") == quantized(base, 24)
    other = WindowStartsModel.fit(static(), text.data, starts[:3], ends[:3], min_count=2)
    assert other.content_hash != model.content_hash


def test_windows_that_end_with_their_document_have_no_next_byte():
    text = ByteStrings.of([b"ab"] * 3)
    starts, ends = text.offsets[:-1].copy(), text.offsets[1:].copy()
    model = WindowStartsModel.fit(static(), text.data, starts, ends, min_count=2)
    assert frequencies(model, b"ab") == quantized([f << 18 for f in frequencies(static(), b"")], 24)


def test_models_of_datasets(byte_job):
    counts, documents = byte_job
    model, other = ngram_model(str(counts)), static_model(str(counts))
    for prefix in (b"", b"t", b"the", b"on the mat"):
        assert frequencies(model, prefix) == oracle(documents, prefix, 3, 14, 2)
    assert frequencies(other, b"") == oracle(documents, b"", 0, 14, 2)
    assert len({model.content_hash, other.content_hash}) == 2


def test_models_of_other_tokens_are_refused(job_of_words):
    for make in (ngram_model, static_model):
        with pytest.raises(DatasetError, match="--tokenizer bytes"):
            make(str(job_of_words))


@pytest.mark.parametrize("make", [static, ngram])
def test_saved_models_are_the_same(make, tmp_path):
    model = make()
    save_model(model, str(tmp_path))
    found = open_model(str(tmp_path))
    assert found.content_hash == model.content_hash
    prefixes = ByteStrings.of(HARD)
    assert (found.frequencies(prefixes) == model.frequencies(prefixes)).all()
    assert make(TEXT[:2]).content_hash != model.content_hash
    assert make(precision=12).content_hash != model.content_hash


@pytest.mark.parametrize("make", [static, ngram])
def test_damaged_models_are_refused(make, tmp_path):
    save_model(make(), str(tmp_path))
    column = sorted(tmp_path.glob("*.npy"))[0]
    data = bytearray(column.read_bytes())
    data[-1] ^= 1
    column.write_bytes(data)
    with pytest.raises(DataError, match=str(tmp_path)):
        open_model(str(tmp_path))
    column.unlink()
    with pytest.raises(DataError, match=str(tmp_path)):
        open_model(str(tmp_path))
    with pytest.raises(UsageError, match="no byte model"):
        open_model(str(tmp_path / "nothing"))
