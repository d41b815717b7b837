"""What `corpusmill export` writes, opened by the real transformers."""

import json
import math

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.commands import cli
from corpusmill.compress import Codebook
from corpusmill.trainer.opening import open_model
from corpusmill.trainer.texts import open_texts
from tests.codebooks import HARD_TEXTS, small_book
from tests.integration.conftest import SENTENCES
from tests.integration.samples import run, write_jsonl

KINDS = ("bytes", "new-end", "own-end", "sentencepiece", "codebook", "raw", "subword")
TEXTS = ["", "a", " a  b\n\nc", "<|endoftext|><end><start>", *SENTENCES]


@pytest.fixture(scope="module")
def exported(trained_model, tmp_path_factory):
    """Gives the folders of a run and of its export."""
    folder = tmp_path_factory.mktemp("exported")

    def export(kind):
        output = folder / kind
        if not output.exists():
            run("export", trained_model(kind), "--output", output)
        return str(trained_model(kind)), str(output)

    return export


def test_logits_are_the_same(exported):
    source, output = exported("new-end")
    ours = open_model(source).model
    theirs = transformers.AutoModelForCausalLM.from_pretrained(output)
    assert type(theirs) is transformers.LlamaForCausalLM
    size = ours.config.vocabulary_size
    tokens = torch.randint(0, size, (3, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = (ours(tokens) @ ours.output_weight.T)[..., :size]
        found = theirs(tokens).logits
    assert found.shape == expected.shape
    # Sums in another order: some units in the last place of the largest logits.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_gives_the_ids_that_the_model_reads(exported, kind):
    source, output = exported(kind)
    texts = open_texts(source, open_model(source).config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    for text in TEXTS:
        ids = texts.encode(text)
        assert tokenizer(text)["input_ids"] == [texts.start, *ids]
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        assert tokenizer.decode([texts.start, *ids], skip_special_tokens=True) == text
    assert tokenizer.bos_token_id == texts.start
    assert tokenizer.eos_token_id == texts.end


@pytest.mark.parametrize("kind", ["new-end", "codebook"])
def test_the_pipeline_says_what_generate_says(exported, kind, capsys):
    source, output = exported(kind)
    pipeline = transformers.pipeline("text-generation", model=output)
    prompt = "The river"
    [said] = pipeline(prompt, max_new_tokens=5, do_sample=False)
    capsys.readouterr()
    run("generate", "--run", source, "--prompt", prompt, "--max-tokens", 5, "--temperature", 0)
    assert said["generated_text"] == capsys.readouterr().out.removesuffix("\n")


def test_what_has_no_tokenizer_says_so(exported, trained_model, tmp_path, capsys):
    for kind, reason in {
        "flexible": "without a tokenizer: the flexible parse looks ahead",
        "gzip": "without a tokenizer: an id of the codec gzip stands for other bytes",
    }.items():
        run("export", trained_model(kind), "--output", tmp_path / kind)
        assert reason in capsys.readouterr().out
        assert (tmp_path / kind / "config.json").exists()
        assert not (tmp_path / kind / "tokenizer.json").exists()


@pytest.fixture(scope="module")
def word_piece(tmp_path_factory):
    """A codebook, and its export as a tokenizer."""
    folder = tmp_path_factory.mktemp("codebook")
    small_book().write(str(folder / "small.codebook"))
    run("export", folder / "small.codebook", "--output", folder / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder / "out"))
    return Codebook.open(str(folder / "small.codebook")), tokenizer


def test_a_codebook_is_a_tokenizer_with_the_same_ids(word_piece):
    book, tokenizer = word_piece
    assert len(tokenizer) == book.vocab_size
    for text in HARD_TEXTS:
        short = text[:1000]
        ids = tokenizer(short)["input_ids"]
        assert ids == book.encode(short).tolist()
        assert tokenizer.decode(ids) == short


@given(text=st.text(max_size=60))
def test_so_it_is_for_any_text(word_piece, text):
    book, tokenizer = word_piece
    ids = tokenizer(text)["input_ids"]
    assert ids == book.encode(text).tolist()
    assert tokenizer.decode(ids) == text


def refusal(capsys, *arguments):
    capsys.readouterr()
    assert cli.main(["export", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_what_is_refused(trained_model, tmp_path, capsys):
    output = ["--output", tmp_path / "out"]
    assert "is no training run" in refusal(capsys, tmp_path, *output)
    book = small_book()
    flexible = Codebook(book.window_bits, {"parse": "flexible"}, book.columns)
    flexible.write(str(tmp_path / "flexible.codebook"))
    message = refusal(capsys, tmp_path / "flexible.codebook", *output)
    assert "can't become a tokenizer.json: the flexible parse looks ahead" in message
    assert not (tmp_path / "out").exists()
    words = Codebook(book.window_bits, {"boundaries": "words"}, book.columns)
    words.write(str(tmp_path / "words.codebook"))
    message = refusal(capsys, tmp_path / "words.codebook", *output)
    assert "its strings stop at words" in message
    message = refusal(capsys, trained_model("bytes"), "--output", tmp_path)
    assert "holds something" in message


def test_the_harness_example_finds_the_bits_of_the_documents(exported, tmp_path):
    from examples import harness

    source, output = exported("codebook")
    trained = open_model(source)
    texts = open_texts(source, trained.config)
    # What is longer than the model's sequences the harness cuts.
    documents = [text[:20] for text in SENTENCES]
    bits = 0.0
    for text in documents:
        ids = torch.tensor([texts.start, *texts.encode(text)])
        with torch.no_grad():
            logits = (trained.model(ids[None, :-1]) @ trained.model.output_weight.T)[0]
        logs = logits[:, : trained.model.config.vocabulary_size].double().log_softmax(-1)
        bits -= float(logs.gather(1, ids[1:, None]).sum()) / math.log(2)
    path = write_jsonl(tmp_path / "documents.jsonl", documents)
    found = harness.bits_per_byte(output, str(path))
    assert found == pytest.approx(bits / len("".join(documents).encode()), rel=1e-5)


def test_parameters_are_those_of_their_names(exported):
    """Nothing of the folder is left unread, and nothing is made up."""
    _, output = exported("new-end")
    _, report = transformers.AutoModelForCausalLM.from_pretrained(output, output_loading_info=True)
    assert not any(report.values())
    with open(f"{output}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    assert config["rms_norm_eps"] == float(np.finfo(np.float32).eps)
