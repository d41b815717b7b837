"""Tensors in safetensors files, by path or URL."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from corpusmill.corpus import storage
from corpusmill.corpus.errors import DataError

# The library tells the operating system's errors in words alone.
_CODE = re.compile(r"\(os error (\d+)\)")


def save_tensors(
    url: str, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Writes tensors of any layout, visible only when all are there.

    Args:
      url: path or URL of the file.
      tensors: by name.
      metadata: what the file's header says besides.

    Raises:
      CorpusmillError: no space is left.
      OSError: another failure of the disk.
    """
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with storage.publish(url) as path:
        try:
            safetensors.torch.save_file(whole, path, metadata)
        except SafetensorError as error:
            code = _CODE.search(str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1])), url) from error


def load_tensors(url: str) -> dict[str, Tensor]:
    """The tensors of a file, by name, on the CPU.

    They are mapped: a tensor takes memory when it is read. A remote file is fetched into the folder
    for temporary files.

    Raises:
      DataError: the file is damaged.
      FileNotFoundError: there is none.
    """
    try:
        with _local(url) as path:
            return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise DataError(f"{url} is damaged: {error}") from error


@contextlib.contextmanager
def _local(url: str) -> Iterator[str]:
    """A path to map; what is mapped outlives the file's name."""
    if storage.is_local(url):
        yield storage.filesystem(url)[1]
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tensors")
        storage.copy(url, path)
        yield path
