"""How far a codebook in the making has got, kept in a folder so that another process can go on.

`checkpoint.npz`, a zip archive of `.npy` files (`numpy.savez`), appears only when it is whole; a
killed process may leave a half-written one beside it.
"""

import json
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.corpus import storage
from corpusmill.corpus.datasets import describe_differences
from corpusmill.corpus.errors import DataError, UsageError, one_line
from corpusmill.corpus.version import __version__

Columns = Mapping[str, npt.NDArray[Any]]

_MADE_OF = "made_of"
_SECONDS_BETWEEN = 60
# Where writing takes long, at most one part in so many of the time goes into it.
_MOST_OF_TIME = 20


@dataclass
class FreezeCheckpoint:
    """The folder that says how far the work is.

    Attributes:
      folder: path or URL, of nothing else.
      made_of: everything that decides the result, as JSON.
    """

    folder: str
    made_of: Mapping[str, Any]
    _saved: float = field(default_factory=time.monotonic, init=False)
    _cost: float = field(default=0.0, init=False)

    def exists(self) -> bool:
        """Whether there is something to go on from.

        Raises:
          UsageError: it belongs to something else.
          DataError: it is damaged.
        """
        if not storage.exists(self._url):
            return False
        found = json.loads(self._read(_MADE_OF)[_MADE_OF].tobytes())
        differences = describe_differences(found, self._made_of())
        if differences:
            raise UsageError(
                f"{self.folder} is of an unfinished job with other options"
                f" ({'; '.join(differences)}); use the same ones, or remove it to begin anew"
            )
        return True

    def load(self) -> Columns | None:
        """What was saved last, None where there is nothing; raises what `exists` raises."""
        if not self.exists():
            return None
        columns = self._read()
        del columns[_MADE_OF]
        return columns

    def is_due(self) -> bool:
        """Whether so much has been done since it was saved that it should be saved again."""
        pause = max(_SECONDS_BETWEEN, _MOST_OF_TIME * self._cost)
        return time.monotonic() - self._saved >= pause

    def save(self, columns: Columns) -> None:
        """Replaces what was saved before."""
        started = time.monotonic()
        made_of = np.frombuffer(json.dumps(self._made_of()).encode(), np.uint8)
        # What is half written stands there, not beside the folder.
        storage.make_folder(self.folder)
        with storage.publish(self._url) as path, open(path, "wb") as file:
            np.savez(file, allow_pickle=False, **{**columns, _MADE_OF: made_of})
        self._saved = time.monotonic()
        self._cost = self._saved - started

    def remove(self) -> None:
        """The work is complete."""
        storage.remove_tree(self.folder)

    @property
    def _url(self) -> str:
        return storage.join(self.folder, "checkpoint.npz")

    def _made_of(self) -> dict[str, Any]:
        return {**self.made_of, "corpusmill_version": __version__}

    def _read(self, *names: str) -> dict[str, npt.NDArray[Any]]:
        """Columns by name, by default all of them."""
        try:
            with storage.open_input(self._url) as file, np.load(file, allow_pickle=False) as saved:
                return {name: saved[name] for name in names or saved.files}
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{self.folder} is damaged ({one_line(error)}); remove it to begin anew"
            ) from error
