"""What benchmarks are run on."""

import pytest

from benchmarks.data import make_once, texts


def test_texts_that_were_left_half_made_are_made_again(tmp_path):
    path = tmp_path / "folder" / "text.jsonl"
    source = {"corpus": "a", "megabytes": float("inf")}

    def make_half():
        path.write_text('{"text": "half')
        raise KeyboardInterrupt

    def make():
        path.write_text('{"text": "whole"}\n')

    with pytest.raises(KeyboardInterrupt):
        make_once(path.parent, source, make_half)
    make_once(path.parent, source, make)
    make_once(path.parent, source, make_half)
    assert list(texts(path)) == ["whole"]


def test_a_folder_has_text_of_one_source(tmp_path):
    make_once(tmp_path, {"corpus": "a", "megabytes": 1.0}, lambda: None)
    with pytest.raises(SystemExit, match=r"has text of .*1\.0.*, not of .*2\.0.*: name another"):
        make_once(tmp_path, {"corpus": "a", "megabytes": 2.0}, lambda: None)
