"""The tokenizer `bytes`, whose vocabulary is the 256 values of a byte."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.corpus.tokenizers.byte_letters import byte_definition
from corpusmill.corpus.tokenizers.tokenizer import (
    NEW_END,
    EndOfDocument,
    Tokenizer,
    Tokens,
    text_buffers,
)

# The id that ends documents, beyond those of the bytes.
END = 256


class ByteTokenizer(Tokenizer):
    """Every byte of the UTF-8 text is a token."""

    kind = "bytes"

    def __init__(self, files: Mapping[str, bytes], end: EndOfDocument) -> None:
        super().__init__(files, END, *end.resolve({NEW_END: END}.get, lambda: (END, NEW_END)))

    def encode_batch(self, texts: pa.LargeStringArray) -> tuple[Tokens, npt.NDArray[np.int64]]:
        offsets, data = text_buffers(texts)
        lengths = np.diff(offsets) + 1
        ends = np.cumsum(lengths) - 1
        tokens = np.empty(lengths.sum(), self.dtype)
        is_text = np.ones(len(tokens), bool)
        is_text[ends] = False
        tokens[is_text] = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
        tokens[ends] = self.end_of_document
        return tokens, lengths

    def definition(self) -> dict[str, Any]:
        return byte_definition()

    def _decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")

    def _token_bytes(self, token: int) -> bytes:
        return bytes([token])
