"""What docs/formats.md says is enough to read every kind of compressed text."""

import json

import pytest

from corpusmill.commands import cli
from corpusmill.compress.codebooks.codebook import Codebook
from corpusmill.compress.codecs import open_codec
from corpusmill.compress.datasets.compressed import read_documents
from tests.codebooks import HARD_TEXTS, small_book
from tests.golden import decoders
from tests.golden.make import CODEBOOKS, CODEC_FOLDER, CODECS, HERE, USED_CODEBOOK

TEXTS = [json.loads(line)["text"].encode() for line in (HERE / "corpus.jsonl").open()]
END = {"id": 4, "content": "</s>", "special": True}
FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
TOKENIZER = {
    "added_tokens": [END | FLAGS],
    "pre_tokenizer": {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "Isolated",
        "invert": False,
    },
    "model": {
        "type": "WordLevel",
        "vocab": {"the": 0, " ": 1, "cat": 2, "?": 3, "</s>": 4},
        "unk_token": "?",
    },
    "decoder": {"type": "Fuse"},
}


def product_reads(folder):
    codec = open_codec(str(folder / "tokenizer"))
    return [
        text
        for path in sorted(folder.glob("part-*.parquet"))
        for _, batch in read_documents(str(path), codec)
        for text in batch
    ]


@pytest.mark.parametrize("folder", ["compressed", *(f"{CODEC_FOLDER}/{name}" for name in CODECS)])
def test_golden_files(folder):
    found = decoders.documents(HERE / folder)
    if folder.endswith("zeros"):  # which loses text
        assert found == product_reads(HERE / folder)
    else:
        assert found == TEXTS


@pytest.mark.parametrize("name", [*CODEBOOKS, USED_CODEBOOK])
def test_codebooks(name):
    path = HERE / "codebooks" / name
    assert decoders.codebook(path) == list(Codebook.open(str(path)).strings)


@pytest.mark.parametrize("kind", ["halves", "bytes", "gzip", "subword"])
def test_kinds_without_golden_files(kind, tmp_path):
    texts = ["the cat the ?", "", "the ?"] if kind == "subword" else HARD_TEXTS
    source = tmp_path / "corpus.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    small_book(16).write(str(tmp_path / "book"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    options = {
        "halves": ["--codec", "codebook", "--codebook", tmp_path / "book", "--token-bits", 8],
        "bytes": ["--codec", "bytes"],
        "gzip": ["--codec", "gzip"],
        "subword": [
            *("--codec", "subword", "--tokenizer", tmp_path / "tokenizer.json"),
        ],
    }[kind]
    command = ["compress", "--input", source, "--output", tmp_path / "small", *options]
    assert cli.main([str(each) for each in command]) == 0
    found = decoders.documents(tmp_path / "small")
    assert found == [text.encode() for text in texts]


def test_they_import_nothing_of_the_product():
    source = (HERE / "decoders.py").read_text()
    for package in ("compress", "corpus", "ngram_agg", "pipelines", "trainer", "tests"):
        assert f"import {package}" not in source
        assert f"from {package}" not in source
