"""Files of tensors come back as they were, and what the disk refuses is told as its own fault."""

import subprocess
import sys

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from corpusmill.corpus import storage
from corpusmill.corpus.errors import CorpusmillError, DataError
from corpusmill.trainer.tensor_files import load_tensors, save_tensors

TENSORS = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.tensor(3)}


@pytest.fixture
def url(run):
    return f"{run}/file"


def test_round_trip(url):
    save_tensors(url, TENSORS)
    found = load_tensors(url)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


def test_damage_is_named(url):
    storage.write_bytes(url, b"\xff" * 100)
    with pytest.raises(DataError, match=f"^{url} is damaged: "):
        load_tensors(url)
    with pytest.raises(FileNotFoundError):
        load_tensors(url + "2")


def test_a_full_disk_is_told_in_one_line(url, monkeypatch):
    def full(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(CorpusmillError, match=f"^no space left on device while writing {url};"):
        save_tensors(url, TENSORS)
    assert not storage.exists(url)


def test_what_a_disk_refuses_is_an_os_error(tmp_path):
    """The library's own error, of a process whose files may not get larger."""
    url = str(tmp_path / "file")
    code = f"""if True:
        import resource, torch
        from corpusmill.trainer.tensor_files import save_tensors
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        try:
            save_tensors({url!r}, {{"a": torch.zeros(1 << 16)}})
        except OSError as error:
            print(error.strerror, error.filename)
    """
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (process.stdout, process.stderr) == (f"File too large {url}\n", "")
    assert list(tmp_path.iterdir()) == []
