"""Checkpoints: folders `checkpoints/step-00001000` of a run, tensors in safetensors, the rest JSON.

`checkpoint.json` is written last, under a temporary name first: a folder without it is not a
checkpoint but what a killed run left. It names the launch that wrote it, in whose folder the
tensors are, so tensors of two launches are never taken for one checkpoint. Nothing is pickled, so a
checkpoint from elsewhere runs no code.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from corpusmill.corpus import storage
from corpusmill.corpus.errors import DataError, UsageError, one_line
from corpusmill.corpus.training_runs import CONFIG
from corpusmill.trainer.runs import Launch
from corpusmill.trainer.tensor_files import load_tensors, save_tensors

FOLDER = "checkpoints"
RECORD = "checkpoint.json"
_MODEL = "model"
_TENSORS = (_MODEL, "optimizer", "random")
_NAME = re.compile(r"step-(\d{8,})")

Json = Any
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on after a step.

    Attributes:
      step: steps that were done.
      model: parameters and buffers by name.
      optimizer: the optimizer's tensors by `parameter/state`.
      random: states of random number generators by device.
      state: what is not a tensor, as JSON: the loader's state, and totals.
    """

    step: int
    model: Tensors
    optimizer: Tensors
    random: Tensors
    state: dict[str, Json]

    def without_parameters(self) -> "Checkpoint":
        """All but what is large: the model's and the optimizer's tensors."""
        return replace(self, model={}, optimizer={})


def save(launch: Launch, checkpoint: Checkpoint) -> str:
    """Writes a checkpoint of a run; it's there as a whole, or not at all.

    Args:
      launch: of the run, which it still has to own.
      checkpoint: what to write.

    Returns:
      The checkpoint's folder.

    Raises:
      CorpusmillError: another launch has taken over the run, or no space is left.
    """
    launch.expect_owner()
    folder = folder_of(launch.run, checkpoint.step)
    # What a run left that was killed just here.
    storage.remove_tree(folder)
    sizes = {}
    for name in _TENSORS:
        url = _tensors_url(folder, launch.id, name)
        save_tensors(url, getattr(checkpoint, name))
        sizes[name] = storage.size(url)
    record = {
        "step": checkpoint.step,
        "launch": launch.id,
        "sizes": sizes,
        "state": checkpoint.state,
    }
    launch.expect_owner()
    storage.write_bytes(storage.join(folder, RECORD), json.dumps(record, indent=1).encode())
    return folder


def folder_of(run: str, step: int) -> str:
    """Where a run has its checkpoint of a step."""
    return storage.join(run, FOLDER, f"step-{step:08d}")


def load(folder: str) -> Checkpoint:
    """Reads a whole checkpoint; see `load_tensors`.

    Raises:
      DataError: a file of it is missing or damaged.
    """
    record = _read_record(folder)
    tensors = {name: _read_tensors(folder, name, record) for name in _TENSORS}
    return Checkpoint(step=record["step"], state=record["state"], **tensors)


def load_model(folder: str) -> dict[str, Tensor]:
    """The model's parameters and buffers alone.

    Raises:
      DataError: a file is missing or damaged.
    """
    return _read_tensors(folder, _MODEL, _read_record(folder))


def model_url(folder: str) -> str:
    """The file of a checkpoint's model.

    Raises:
      DataError: the checkpoint's record is missing or damaged.
    """
    return _tensors_url(folder, _read_record(folder)["launch"], _MODEL)


def complete(run: str) -> list[str]:
    """The folders of a run's complete checkpoints, by rising step."""
    found = _folders(run)
    return [found[step] for step in sorted(found) if _is_complete(found[step])]


def newest_whole(run: str, tell: Callable[[str], None]) -> Checkpoint | None:
    """A run's newest checkpoint that can be read; None where there is none at all.

    Newer ones are no checkpoints any more from then on.

    Args:
      run: folder or URL of the run.
      tell: is told of each newer one that is damaged, as a power cut may leave it.

    Raises:
      DataError: all of them are damaged.
    """
    damaged: dict[str, DataError] = {}
    for folder in reversed(complete(run)):
        try:
            checkpoint = load(folder)
        except DataError as error:
            damaged[folder] = error
            continue
        for newer, fault in damaged.items():
            tell(f"{fault}; going on from an older checkpoint")
            storage.remove_tree(storage.join(newer, RECORD))
        return checkpoint
    if damaged:
        first = next(iter(damaged.values()))
        raise DataError(f"{first}; remove {storage.join(run, FOLDER)} to begin anew")
    return None


def prune(run: str, keep: int) -> None:
    """Removes all but the last `keep` complete checkpoints, and incomplete ones."""
    kept = complete(run)[-keep:]
    for folder in _folders(run).values():
        if folder not in kept:
            # Its record first: what is left of it, should we be killed here, is no checkpoint.
            storage.remove_tree(storage.join(folder, RECORD))
            storage.remove_tree(folder)


def find(place: str) -> tuple[str, str]:
    """The run and the checkpoint that a user means by either a run or a checkpoint of one.

    Args:
      place: folder or URL of a run (its last checkpoint is meant) or of a checkpoint.

    Returns:
      The folders of the run and of the checkpoint.

    Raises:
      UsageError: it's neither, or a run without a checkpoint.
    """
    place = place.rstrip("/")
    if _is_complete(place):
        return storage.absolute(place).rsplit("/", 2)[0], place
    found = complete(place)
    if found:
        return place, found[-1]
    if storage.exists(storage.join(place, CONFIG)):
        raise UsageError(f"{place} has no checkpoint yet; let the run go on until its first one")
    raise UsageError(
        f"{place} is no training run and no checkpoint; name the --output of a run, or a folder"
        f" {FOLDER}/step-00001000 in it"
    )


@contextlib.contextmanager
def fitting(folder: str) -> Iterator[None]:
    """Makes what a checkpoint of something else leads to a DataError that names it."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{folder} is no checkpoint of this model: {one_line(error)}") from error


def _folders(run: str) -> dict[int, str]:
    folder = storage.join(run, FOLDER)
    matches = map(_NAME.fullmatch, storage.list_names(folder))
    return {int(match[1]): storage.join(folder, match[0]) for match in matches if match}


def _is_complete(folder: str) -> bool:
    return storage.exists(storage.join(folder, RECORD))


def _tensors_url(folder: str, launch: str, name: str) -> str:
    return storage.join(folder, launch, f"{name}.safetensors")


def _read_record(folder: str) -> dict[str, Json]:
    url = storage.join(folder, RECORD)
    try:
        record: dict[str, Json] = json.loads(storage.read_bytes(url))
        return {
            "step": int(record["step"]),
            "launch": str(record["launch"]),
            **{key: dict(record[key]) for key in ("sizes", "state")},
        }
    except FileNotFoundError as error:
        raise DataError(f"{url} is missing: this is no complete checkpoint") from error
    except (RecursionError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{url} is damaged: {one_line(error)}") from error


def _read_tensors(folder: str, name: str, record: Mapping[str, Json]) -> dict[str, Tensor]:
    url = _tensors_url(folder, record["launch"], name)
    try:
        size, expected = storage.size(url), record["sizes"].get(name)
        if size != expected:
            raise DataError(f"{url} is damaged: it has {size} bytes, not {expected}")
        return load_tensors(url)
    except FileNotFoundError as error:
        raise DataError(f"{url} is missing") from error
