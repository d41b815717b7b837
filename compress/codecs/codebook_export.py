"""Codebooks as the tokenizer files of Hugging Face's libraries."""

from corpusmill.compress.codebooks.codebook import MAGIC, Codebook
from corpusmill.compress.codecs.frozen import CodebookCodec
from corpusmill.corpus import storage
from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.outputs import expect_empty
from corpusmill.corpus.tokenizers import UnsupportedError, tokenizer_files


def is_codebook(url: str) -> bool:
    """Whether a path or URL is a codebook's file."""
    if storage.is_folder(url) or not storage.exists(url):
        return False
    with storage.open_input(url) as file:
        return file.read(len(MAGIC)) == MAGIC


def export_codebook(url: str, output: str) -> str:
    """Writes a codebook as a tokenizer into a new folder.

    Args:
      url: path or URL of the file.
      output: folder or URL.

    Returns:
      What was written.

    Raises:
      UsageError: the output holds something, or no `tokenizer.json` gives the codebook's ids.
      DataError: the codebook is damaged.
    """
    codec = CodebookCodec(Codebook.open(url))
    expect_empty(output)
    try:
        files = tokenizer_files(codec.definition(), lambda text: codec.book.encode(text).tolist())
    except UnsupportedError as error:
        raise UsageError(f"{url} can't become a tokenizer.json: {error}") from error
    for name, data in files.items():
        storage.write_bytes(storage.join(output, name), data)
    return f"{output}: a tokenizer of {codec.vocab_size:,} ids"
