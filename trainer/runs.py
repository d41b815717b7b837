"""A run's folder: config.json, tokenizer, metrics, checkpoints.

A run goes on only as what it began as. A job that is queued again may begin while its first process
still writes, perhaps on another machine. Object stores have no locks, so the folder says which
launch owns it: the last one. Those before look there before they publish anything, and end.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from corpusmill.corpus import storage
from corpusmill.corpus.datasets import TOKENIZER_FOLDER, IdSource, describe_differences
from corpusmill.corpus.errors import CorpusmillError, DataError, UsageError, one_line
from corpusmill.corpus.training_runs import CONFIG
from corpusmill.corpus.version import __version__

FORMAT_VERSION = 1
LAUNCH = "launch"

Json = Any


@dataclass(frozen=True)
class RunConfig:
    """What a run is.

    Attributes:
      options: everything chosen that decides the result.
      model: the model's configuration.
      tokenizer: of the tokens that it learns: kind, content hash, vocabulary size, end of document.
      data: content hashes of the datasets, by what they are for.
      places: where the datasets were; decides nothing.
    """

    options: dict[str, Json]
    model: dict[str, Json]
    tokenizer: IdSource
    data: dict[str, str | None]
    places: dict[str, str | None] = field(compare=False)
    format_version: int = FORMAT_VERSION
    corpusmill_version: str = field(default=__version__, compare=False)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False).encode()

    def differences(self, other: "RunConfig") -> list[str]:
        """One phrase for each thing that decides the result and is another one in `other`."""
        return describe_differences(self._flat(), other._flat())

    def _flat(self) -> Mapping[str, Json]:
        data = {f"{name} dataset": value for name, value in self.data.items()}
        tokenizer = {"tokenizer": self.tokenizer["content_hash"]}
        return {**self.options, **self.model, **tokenizer, **data}


def read_config(run: str) -> RunConfig:
    """Reads a run's config.json.

    Raises:
      UsageError: there is none, or it's of a newer format.
      DataError: it's damaged.
    """
    url = storage.join(run, CONFIG)
    try:
        fields = json.loads(storage.read_bytes(url))
        version = fields["format_version"]
        if version != FORMAT_VERSION:
            raise UsageError(
                f"{url} has format version {version}; this corpusmill reads {FORMAT_VERSION}"
            )
        parts = ("options", "model", "tokenizer", "data", "places")
        config = RunConfig(**{**fields, **{name: dict(fields[name]) for name in parts}})
        # What is needed of the parts is looked up.
        config.differences(config)
    except KeyError as error:
        raise DataError(f"{url} is damaged: it has no {error}") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{run} has no {CONFIG}: it's no training run") from error
    except (RecursionError, TypeError, ValueError) as error:
        raise DataError(f"{url} is damaged: {one_line(error)}") from error
    return config


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
