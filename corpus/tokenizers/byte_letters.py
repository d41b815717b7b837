"""Bytes as letters, in which a `tokenizer.json` writes byte strings."""

from collections.abc import Mapping
from typing import Any


def byte_characters() -> dict[str, bytes]:
    """GPT-2's letters for bytes: printable Latin-1 stands for itself, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): bytes([byte]) for byte in printable}
    return letters | {chr(0x100 + i): bytes([byte]) for i, byte in enumerate(others)}


def letters_of(data: bytes) -> str:
    """A byte string in those letters."""
    return data.decode("latin-1").translate(_LETTERS)


def byte_level(model: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of a `tokenizer.json` whose model reads a text as a whole, byte by byte."""
    whole = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", **whole},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", **whole},
        "model": dict(model),
    }


def byte_definition() -> dict[str, Any]:
    """The contents of a `tokenizer.json` whose ids are the bytes."""
    vocabulary = {letters_of(bytes([byte])): byte for byte in range(256)}
    # Pairs that would be joined: none.
    return byte_level({"type": "BPE", "vocab": vocabulary, "merges": []})


_LETTERS = {data[0]: letter for letter, data in byte_characters().items()}
