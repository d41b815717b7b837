"""Which byte model a command uses: its options `--byte-model` and `--byte-counts`."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from corpusmill.commands.arguments import add_folder
from corpusmill.compress import ByteModel, ngram_model, open_model, static_model
from corpusmill.compress.byte_tokens import check_bytes
from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.errors import UsageError

COUNTED: dict[str, Callable[[str], ByteModel]] = {"ngram": ngram_model, "static": static_model}


@dataclass(frozen=True)
class ModelChoice:
    """A byte model that is made of counts, or one that was saved.

    Attributes:
      model: `ngram` or `static`, or the folder or URL of a saved byte model.
      counts: folder or URL of a counts dataset of bytes, for the first two.

    Raises:
      UsageError: counts are missing, or not asked for.
    """

    model: str
    counts: str | None

    def __post_init__(self) -> None:
        if self.is_counted and self.counts is None:
            raise UsageError(f"--byte-model {self.model} is made of counts: give --byte-counts DIR")
        if not self.is_counted and self.counts is not None:
            raise UsageError(
                f"--byte-counts is for --byte-model {' and '.join(COUNTED)} only, not {self.model}"
            )

    @property
    def is_counted(self) -> bool:
        return self.model in COUNTED

    def identity(self) -> dict[str, Any]:
        """What decides the model, as JSON.

        Raises:
          DatasetError: the counts are missing, or not of bytes.
          UsageError: there is no saved model.
          DataError: it is damaged.
        """
        if self.counts is None:
            saved = self.open()
            return {"model": saved.kind, "model_hash": saved.content_hash}
        manifest = read_manifest(self.counts, "counts")
        check_bytes(self.counts, manifest)
        return {"model": self.model, "counts": manifest.content_hash}

    def describe(self) -> str:
        return self.model if self.counts is None else f"{self.model} of {self.counts}"

    def open(self) -> ByteModel:
        """Makes or opens the model, once; raises what `identity` raises."""
        return self._opened

    @cached_property
    def _opened(self) -> ByteModel:
        if self.counts is None:
            return open_model(self.model)
        return COUNTED[self.model](self.counts)


def add_model_options(parser: argparse._ActionsContainer) -> None:
    """The options that `ModelChoice` is made of; None where they aren't given."""
    add_folder(parser, "--byte-counts", "a counts dataset of bytes", required=False)
    parser.add_argument(
        "--byte-model",
        metavar="MODEL",
        help="byte model: ngram (default) or static, both of --byte-counts, or the folder or URL of"
        " a saved one",
    )
