"""Documents come back from compress and decompress as they were, however the jobs are run."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.compress import Codebook, CodebookTokenizer
from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.tokens import MAX_ROW_TOKENS
from tests.codebooks import HARD_TEXTS, small_book
from tests.integration.samples import assert_same_data, random_texts, run, write_jsonl

LONG = 20 << 20


@pytest.fixture(scope="module")
def codebook(tmp_path_factory):
    path = tmp_path_factory.mktemp("codebook") / "small.codebook"
    small_book().write(str(path))
    return path


def compress(source, output, codebook, *more):
    run("compress", "--input", source, "--codebook", codebook, "--output", output, *more)


def decompress(source, output, *more):
    run("decompress", "--compressed", source, "--output", output, *more)


def documents_of(folder):
    return [
        json.loads(line)["text"]
        for path in sorted(folder.glob("part-*.jsonl"))
        for line in path.read_text("utf-8").split("\n")[:-1]
    ]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder of JSONL files, of several shards, and their texts."""
    folder = tmp_path_factory.mktemp("corpus")
    texts = [*random_texts(1, 300_000), *HARD_TEXTS]
    write_jsonl(folder / "0.jsonl", texts)
    write_jsonl(folder / "1.jsonl", HARD_TEXTS)
    return folder, [*texts, *HARD_TEXTS]


@pytest.fixture(scope="module")
def job(corpus, codebook, tmp_path_factory):
    """The compressed dataset and its documents, made by one process."""
    folder = tmp_path_factory.mktemp("job")
    compress(corpus[0], folder / "small", codebook, "--shard-mib", 1)
    assert len(read_manifest(str(folder / "small")).data_files) > 1
    decompress(folder / "small", folder / "back")
    return folder


def test_all_documents_come_back(corpus, job):
    assert documents_of(job / "back") == corpus[1]
    run("verify", job / "small")
    run("verify", job / "back")


@pytest.mark.slow
def test_two_worker_processes(corpus, codebook, job, tmp_path):
    small, back = tmp_path / "small", tmp_path / "back"
    compress(corpus[0], small, codebook, "--shard-mib", 1, "--workers", 2)
    assert_same_data(small, job / "small")
    decompress(small, back, "--workers", 2)
    assert_same_data(back, job / "back")


def test_bundles_run_twice(corpus, codebook, job, tmp_path):
    small, back = tmp_path / "small", tmp_path / "back"
    compress(corpus[0], small, codebook, "--shard-mib", 1, "--direct_runner_bundle_repeat=1")
    assert_same_data(small, job / "small")
    decompress(small, back, "--direct_runner_bundle_repeat=1")
    assert_same_data(back, job / "back")


def test_every_path_may_be_a_url(corpus, job):
    root = "memory://corpusmill-compress"
    small_book().write(f"{root}/small.codebook")
    compress(corpus[0], f"{root}/small", f"{root}/small.codebook", "--shard-mib", 1)
    decompress(f"{root}/small", f"{root}/back")
    for name in ("small", "back"):
        remote = read_manifest(f"{root}/{name}")
        assert remote.content_hash == read_manifest(str(job / name)).content_hash


def test_documents_are_compressed_again_to_the_same_rows(job, codebook, tmp_path):
    compress(job / "back" / "part-*", tmp_path / "again", codebook, "--id-field", "id")
    decompress(tmp_path / "again", tmp_path / "back")
    assert documents_of(tmp_path / "back") == documents_of(job / "back")


@settings(max_examples=5)
@given(texts=st.lists(st.text(max_size=300), min_size=1))
@pytest.mark.parametrize(("window_bits", "parse"), [(12, "flexible"), (17, "greedy")])
def test_any_texts_come_back(window_bits, parse, texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    small_book(window_bits).write(str(folder / "codebook"))
    source = write_jsonl(folder / "in.jsonl", texts)
    compress(source, folder / "small", folder / "codebook", "--parse", parse)
    decompress(folder / "small", folder / "back")
    assert documents_of(folder / "back") == texts


def test_the_folder_of_a_datasets_codebook_is_a_tokenizer(job, corpus):
    tokenizer = CodebookTokenizer.from_pretrained(str(job / "small" / "tokenizer"))
    assert tokenizer.book.content_hash == small_book().content_hash
    assert tokenizer.decode(tokenizer.encode(corpus[1][0])) == corpus[1][0]


def test_a_document_of_20_mb_takes_several_rows(codebook, tmp_path):
    text = " ".join(random_texts(2, 400_000))
    text = (text * (LONG // len(text) + 1))[:LONG]
    write_jsonl(tmp_path / "in.jsonl", ["short", text, "", "after"])
    compress(tmp_path / "in.jsonl", tmp_path / "small", codebook)
    manifest = read_manifest(str(tmp_path / "small"))
    rows = manifest.data_files[0].rows
    assert manifest.properties["documents"] == 4
    assert rows - 3 == -(-len(Codebook.open(str(codebook)).encode(text.encode())) // MAX_ROW_TOKENS)
    assert rows > 8
    decompress(tmp_path / "small", tmp_path / "back")
    assert documents_of(tmp_path / "back") == ["short", text, "", "after"]
