"""Checkpoints come back as they were written, and half a checkpoint is none."""

import json
from pathlib import Path

import pytest
import torch

from corpusmill.corpus import storage
from corpusmill.corpus.errors import CorpusmillError, DataError, UsageError
from corpusmill.trainer import checkpoints
from corpusmill.trainer.checkpoints import Checkpoint
from corpusmill.trainer.runs import Launch, take_over
from corpusmill.trainer.tensor_files import save_tensors


def checkpoint(step=3):
    generator = torch.Generator().manual_seed(step)
    return Checkpoint(
        step=step,
        model={
            "weight": torch.randn(5, 3, generator=generator).T,
            "half": torch.randn(4, generator=generator).bfloat16(),
        },
        optimizer={"weight/step": torch.tensor(3.0), "weight/moment": torch.ones(3, 5).double()},
        random={"cpu": torch.get_rng_state()},
        state={"loader": {"batch": 12}, "tokens": 1 << 40, "names": ["é"]},
    )


def save(run, saved):
    return checkpoints.save(take_over(run), saved)


def assert_same(one, other):
    assert (one.step, one.state) == (other.step, other.state)
    for name in ("model", "optimizer", "random"):
        tensors, others = getattr(one, name), getattr(other, name)
        assert tensors.keys() == others.keys()
        for key, value in tensors.items():
            assert value.dtype == others[key].dtype
            assert torch.equal(value, others[key])


def test_round_trip(run):
    folder = save(run, checkpoint())
    assert folder.endswith("/checkpoints/step-00000003")
    assert_same(checkpoints.load(folder), checkpoint())
    assert checkpoints.load_model(folder).keys() == checkpoint().model.keys()


def test_only_complete_checkpoints_count(run):
    assert checkpoints.complete(run) == []
    folders = [save(run, checkpoint(step)) for step in (2, 10, 100_000_000)]
    assert checkpoints.complete(run) == folders
    storage.remove_tree(storage.join(folders[1], checkpoints.RECORD))
    assert checkpoints.complete(run) == [folders[0], folders[2]]
    # What a killed run left is replaced, not mixed with what comes.
    storage.write_bytes(storage.join(folders[1], ".model.tmp"), b"half")
    assert_same(checkpoints.load(save(run, checkpoint(10))), checkpoint(10))
    assert ".model.tmp" not in storage.list_names(folders[1])


def test_the_last_ones_are_kept(run):
    folders = [save(run, checkpoint(step)) for step in range(1, 6)]
    storage.remove_tree(storage.join(folders[3], checkpoints.RECORD))
    checkpoints.prune(run, 2)
    assert checkpoints.complete(run) == [folders[2], folders[4]]
    left = storage.list_names(storage.join(run, checkpoints.FOLDER))
    assert left == ["step-00000003", "step-00000005"]


def test_other_folders_are_let_be(run):
    other = storage.join(run, checkpoints.FOLDER, "step-00000001-copy", "note")
    storage.write_bytes(other, b"mine")
    save(run, checkpoint())
    checkpoints.prune(run, 1)
    assert storage.exists(other)


def test_find_takes_runs_and_checkpoints(run):
    folders = [save(run, checkpoint(step)) for step in (1, 2)]
    assert checkpoints.find(run) == (run, folders[1])
    assert checkpoints.find(run + "/") == (run, folders[1])
    found, folder = checkpoints.find(folders[0])
    assert storage.absolute(found) == storage.absolute(run)
    assert folder == folders[0]


def test_find_refuses_what_is_neither(tmp_path):
    with pytest.raises(UsageError, match="no training run and no checkpoint"):
        checkpoints.find(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="no checkpoint yet"):
        checkpoints.find(str(tmp_path))


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty_header(path):
    path.write_bytes(b"\xff" * path.stat().st_size)


