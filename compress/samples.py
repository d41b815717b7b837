"""Text of tokens datasets, for what is fitted on text."""

from collections.abc import Iterator

import numpy as np

from compress.byte_strings import ByteStrings
from corpus import storage
from corpus.datasets import Manifest
from corpus.errors import DatasetError
from corpus.tokens import ROW_GROUP_TOKENS, read_row_groups, row_group_tokens

_END = 256


def check_bytes(folder: str, manifest: Manifest) -> None:
    """Raises DatasetError where a dataset's tokens aren't bytes."""
    tokenizer = manifest.tokenizer
    if (tokenizer["kind"], tokenizer["end_of_document"]) != ("bytes", _END):
        raise DatasetError(
            f"{folder} has {tokenizer['kind']} tokens; bytes are needed: make the tokens with"
            " --tokenizer bytes"
        )


def sample_text(folder: str, manifest: Manifest, most_bytes: int) -> ByteStrings:
    """Text from everywhere in a tokens dataset of bytes.

    Args:
      folder: path or URL of the dataset.
      manifest: of the dataset.
      most_bytes: about how much is read of it, in row groups of a MiB that lie equally far apart.

    Returns:
      Documents; some are parts of documents, because row groups end anywhere.
    """
    groups = [
        (url, group)
        for url in (storage.join(folder, file.name) for file in manifest.data_files)
        for group in range(len(row_group_tokens(url)))
    ]
    wanted = max(1, most_bytes // ROW_GROUP_TOKENS)
    step = max(1, -(-len(groups) // wanted))
    tokens = np.concatenate(list(_read(groups[::step])))
    is_end = tokens == _END
    ends = np.flatnonzero(is_end)
    # The bytes before each end; what follows the last one is a document too.
    lengths = np.diff(np.concatenate([[-1], ends, [len(tokens)]])) - 1
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return ByteStrings(tokens[~is_end].astype(np.uint8), offsets)


def _read(groups: list[tuple[str, int]]) -> Iterator[np.typing.NDArray[np.generic]]:
    for url, group in groups:
        yield from read_row_groups(url, group, group + 1)
        # A document may end here or not: the next group is from elsewhere.
        yield np.full(1, _END, np.uint16)
