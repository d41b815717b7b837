"""The errors that corpusmill raises on purpose.

Each message is one line: what is wrong, what was given, what is accepted or what to do.
"""


class CorpusmillError(Exception):
    """Base of every error that is meant for the user; the command line exits with 1."""


class UsageError(CorpusmillError):
    """A bad option, a missing input or an unusable output, found before any work."""


class DataError(CorpusmillError):
    """The data is bad: too many bad records, an id outside the vocabulary, a damaged file."""


class StorageError(CorpusmillError, OSError):
    """A bucket or a server refuses, or can't be reached, after all that its driver tried."""


class DatasetError(UsageError):
    """A folder that isn't the complete dataset, of the kind, that was expected."""


def one_line(error: BaseException) -> str:
    """The first line of an error's message, or its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
