"""Codecs from the folders that they are kept in."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from corpusmill.compress.byte_models import TransformerModel, on_device, open_model
from corpusmill.compress.codebooks.codebook import Codebook
from corpusmill.compress.codecs.arithmetic import ArithmeticCodec, StaticArithmeticCodec
from corpusmill.compress.codecs.baselines import BytesCodec, GzipCodec
from corpusmill.compress.codecs.codec import Codec
from corpusmill.compress.codecs.equal_info import EqualInfoCodec
from corpusmill.compress.codecs.frozen import CODEBOOK_FILE, CodebookCodec
from corpusmill.compress.codecs.modelled import ModelCodec
from corpusmill.compress.codecs.padded import PaddedCodec
from corpusmill.compress.codecs.subword import SubwordCodec
from corpusmill.corpus import storage
from corpusmill.corpus.errors import DataError, UsageError, one_line
from corpusmill.corpus.tokenizers import load_tokenizer
from corpusmill.corpus.tokenizers.tokenizer import MARKER

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
    if not isinstance(kind, str):
        raise DataError(f"the codec in {folder} is damaged: its kind is {kind!r}")
    if kind in BASELINES:
        return BASELINES[kind]()
    if kind not in _OPENERS:
        raise UsageError(f"{folder} has the tokenizer {kind}, which is no codec")
    try:
        return _OPENERS[kind](folder, marker)
    except KeyError as error:
        raise DataError(f"the codec in {folder} is damaged: it has no {error}") from error
    except (DataError, TypeError, ValueError) as error:
        raise DataError(f"the codec in {folder} is damaged: {one_line(error)}") from error


def _open_codebook(folder: str, marker: Mapping[str, Any]) -> Codec:
    book = Codebook.open(storage.join(folder, CODEBOOK_FILE))
    bits = None if marker.get("token_bits") is None else _bits(marker, "token_bits")
    return CodebookCodec(book, marker.get("parse", "greedy"), bits)


def _open_equal_info(folder: str, marker: Mapping[str, Any]) -> Codec:
    sizes = _bits(marker, "token_bits"), _bits(marker, "window_bits")
    if "padding" in marker:
        return PaddedCodec(open_model(folder), *sizes, marker["padding"])
    reset = None if marker["reset"] is None else _bits(marker, "reset")
    return EqualInfoCodec(open_model(folder), *sizes, reset)


def _open_arithmetic(folder: str, marker: Mapping[str, Any]) -> Codec:
    return ArithmeticCodec(open_model(folder), _bits(marker, "token_bits"))


def _open_static_arithmetic(folder: str, marker: Mapping[str, Any]) -> Codec:
    return StaticArithmeticCodec(open_model(folder), _bits(marker, "token_bits"))


def _open_subword(folder: str, _: Mapping[str, Any]) -> Codec:
    return SubwordCodec(load_tokenizer(folder))


def _bits(marker: Mapping[str, Any], name: str) -> int:
    value = marker[name]
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise DataError(f"its {name} is {value!r}")
    return value


_OPENERS: dict[str, Callable[[str, Mapping[str, Any]], Codec]] = {
    CodebookCodec.kind: _open_codebook,
    EqualInfoCodec.kind: _open_equal_info,
    ArithmeticCodec.kind: _open_arithmetic,
    StaticArithmeticCodec.kind: _open_static_arithmetic,
    SubwordCodec.kind: _open_subword,
}


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
    except (RecursionError, TypeError, ValueError) as error:
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


def runs_network(codec: Codec) -> bool:
    """Whether a codec asks a network for the frequencies of each byte."""
    return isinstance(codec, ModelCodec) and codec.model.kind == TransformerModel.kind


def codec_on_device(codec: Codec, device: str) -> Codec:
    """The same codec, its model computed by a device; raises what `on_device` raises."""
    if device == "cpu":
        return codec
    if not isinstance(codec, ModelCodec):
        raise UsageError(f"--device {device} is for codecs with a byte model, not {codec.kind}")
    return dataclasses.replace(codec, model=on_device(codec.model, device))


def device_of(codec: Codec, device: str) -> str | None:
    """What computes the network of a codec, if it has one."""
    return device if runs_network(codec) else None
