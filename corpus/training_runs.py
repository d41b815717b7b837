"""The files in the folder of a training run: the trainer writes them, a report reads them too."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from corpusmill.corpus import storage
from corpusmill.corpus.datasets import IdSource, describe_differences
from corpusmill.corpus.errors import DataError, UsageError, one_line
from corpusmill.corpus.version import __version__

METRICS = "metrics.jsonl"
CONFIG = "config.json"
FORMAT_VERSION = 1

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
      UsageError: there is none, or it's of another format version.
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


def read_metrics(run: str) -> Iterator[dict[str, float]]:
    """The lines of a run's metrics.jsonl: numbers by name, `step` among them, a whole number.

    A last line that a crash left half written, or in zeros, isn't one. There are none without a
    file.

    Raises:
      DataError: another line is damaged.
    """
    url = storage.join(run, METRICS)
    if not storage.exists(url):
        return
    damage: DataError | None = None
    with storage.open_input(url) as file:
        for number, line in enumerate(file, 1):
            if damage is not None:
                raise damage
            try:
                values = _numbers(line)
            except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
                damage = DataError(
                    f"{url} is damaged in line {number}: {one_line(error)}; remove that line"
                )
                continue
            if line.endswith(b"\n"):
                yield values


def _numbers(line: bytes) -> dict[str, float]:
    values: dict[str, Json] = json.loads(line)
    if not isinstance(values["step"], int):
        raise ValueError("step is no whole number")
    for name, value in values.items():
        if not (isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 63)):
            raise ValueError(f"{name} is no number of 64 bits")
    return values
