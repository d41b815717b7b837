"""Datasets whose tokens are bytes: those of the tokenizer `bytes`."""

from corpusmill.corpus.datasets import Manifest
from corpusmill.corpus.errors import DatasetError
from corpusmill.corpus.tokenizers.raw_bytes import END
from corpusmill.ngram_agg.packing import Packing


def check_bytes(folder: str, manifest: Manifest) -> None:
    """Raises DatasetError where a dataset's tokens, or those that were counted, aren't bytes."""
    tokenizer = manifest.tokenizer
    found = [tokenizer[name] for name in ("kind", "vocabulary_size", "end_of_document")]
    if found != ["bytes", END + 1, END]:
        raise DatasetError(
            f"{folder} has {tokenizer['kind']} tokens; bytes are needed: make the tokens with"
            " --tokenizer bytes"
        )


def bytes_packing(context_bytes: int) -> Packing:
    """The packing of n-grams of so many bytes and the next one, or the end of a document."""
    return Packing(context_bytes + 1, END + 1, END)
