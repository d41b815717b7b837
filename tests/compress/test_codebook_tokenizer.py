import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.compress import CodebookTokenizer
from corpusmill.compress.codecs import BytesCodec
from corpusmill.corpus import storage
from corpusmill.corpus.errors import DataError, UsageError
from tests.codebooks import HARD_TEXTS, small_book

PLAIN = CodebookTokenizer(small_book())
ENDING = CodebookTokenizer(small_book(), "flexible", end_of_document=True)


@pytest.mark.parametrize("tokenizer", [PLAIN, ENDING])
@given(texts=st.lists(st.text(max_size=50) | st.sampled_from(HARD_TEXTS), max_size=5))
def test_texts_come_back(tokenizer, texts):
    found = tokenizer(texts)
    assert found["input_ids"] == [tokenizer.encode(text) for text in texts]
    assert [len(mask) for mask in found["attention_mask"]] == list(map(len, found["input_ids"]))
    assert tokenizer.batch_decode(found["input_ids"], skip_special_tokens=True) == texts
    assert all(0 <= i < len(tokenizer) for ids in found["input_ids"] for i in ids)


def test_one_text_has_one_list_and_bytes_are_text_too():
    found = PLAIN("the cat")
    assert found == {
        "input_ids": small_book().encode(b"the cat").tolist(),
        "attention_mask": [1] * len(found["input_ids"]),
    }
    assert PLAIN(b"the cat") == found
    assert PLAIN.decode(PLAIN.encode(b"\xff")) == "\N{REPLACEMENT CHARACTER}"


def test_the_end_of_documents_stands_behind_the_codes():
    assert (PLAIN.vocab_size, PLAIN.eos_token_id) == (4096, None)
    assert (ENDING.vocab_size, ENDING.eos_token_id, len(ENDING)) == (4097, 4096, 4097)
    ids = ENDING.encode("the cat") + ENDING.encode("a dog")
    assert ids.count(4096) == 2
    assert ENDING.decode(ids) == "the cat<end>a dog<end>"
    assert ENDING.decode(ids, skip_special_tokens=True) == "the cata dog"
    assert ENDING.decode(4096) == "<end>"
    with pytest.raises(DataError, match="id 4096 at place 0 is outside"):
        PLAIN.decode([4096])


def test_saved_and_loaded(tmp_path):
    for number, tokenizer in enumerate((PLAIN, ENDING)):
        folder = str(tmp_path / str(number))
        tokenizer.save_pretrained(folder)
        found = CodebookTokenizer.from_pretrained(folder)
        assert (found.parse, found.eos_token_id) == (tokenizer.parse, tokenizer.eos_token_id)
        assert found.encode("the cat") == tokenizer.encode("the cat")
    other = CodebookTokenizer.from_pretrained(str(tmp_path / "0"), end_of_document=True)
    assert other.vocab_size == 4097


def test_a_folder_of_another_codec_is_refused(tmp_path):
    for name, write in BytesCodec().files.items():
        write(storage.join(str(tmp_path), name))
    with pytest.raises(UsageError, match="has the codec bytes; a codebook is needed"):
        CodebookTokenizer.from_pretrained(str(tmp_path))


def test_a_hugging_face_dataset_is_mapped():
    dataset = datasets.Dataset.from_dict({"text": HARD_TEXTS})
    mapped = dataset.map(lambda rows: ENDING(rows["text"]), batched=True, batch_size=3)
    assert mapped["input_ids"][:] == ENDING(HARD_TEXTS)["input_ids"]
