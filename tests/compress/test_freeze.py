"""A codebook in the making, stopped and gone on with."""

import fsspec
import numpy as np
import pytest

from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.compress.codebooks import expansion, freeze_checkpoint
from corpusmill.compress.codebooks.freeze import FreezeOptions, freeze
from corpusmill.compress.codebooks.freeze_checkpoint import FreezeCheckpoint
from corpusmill.corpus.errors import DataError, UsageError
from tests.compress.samples import HARD, TEXT, ngram, static

FITTED = ByteStrings.of(TEXT * 3 + HARD)


class StoppedError(Exception):
    pass


class Stopping(FreezeCheckpoint):
    """Stops the work as soon as it has been saved."""

    def save(self, columns):
        super().save(columns)
        raise StoppedError


@pytest.mark.parametrize(
    ("model", "options", "text"),
    [
        (ngram(), FreezeOptions("coder", 16), None),
        (static(), FreezeOptions("optimal", 11), None),
        (ngram(), FreezeOptions("optimal", 10), FITTED),
        (ngram(), FreezeOptions("optimal", 10, "flexible"), FITTED),
        (None, FreezeOptions("used", 10), FITTED),
    ],
)
def test_stopped_at_every_save_it_ends_the_same(model, options, text, tmp_path, monkeypatch):
    made_of = {"model": "a test's"}
    whole = freeze(model, options, made_of, text)
    monkeypatch.setattr(freeze_checkpoint, "_SECONDS_BETWEEN", 0)
    monkeypatch.setattr(freeze_checkpoint, "_MOST_OF_TIME", 0)
    monkeypatch.setattr(expansion, "_BATCH", 300)
    folder = str(tmp_path / "unfinished")
    stops = 0
    while True:
        try:
            book = freeze(model, options, made_of, text, checkpoint=Stopping(folder, made_of))
        except StoppedError:
            stops += 1
        else:
            break
    assert stops > (13 if text is not None else 4)
    assert book.content_hash == whole.content_hash


def test_it_is_saved_after_each_stage(tmp_path):
    checkpoint = FreezeCheckpoint(str(tmp_path / "unfinished"), {})
    assert checkpoint.load() is None
    freeze(ngram(), FreezeOptions("optimal", 10), {}, FITTED, checkpoint=checkpoint)
    assert checkpoint.load()["complete"] == 7
    assert len(checkpoint.load()["trie_bytes"]) == 1 << 10


def test_it_may_be_a_url():
    checkpoint = FreezeCheckpoint("memory://unfinished/a", {"parse": "greedy"})
    checkpoint.save({"column": np.arange(3)})
    assert checkpoint.load()["column"].tolist() == [0, 1, 2]
    checkpoint.remove()
    assert not checkpoint.exists()
    assert not fsspec.filesystem("memory").find("/unfinished")


def test_what_cannot_be_gone_on_with_is_refused(tmp_path):
    folder = str(tmp_path / "unfinished")
    FreezeCheckpoint(folder, {"window_bits": 16}).save({"column": np.arange(3)})
    with pytest.raises(UsageError, match=r"window_bits: 16 there, 18 now.* remove it"):
        FreezeCheckpoint(folder, {"window_bits": 18}).load()
    [path] = (tmp_path / "unfinished").iterdir()
    whole = path.read_bytes()
    for damaged in (b"", b"something else", whole[:-30], whole.replace(b"window", b"widnow")):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"unfinished is damaged .* remove it to begin anew"):
            FreezeCheckpoint(folder, {"window_bits": 16}).load()