def other_step(path):
    path.write_text(json.dumps({"step": "one"}))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", Path.unlink),
        ("model.safetensors", cut_short),
        ("optimizer.safetensors", empty_header),
        ("random.safetensors", cut_short),
        ("checkpoint.json", cut_short),
        ("checkpoint.json", other_step),
        ("checkpoint.json", Path.unlink),
    ],
)
def test_damage_is_named(tmp_path, name, damage):
    folder = save(str(tmp_path), checkpoint())
    damage(next(Path(folder).rglob(name)))
    with pytest.raises(DataError, match=f"{name} is (damaged|missing)"):
        checkpoints.load(folder)


def test_a_damaged_newest_checkpoint_does_not_block_a_whole_one(run):
    first, second, third = (save(run, checkpoint(step)) for step in (1, 2, 3))
    storage.write_bytes(storage.join(third, checkpoints.RECORD), b"")
    storage.write_bytes(emptied := checkpoints.model_url(second), b"")
    told = []
    assert_same(checkpoints.newest_whole(run, told.append), checkpoint(1))
    assert [message.split(" ")[0] for message in told] == [
        storage.join(third, checkpoints.RECORD),
        emptied,
    ]
    # What is newer doesn't come back when the run has gone on.
    assert checkpoints.complete(run) == [first]
    storage.write_bytes(storage.join(first, checkpoints.RECORD), b"{}")
    with pytest.raises(DataError, match=f"step-00000001.* is damaged.*remove {run}/checkpoints"):
        checkpoints.newest_whole(run, told.append)
    assert checkpoints.newest_whole(run + "2", told.append) is None


@pytest.mark.parametrize(
    "record", [b"[]", b"{}", b'{"step": 1, "launch": "a", "sizes": 3, "state": {}}', b"\0" * 9]
)
def test_a_damaged_record_is_one_line(run, record):
    folder = save(run, checkpoint())
    storage.write_bytes(storage.join(folder, checkpoints.RECORD), record)
    with pytest.raises(DataError, match=r"checkpoint.json is damaged: .+$"):
        checkpoints.load(folder)


@pytest.fixture
def interleaved(monkeypatch):
    """Has something else happen before the second file of the next checkpoint is written."""

    def before_second_file(happen):
        urls = []

        def save_and_happen(url, tensors):
            urls.append(url)
            if len(urls) == 2:
                happen()
            save_tensors(url, tensors)

        monkeypatch.setattr(checkpoints, "save_tensors", save_and_happen)

    return before_second_file


def launched(step, value):
    """Checkpoints of one step, of the same sizes, by the number that their tensors hold."""
    tensors = {"weight": torch.full((3,), value)}
    return Checkpoint(step, tensors, tensors, tensors, {"loader": value})


def test_a_launch_ends_where_another_has_taken_over(run, interleaved):
    first = take_over(run)
    later = []
    interleaved(lambda: later.append(save(run, launched(1, 2.0))))
    with pytest.raises(
        CorpusmillError, match=f"^another launch has taken over {run}, so "
    ) as caught:
        checkpoints.save(first, launched(1, 1.0))
    assert "\n" not in str(caught.value)
    assert checkpoints.complete(run) == later
    assert_same(checkpoints.load(later[0]), launched(1, 2.0))
    # From then on it touches nothing.
    with pytest.raises(CorpusmillError, match="another launch"):
        checkpoints.save(first, launched(1, 1.0))
    assert_same(checkpoints.load(later[0]), launched(1, 2.0))


def test_a_mix_of_two_launches_is_no_checkpoint(run, interleaved, monkeypatch):
    """The first one looked who owns the run just before it was taken over."""
    first, second = take_over(run), take_over(run)
    monkeypatch.setattr(Launch, "expect_owner", lambda self: None)
    interleaved(lambda: checkpoints.save(second, launched(1, 2.0)))
    folder = checkpoints.save(first, launched(1, 1.0))
    with pytest.raises(DataError, match=r"model\.safetensors is missing"):
        checkpoints.load(folder)
