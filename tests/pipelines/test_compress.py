"""compress and decompress on the command line: streams, bad usage, bad input, damage."""

import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmill.compress import save_model
from corpusmill.compress.codecs import CODEBOOK_FILE
from corpusmill.corpus import storage
from corpusmill.corpus.datasets import TOKENIZER_FOLDER, FileRecord, read_manifest
from corpusmill.corpus.tokenizers.tokenizer_json import _BYTE_OF
from corpusmill.corpus.tokens import tokens_schema
from tests.codebooks import HARD_TEXTS, small_book
from tests.compress.samples import ngram
from tests.pipelines.samples import command, tokenize, write_jsonl
from tests.pipelines.test_bad_input import dead_letters, error_of

# A text that takes the windows of `--padding delay` long is not among them.
SHORT_TEXTS = [text[:400] for text in HARD_TEXTS]
BYTE_LEVEL = json.dumps(
    {
        "version": "1.0",
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False},
        "model": {
            "type": "BPE",
            "vocab": {letter: number for number, letter in enumerate(sorted(_BYTE_OF))},
            "merges": [],
        },
    }
)

PART = "part-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def codebook(tmp_path_factory):
    path = tmp_path_factory.mktemp("codebook") / "small.codebook"
    small_book().write(str(path))
    return path


