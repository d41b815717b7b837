"""The command `freeze`."""

import random

import pytest

from corpusmill.commands import cli
from corpusmill.compress import (
    Codebook,
    FreezeOptions,
    freeze,
    ngram_model,
    save_model,
    static_model,
)
from corpusmill.compress.datasets.samples import sample_text
from corpusmill.corpus.datasets import read_manifest
from tests.pipelines.conftest import TEXTS
from tests.pipelines.samples import command, write_jsonl


@pytest.fixture(scope="module")
def frozen(job, tmp_path_factory):
    """The path of a codebook, and the arguments that made it."""
    path = tmp_path_factory.mktemp("books") / "fitted.codebook"
    inputs = ("--byte-counts", job / "counts", "--tokens", job / "tokens")
    arguments = ("freeze", *inputs, "--output", path, "--window-bits", 10)
    assert command(*arguments) == 0
    return path, arguments


def test_it_writes_the_codebook_of_the_library(job, frozen, tmp_path):
    counts, tokens = str(job / "counts"), str(job / "tokens")
    text = sample_text(tokens, read_manifest(tokens), 1 << 30)
    for model, make in (("ngram", ngram_model), ("static", static_model)):
        path = tmp_path / model
        inputs = ("--byte-counts", counts, "--tokens", tokens, "--byte-model", model)
        assert command("freeze", *inputs, "--output", path, "--window-bits", 10) == 0
        found = Codebook.open(str(path))
        made = freeze(make(counts), FreezeOptions("optimal", 10), found.made_of, text)
        assert found.content_hash == made.content_hash
        assert found.made_of == {
            "allocation": "optimal",
            "window_bits": 10,
            "parse": "greedy",
            "boundaries": "none",
            "phrase_price": None,
            "model": model,
            "counts": read_manifest(counts).content_hash,
            "tokens": read_manifest(tokens).content_hash,
        }
    assert (tmp_path / "ngram").read_bytes() == frozen[0].read_bytes()


def test_of_text_alone_it_takes_the_strings_that_are_used(job, tmp_path, capsys):
    path, tokens = tmp_path / "a.codebook", str(job / "tokens")
    assert command("freeze", "--tokens", tokens, "--window-bits", 10, "--output", path) == 0
    assert "allocation used, boundaries words, phrase price 4" in capsys.readouterr().err
    found = Codebook.open(str(path))
    text = sample_text(tokens, read_manifest(tokens), 1 << 30)
    made = freeze(None, FreezeOptions("used", 10), found.made_of, text)
    assert found.content_hash == made.content_hash
    assert found.made_of == {
        "allocation": "used",
        "window_bits": 10,
        "parse": "greedy",
        "boundaries": "words",
        "phrase_price": 4,
        "tokens": read_manifest(tokens).content_hash,
    }


def test_the_higher_the_phrase_price_the_fewer_strings_of_several_words(tmp_path):
    generator = random.Random(0)
    words = ["".join(generator.choices("abcdefgh", k=6)) for _ in range(60)]
    texts = [" ".join(generator.choices(words, k=30)) for _ in range(200)]
    write_jsonl(tmp_path / "in.jsonl", texts)
    source = ("--input", tmp_path / "in.jsonl", "--tokenizer", "bytes")
    assert command("tokenize", *source, "--output", tmp_path / "tokens") == 0
    phrases = []
    for price in (1, 1000):
        path = tmp_path / f"{price}.codebook"
        options = ("--window-bits", 9, "--phrase-price", price, "--output", path)
        assert command("freeze", "--tokens", tmp_path / "tokens", *options) == 0
        book = Codebook.open(str(path))
        assert book.made_of["phrase_price"] == price
        phrases.append(sum(each.count(b" ", 1) > 0 for each in book.strings))
    assert phrases[1] < phrases[0]


def test_other_allocations_and_sizes(job, tmp_path, capsys):
    path = tmp_path / "a.codebook"
    arguments = ("--byte-counts", job / "counts", "--allocation", "coder", "--window-bits", 17)
    assert command("freeze", *arguments, "--output", path) == 0
    printed = capsys.readouterr()
    assert "131,072" in printed.out
    assert Codebook.open(str(path)).content_hash in printed.out
    assert "allocation coder" in printed.err
    assert Codebook.open(str(path)).window_bits == 17


def test_a_second_run_finds_it_complete(frozen, capsys):
    path, arguments = frozen
    before = path.stat()
    assert command(*arguments) == 0
    assert "complete already" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_other_options_are_refused(job, frozen, capsys):
    path, arguments = frozen
    assert command(*arguments[:-1], 18) == 2
    assert "window_bits: 10 there, 18 now" in capsys.readouterr().err
    path = path.parent / "something.else"
    path.write_text("precious")
    assert command("freeze", "--byte-counts", job / "counts", "--output", path) == 2
    assert "holds something else" in capsys.readouterr().err
    assert path.read_text() == "precious"
    assert command("freeze", "--byte-counts", job / "counts", "--output", path.parent) == 2
    assert "holds something else" in capsys.readouterr().err


