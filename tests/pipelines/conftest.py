import pytest

from tests.pipelines.samples import command, tokenize, write_jsonl

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "", "the cat and the dog"] * 5


@pytest.fixture(scope="session")
def job(tmp_path_factory):
    """Folder with tokens, counts and distributions of a few sentences, a byte a token."""
    folder = tmp_path_factory.mktemp("job")
    corpus = write_jsonl(folder / "corpus.jsonl", TEXTS)
    counts, tables = folder / "counts", folder / "distributions"
    assert tokenize(corpus, folder / "tokens") == 0
    assert command("count", "--tokens", folder / "tokens", "--output", counts) == 0
    assert command("distributions", "--counts", counts, "--output", tables) == 0
    return folder