@pytest.fixture(scope="module")
def compressed(codebook, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compressed")
    source = write_jsonl(folder / "in.jsonl", HARD_TEXTS)
    options = ("--codebook", codebook, "--output", folder / "out")
    assert command("compress", "--input", source, *options) == 0
    return folder / "out"


def texts_of(folder):
    lines = (folder / PART.replace("parquet", "jsonl")).read_text("utf-8").split("\n")
    return [json.loads(line)["text"] for line in lines[:-1]]


def test_a_dataset_has_its_codebook_and_says_so(compressed, codebook):
    manifest = read_manifest(str(compressed), "compressed")
    assert manifest.tokenizer == {
        "kind": "codebook",
        "content_hash": small_book().content_hash,
        "vocabulary_size": 4096,
        "end_of_document": None,
        "window_ids": 1,
        "parse": "greedy",
        "token_bits": None,
    }
    copy = compressed / TOKENIZER_FOLDER / CODEBOOK_FILE
    assert copy.read_bytes() == codebook.read_bytes()
    rows = pq.read_table(compressed / PART).to_pylist()
    found = [small_book().decode(row["tokens"]).decode() for row in rows]
    assert found == HARD_TEXTS
    assert [row["byte_length"] for row in rows] == [len(text.encode()) for text in HARD_TEXTS]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A counts dataset of bytes, and a saved byte model."""
    folder = tmp_path_factory.mktemp("models")
    source = write_jsonl(folder / "in.jsonl", ["the cat sat on the mat"] * 20)
    assert tokenize(source, folder / "tokens") == 0
    counts = ("--tokens", folder / "tokens", "--output", folder / "counts", "--max-order", 2)
    assert command("count", *counts) == 0
    save_model(ngram(), str(folder / "model"))
    (folder / "tokenizer.json").write_text(BYTE_LEVEL)
    return folder


@pytest.mark.parametrize(
    ("options", "tokenizer"),
    [
        ("bytes", {"window_ids": 1}),
        ("gzip", {"window_ids": None}),
        (
            "equal-info --byte-counts counts",
            {"window_bits": 16, "token_bits": 16, "reset": 1, "window_ids": 1, "model": "ngram"},
        ),
        ("equal-info --byte-model model --window-bits 24", {"window_ids": 3}),
        (
            "equal-info --byte-counts counts --window-bits 32 --reset 2",
            {"reset": 2, "window_ids": 2},
        ),
        ("equal-info --byte-counts counts --reset never --token-bits 8", {"reset": None}),
        ("equal-info --byte-counts counts --padding delay", {"padding": "delay"}),
        ("ac --byte-counts counts --token-bits 8", {"vocabulary_size": 256, "window_ids": None}),
        ("static-ac --byte-counts counts", {"model": "static"}),
        ("subword --tokenizer tokenizer.json", {"tokenizer": "huggingface"}),
    ],
)
def test_every_codec_is_used_in_the_same_way(
    options, tokenizer, models, tmp_path, monkeypatch, capsys
):
    source = write_jsonl(tmp_path / "in.jsonl", SHORT_TEXTS)
    small, back = tmp_path / "small", tmp_path / "back"
    monkeypatch.chdir(models)
    arguments = ("compress", "--input", source, "--codec", *options.split(), "--output", small)
    assert command(*arguments) == 0
    assert tokenizer.items() <= read_manifest(str(small), "compressed").tokenizer.items()
    assert command(*arguments) == 0
    assert "is complete" in capsys.readouterr().out
    assert command("verify", small) == 0
    assert command("decompress", "--compressed", small, "--output", back) == 0
    assert texts_of(back) == SHORT_TEXTS


def test_what_is_lost_is_said(models, tmp_path, monkeypatch, capsys):
    texts = ["the cat and the mat on the log"] * 5 + ["", "thé"]
    source = write_jsonl(tmp_path / "in.jsonl", texts)
    small, back = tmp_path / "small", tmp_path / "back"
    monkeypatch.chdir(models)
    options = ("--codec", "equal-info", "--byte-counts", "counts", "--padding", "zeros")
    assert command("compress", "--input", source, *options, "--output", small) == 0
    captured = capsys.readouterr()
    assert "this codec loses text" in captured.out + captured.err
    assert read_manifest(str(small)).tokenizer["lossy"] is True
    assert command("verify", small) == 0
    assert re.search(r"\d of 7 documents \(\d+\.\d%\) do not come back", capsys.readouterr().out)
    assert command("decompress", "--compressed", small, "--output", back) == 0
    found = texts_of(back)
    assert len(found) == 7
    assert found != texts


def test_another_model_in_the_dataset_is_refused(models, tmp_path, capsys):
    source = write_jsonl(tmp_path / "in.jsonl", ["the cat"])
    small = tmp_path / "small"
    options = ("--codec", "ac", "--byte-counts", models / "counts")
    assert command("compress", "--input", source, *options, "--output", small) == 0
    copy = tmp_path / "copy"
    shutil.copytree(small, copy)
    for file in (models / "model").iterdir():
        shutil.copy(file, copy / TOKENIZER_FOLDER)
    assert command("decompress", "--compressed", copy, "--output", tmp_path / "back") == 1
    assert "but the dataset was made with" in error_of(capsys)


def test_verify_shows_the_first_document(compressed, tmp_path, capsys):
    assert command("verify", compressed) == 0
    assert "in.jsonl:0: ''" in capsys.readouterr().out
    assert command("decompress", "--compressed", compressed, "--output", tmp_path / "back") == 0
    assert texts_of(tmp_path / "back") == HARD_TEXTS
    assert command("verify", tmp_path / "back") == 0
    assert "in.jsonl:0: ''" in capsys.readouterr().out


@pytest.mark.parametrize("victim", [PART, f"{TOKENIZER_FOLDER}/{CODEBOOK_FILE}"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_named(victim, damage, compressed, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(compressed, copy)
    data = bytearray((copy / victim).read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "remove":
        (copy / victim).unlink()
    else:
        (copy / victim).write_bytes(data if damage == "flip" else data[:-1])
    assert command("verify", copy) == 1
    assert f"BAD  {victim}" in capsys.readouterr().out
    assert command("decompress", "--compressed", copy, "--output", tmp_path / "back") == 1
    assert str(copy / victim) in error_of(capsys)
    assert not (tmp_path / "back" / "manifest.json").exists()


def test_another_codebook_is_refused(compressed, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(compressed, copy)
    small_book(13).write(str(copy / TOKENIZER_FOLDER / CODEBOOK_FILE))
    assert command("decompress", "--compressed", copy, "--output", tmp_path / "back") == 1
    assert "but the dataset was made with" in error_of(capsys)
    assert not (tmp_path / "back").exists()


def test_a_document_that_is_not_text_is_named(compressed, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(compressed, copy)
    ids = small_book().encode(b"\xff")
    row = {"doc_id": "odd", "tokens": ids.tolist(), "byte_length": 1}
    pq.write_table(pa.Table.from_pylist([row], tokens_schema(np.uint16)), copy / PART)
    manifest = read_manifest(str(copy))
    size, digest = storage.size(str(copy / PART)), storage.sha256(str(copy / PART))
    changed = FileRecord(PART, 1, len(ids), size, digest)
    files = tuple(changed if file.name == PART else file for file in manifest.files)
    properties = manifest.properties | {"tokens": len(ids)}
    fitting = dataclasses.replace(manifest, files=files, properties=properties)
    (copy / "manifest.json").write_text(fitting.to_json())
    assert command("verify", copy) == 0
    assert command("decompress", "--compressed", copy, "--output", tmp_path / "back") == 1
    assert "document 'odd' is not UTF-8: invalid start byte (byte 0)" in error_of(capsys)


def test_text_is_cut_as_the_codebook_was_fitted_for(tmp_path, capsys):
    made_of = {"parse": "flexible"}
    dataclasses.replace(small_book(), made_of=made_of).write(str(tmp_path / "codebook"))
    source = write_jsonl(tmp_path / "in.jsonl", HARD_TEXTS)
    for parse, options in (("flexible", []), ("greedy", ["--parse", "greedy"])):
        output = tmp_path / parse
        arguments = ("--input", source, "--codebook", tmp_path / "codebook", "--output", output)
        assert command("compress", *arguments, *options) == 0
        assert read_manifest(str(output)).tokenizer["parse"] == parse
        rows = pq.read_table(output / PART).to_pylist()
        for text, row in zip(HARD_TEXTS, rows, strict=True):
            assert row["tokens"] == small_book().encode(text.encode(), parse).tolist()


def test_bad_records_are_treated_as_by_tokenize(codebook, tmp_path, capsys):
    source, output = tmp_path / "in.jsonl", tmp_path / "out"
    source.write_bytes(b'{"text": "good"}\n' * 4 + b"{broken\n")
    arguments = ("compress", "--input", source, "--codebook", codebook, "--output", output)
    assert command(*arguments) == 1
    assert "1 of 5 records are bad, more than --max-bad-records 0.1" in error_of(capsys)
    (letter,) = dead_letters(output)
    assert letter["offset"] == 4 * 17
    assert command(*arguments, "--max-bad-records", "20%") == 0
    assert read_manifest(str(output)).counters["documents"] == 4


def test_bad_usage_is_named_before_any_work(compressed, codebook, models, tmp_path, capsys):
    out = tmp_path / "out"
    source = write_jsonl(tmp_path / "in.jsonl", ["a"])
    (tmp_path / "text").write_text("no codebook")
    windows = ("--codec", "equal-info", "--byte-model", models / "model")
    read = ("compress", "--input", source, "--output", out)
    back = ("decompress", "--compressed", compressed, "--output", out)
    for arguments, message in [
        (read, "--codec codebook needs a codebook"),
        ((*read, "--codebook", tmp_path / "none"), "there is no codebook"),
        ((*read, "--codebook", codebook, "--codec", "gzip"), "for --codec codebook only"),
        ((*read, "--codebook", codebook, "--parse", "best"), "invalid choice: 'best'"),
        (
            ("compress", "--input", source, "--codebook", codebook, "--stdin"),
            "--stdin goes with --codebook and --parse only, not --input",
        ),
        (("compress", "--codec", "gzip", "--stdin"), "--parse only, not --codec"),
        (("compress", "--codebook", codebook, "--stdin", "--dry-run"), "only, not --dry-run"),
        (("compress", "--codebook", codebook, "--stdin", "--device", "cuda"), "not --device"),
        (
            ("compress", "--codebook", codebook, "--stdin", "--runner", "PrismRunner"),
            "not --runner",
        ),
        (("compress", "--stdin"), "--codec codebook needs a codebook"),
        ((*read, "--codec", "gzip", "--window-bits", "32"), "equal-info only, not gzip"),
        ((*read, "--codec", "ac", "--reset", "never"), "--reset is for --codec equal-info only"),
        (
            (*read, "--codec", "bytes", "--byte-model", "static"),
            "--byte-model is for --codec equal-info,",
        ),
        (
            (*read, "--codec", "equal-info"),
            "--byte-model ngram is made of counts: give --byte-counts",
        ),
        ((*read, "--codec", "equal-info", "--reset", "0"), "'0' is not 'window', 'never' or"),
        (
            (*read, "--codec", "equal-info", "--window-bits", "8"),
            "'8' is not a whole number from 9 to 128",
        ),
        ((*read, "--codec", "ac", "--token-bits", "12"), "invalid choice: 12"),
        ((*read, "--codec", "subword"), "--codec subword needs a tokenizer: give --tokenizer"),
        (
            (*read, *windows, "--window-bits", "12", "--token-bits", "16"),
            "use windows of at least 16 bits or ids of 8 bits",
        ),
        ((*read, *windows, "--reset", "2", "--padding", "zeros"), "with --reset window only"),
        ((*read, *windows, "--window-bits", "128", "--padding", "zeros"), "accepted are 14"),
        (("compress", "--input", source, "--codebook", codebook), "--input and --output, or"),
        ((*read, "--codebok", codebook), "unknown option --codebok; did you mean --codebook?"),
        ((*back, "--codebook", codebook), "a compressed dataset has its own"),
        ((*back, "--stdin"), "--stdin goes with --codebook only, not --compressed"),
        (("decompress", "--stdin"), "--stdin needs a codebook: give --codebook"),
        (("decompress", "--codebook", codebook, "--stdin", "--workers", 2), "not --workers"),
        (("decompress", "--compressed", tmp_path, "--output", out), "no manifest.json"),
        (("decompress", "--compressed", compressed), "--compressed and --output, or --stdin"),
        (("count", "--tokens", compressed, "--output", out), "kind tokens is needed"),
    ]:
        assert command(*arguments) == 2, arguments
        assert message in error_of(capsys)
    assert command(*read, "--codebook", tmp_path / "text") == 1
    assert "is no codebook" in error_of(capsys)
    assert not out.exists()


def test_a_dry_run_writes_nothing(compressed, codebook, tmp_path, capsys):
    source, out = write_jsonl(tmp_path / "in.jsonl", ["a"]), tmp_path / "out"
    arguments = ("--output", out, "--dry-run")
    assert command("compress", "--input", source, "--codebook", codebook, *arguments) == 0
    assert command("decompress", "--compressed", compressed, *arguments) == 0
    printed = capsys.readouterr().out
    assert "codec: codebook, parse greedy, 4,096 ids" in printed
    assert f"input: {len(HARD_TEXTS)} documents" in printed
    assert printed.count("would write the") == 2
    assert not out.exists()


class Standard(io.TextIOWrapper):
    def __init__(self, data=b""):
        super().__init__(io.BytesIO(data), write_through=True)


@pytest.mark.parametrize("parse", ["greedy", "flexible"])
def test_streams_are_one_document_of_any_bytes(parse, codebook, monkeypatch):
    data = "".join(HARD_TEXTS * 30).encode() + b"\xff\x00"
    monkeypatch.setattr(sys, "stdin", Standard(data))
    monkeypatch.setattr(sys, "stdout", Standard())
    assert command("compress", "--codebook", codebook, "--stdin", "--parse", parse) == 0
    raw = sys.stdout.buffer.getvalue()
    assert np.frombuffer(raw, "<u2").tolist() == small_book().encode(data, parse).tolist()
    monkeypatch.setattr(sys, "stdin", Standard(raw))
    monkeypatch.setattr(sys, "stdout", Standard())
    assert command("decompress", "--codebook", codebook, "--stdin") == 0
    assert sys.stdout.buffer.getvalue() == data


def test_a_stream_that_is_cut_off_is_an_error(codebook, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Standard(b"\1\0\1"))
    monkeypatch.setattr(sys, "stdout", Standard())
    assert command("decompress", "--codebook", codebook, "--stdin") == 1
    assert "1 bytes are left" in error_of(capsys)


@pytest.mark.slow
def test_endless_streams_are_piped_until_the_reader_has_enough(codebook):
    compress = f"{sys.executable} -m corpusmill.commands.cli compress --codebook {codebook} --stdin"
    decompress = (
        f"{sys.executable} -m corpusmill.commands.cli decompress --codebook {codebook} --stdin"
    )
    line = f"yes 'the cat sat' | {compress} | {decompress} | head -n 200000 | tail -n 1"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("the cat sat\n", "")


def test_report_shows_bytes_per_token(compressed, tmp_path):
    assert command("report", compressed, "--output", tmp_path / "report.html") == 0
    page = (tmp_path / "report.html").read_text()
    tokens = read_manifest(str(compressed)).properties["tokens"]
    text_bytes = sum(len(text.encode()) for text in HARD_TEXTS)
    assert f"{text_bytes / tokens:.2f} bytes of text per token" in page