def test_a_slash_at_the_end_is_no_other_place(frozen, capsys):
    path, arguments = frozen
    at = arguments.index(path)
    assert command(*arguments[:at], f"{path}/", *arguments[at + 1 :]) == 0
    assert "complete already" in capsys.readouterr().out


def test_a_dry_run_does_nothing(job, tmp_path, capsys):
    path = tmp_path / "a.codebook"
    arguments = ("--byte-counts", job / "counts", "--tokens", job / "tokens", "--output", path)
    assert command("freeze", *arguments, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert f"would write the codebook {path}" in printed
    assert "65,536 strings" in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window-bits", "8"], "--window-bits: '8' is not a whole number from 9 to 24"),
        (["--window-bits", "many"], "--window-bits"),
        (["--alocation", "coder"], "did you mean --allocation?"),
        (
            ["--byte-model", "transformer"],
            "--byte-counts is for --byte-model ngram and static only",
        ),
        (["--allocation", "coder", "--tokens", "TOKENS"], "--tokens is for"),
        (["--allocation", "used", "--tokens", "TOKENS"], "used is made of --tokens alone"),
        (["--boundaries", "words"], "for the allocation used only"),
        (["--boundaries", "lines"], "--boundaries"),
        (["--phrase-price", "2"], "phrase-price 2 is for the boundaries words only, not none"),
        (["--phrase-price", "0"], "--phrase-price: '0' is not a whole number from 1 to 1000"),
        (["--parse", "flexible"], "there are none"),
        (["--parse", "best"], "--parse"),
        (["--tokens", "COUNTS"], "kind tokens is needed"),
        (["--byte-counts", "TOKENS"], "kind counts is needed"),
        (["--byte-counts", "nowhere"], "no manifest"),
        (["--output", "/proc/nowhere/a.codebook"], "cannot write to output"),
    ],
)
def test_bad_options_fail_before_any_work(job, tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    places = {"TOKENS": str(job / "tokens"), "COUNTS": str(job / "counts")}
    options = [places.get(option, option) for option in options]
    arguments = ["--byte-counts", places["COUNTS"], "--output", "a.codebook", *options]
    assert cli.main(["freeze", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_datasets_of_words_are_refused(tmp_path, capsys):
    source = write_jsonl(tmp_path / "corpus.jsonl", TEXTS)
    words = '{"model": {"type": "WordLevel", "vocab": {"the": 0, "?": 1}, "unk_token": "?"}}'
    (tmp_path / "tokenizer.json").write_text(words)
    arguments = ("--input", source, "--tokenizer", tmp_path / "tokenizer.json")
    assert command("tokenize", *arguments, "--output", tmp_path / "tokens") == 0
    counts = tmp_path / "counts"
    assert command("count", "--tokens", tmp_path / "tokens", "--output", counts) == 0
    assert command("freeze", "--byte-counts", counts, "--output", tmp_path / "a.codebook") == 2
    assert "--tokenizer bytes" in capsys.readouterr().err


def test_any_saved_byte_model_can_be_frozen(job, tmp_path, capsys):
    saved = static_model(str(job / "counts"))
    save_model(saved, str(tmp_path / "model"))
    path = tmp_path / "a.codebook"
    assert command("freeze", "--byte-model", tmp_path / "model", "--output", path) == 0
    found = Codebook.open(str(path))
    assert found.made_of["model_hash"] == saved.content_hash
    assert found.content_hash == freeze(saved, FreezeOptions("optimal"), found.made_of).content_hash
    assert command("freeze", "--byte-model", tmp_path, "--output", path) == 2
    assert "it is no byte model" in capsys.readouterr().err
    assert command("freeze", "--byte-model", "static", "--output", path) == 2
    assert "--byte-model static is made of counts: give --byte-counts" in capsys.readouterr().err
    assert command("freeze", "--output", path) == 2
    assert "--allocation used is fitted on text: give --tokens" in capsys.readouterr().err
    assert command("freeze", "--allocation", "coder", "--output", path) == 2
    assert "--byte-model ngram is made of counts: give --byte-counts" in capsys.readouterr().err


def test_a_sample_is_spread_over_the_dataset(tmp_path):
    texts = [letter * 600_000 for letter in "abcdefghij"]
    source = write_jsonl(tmp_path / "corpus.jsonl", texts)
    arguments = ("--input", source, "--tokenizer", "bytes", "--output", tmp_path / "tokens")
    assert command("tokenize", *arguments) == 0
    folder = str(tmp_path / "tokens")
    manifest = read_manifest(folder)
    whole = sample_text(folder, manifest, 1 << 30)
    assert b"".join(whole) == "".join(texts).encode()
    # Some row groups, the first and later ones.
    part = b"".join(sample_text(folder, manifest, 3 << 20))
    assert 1 << 20 <= len(part) < 4 << 20
    assert part[0] == ord("a")
    assert part[-1] > ord("e")
