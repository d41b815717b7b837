import json

import pytest

from corpusmill.commands import cli
from tests.compress.samples import wiki

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "", "the cat and the dög"] * 3
WORDS = '{"model": {"type": "WordLevel", "vocab": {"the": 0, "?": 1}, "unk_token": "?"}}'


def _counts(folder, tokenizer):
    source, tokens, counts = folder / "corpus.jsonl", folder / "tokens", folder / "counts"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    for command in (
        ["tokenize", "--input", source, "--tokenizer", tokenizer, "--output", tokens],
        ["count", "--tokens", tokens, "--output", counts, "--max-order", "3"],
    ):
        assert cli.main([str(argument) for argument in command]) == 0
    return counts


@pytest.fixture(scope="session")
def byte_job(tmp_path_factory):
    """Folder of a counts dataset of bytes, beside its `tokens`, and the documents."""
    folder = tmp_path_factory.mktemp("bytes")
    return _counts(folder, "bytes"), [text.encode() for text in TEXTS]


@pytest.fixture(scope="session")
def job_of_words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    (folder / "tokenizer.json").write_text(WORDS)
    return _counts(folder, folder / "tokenizer.json")


@pytest.fixture(scope="session")
def articles(shared_data):
    """About 2 MB of articles to make models of, and others."""
    return wiki(shared_data, 1500), wiki(shared_data, 150, skip=20_000)
