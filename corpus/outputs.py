"""Outputs of commands: a file, which the next run replaces, or a new folder."""

from corpusmill.corpus import storage
from corpusmill.corpus.errors import UsageError


def check_output_file(url: str) -> None:
    """Raises UsageError where `--output` is a folder."""
    if storage.is_folder(url):
        raise UsageError(f"--output {url} is a folder; name a file in it")


def write_output_file(url: str, data: bytes) -> None:
    """Writes the file and says so; raises UsageError where that can't be done."""
    try:
        storage.write_bytes(url, data)
    except OSError as error:
        raise UsageError(f"cannot write to --output {url}: {error}") from error
    print(f"wrote {url}")


def expect_empty(output: str) -> None:
    """Raises UsageError where a folder isn't new or empty."""
    names = storage.list_names(output)
    if names:
        raise UsageError(f"output {output} holds something ({names[0]}, ...); name a new folder")
