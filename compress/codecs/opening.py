"""Codecs from the folders that they are kept in."""

import json
from functools import lru_cache
from typing import Any

from compress.codebook import Codebook
from compress.codecs.base import Codec
from compress.codecs.baselines import BytesCodec, GzipCodec
from compress.codecs.frozen import CODEBOOK_FILE, CodebookCodec
from corpus import storage
from corpus.errors import DataError, UsageError, one_line
from corpus.tokenizers.base import MARKER

BASELINES: dict[str, type[Codec]] = {codec.kind: codec for codec in (BytesCodec, GzipCodec)}


def open_codec(folder: str) -> Codec:
    """The codec whose files are in a folder.

    Args:
      folder: path or URL; a local codebook is memory-mapped.

    Raises:
      UsageError: there is no codec.
      DataError: it is damaged.
    """
    marker = read_marker(folder)
    kind = marker.get("kind")
    if kind == CodebookCodec.kind:
        book = Codebook.open(storage.join(folder, CODEBOOK_FILE))
        return CodebookCodec(book, marker.get("parse", "greedy"))
    if kind not in BASELINES:
        raise UsageError(f"{folder} has the tokenizer {kind}, which is no codec")
    return BASELINES[kind]()


def read_marker(folder: str) -> dict[str, Any]:
    """What the file that marks a folder with a tokenizer or codec says.

    Raises:
      UsageError: there is no such file.
      DataError: it is damaged.
    """
    url = storage.join(folder, MARKER)
    try:
        return dict(json.loads(storage.read_bytes(url)))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"there is no codec in {folder}: it has no {MARKER}") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{url} is damaged: {one_line(error)}") from error


@lru_cache(maxsize=4)
def expect_codec(folder: str, content_hash: str) -> Codec:
    """The codec in a folder of a dataset, opened once in a process.

    Raises:
      DataError: it isn't there, is damaged, or isn't the one with this hash.
    """
    try:
        codec = open_codec(folder)
    except UsageError as error:
        raise DataError(f"the dataset's codec is missing: {error}") from error
    if codec.content_hash != content_hash:
        raise DataError(
            f"the {codec.kind} in {folder} is {codec.content_hash}, but the dataset was made with"
            f" {content_hash}"
        )
    return codec
