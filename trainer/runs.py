"""A run's folder: config.json, tokenizer, metrics, checkpoints.

A run goes on only as what it began as. A job that is queued again may begin while its first process
still writes, perhaps on another machine. Object stores have no locks, so the folder says which
launch owns it: the last one. Those before look there before they publish anything, and end.
"""

import secrets
from dataclasses import dataclass

from corpusmill.corpus import storage
from corpusmill.corpus.datasets import TOKENIZER_FOLDER
from corpusmill.corpus.errors import CorpusmillError, UsageError
from corpusmill.corpus.training_runs import CONFIG, RunConfig, read_config

LAUNCH = "launch"


@dataclass(frozen=True)
class Launch:
    """One start of a run.

    Attributes:
      run: folder or URL of the run.
      id: random.
    """

    run: str
    id: str

    def expect_owner(self) -> None:
        """Raises CorpusmillError where another launch has taken over the run."""
        try:
            owner = storage.read_bytes(storage.join(self.run, LAUNCH))
        except FileNotFoundError:
            owner = b""
        if owner != self.id.encode():
            raise CorpusmillError(f"another launch has taken over {self.run}, so this one ends")


def take_over(run: str) -> Launch:
    """Makes a new launch the owner of a run."""
    launch = Launch(run, secrets.token_hex(8))
    storage.write_bytes(storage.join(run, LAUNCH), launch.id.encode())
    return launch


def claim(run: str, config: RunConfig) -> Launch:
    """Makes a folder the folder of this run, owned by a new launch.

    Writes its config.json, and the tokenizer's files.

    Raises:
      UsageError: the folder holds something else, a run of another configuration (the difference
        is shown), or cannot be written to.
    """
    names = storage.list_names(run)
    if CONFIG in names:
        differences = read_config(run).differences(config)
        if differences:
            raise UsageError(
                f"output {run} is a run with other options ({'; '.join(differences)}); use the same"
                " ones, or name a new folder"
            )
    elif names:
        raise UsageError(
            f"output {run} holds something else ({names[0]}, ...); name a new or empty folder"
        )
    try:
        storage.write_bytes(storage.join(run, CONFIG), config.to_json())
        if tokens := config.places.get("tokens"):
            _copy_files(tokens, run, TOKENIZER_FOLDER)
        return take_over(run)
    except OSError as error:
        raise UsageError(f"cannot write to output {run}: {error}") from error


def _copy_files(source: str, target: str, folder: str) -> None:
    for name in storage.list_names(storage.join(source, folder)):
        storage.copy(storage.join(source, folder, name), storage.join(target, folder, name))
