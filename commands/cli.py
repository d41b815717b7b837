"""The command line: `corpusmill COMMAND ...`.

Exit codes: 0 done, 1 failed at work, 2 bad usage, 130 interrupted.
"""

import contextlib
import difflib
import importlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence

from corpusmill.commands.interrupts import EXIT_CODE, Interruption
from corpusmill.corpus.errors import CorpusmillError, UsageError, one_line
from corpusmill.corpus.version import __version__

# What they are for -> name -> what it does; a command's module is imported when it is needed.
COMMANDS_FOR = {
    "text": {
        "tokenize": "documents -> tokens dataset",
        "plan": "a sample of a corpus -> what the whole of it will take",
    },
    "next-token distributions": {
        "count": "tokens dataset -> counts dataset",
        "merge": "counts datasets -> the counts dataset of them all",
        "distributions": "counts dataset -> distributions dataset",
        "query": "context -> what follows it, and how often",
        "enrich": "tokens and counts datasets -> targets dataset",
    },
    "equal-info compression": {
        "freeze": "byte tokens, or a byte model -> a codebook",
        "compress": "documents -> compressed dataset, or stdin -> ids",
        "decompress": "compressed dataset -> documents, or ids -> stdout",
        "examples": "documents -> examples of compressed text to learn from",
        "measure": "datasets of ids -> what their ids are like",
    },
    "models": {
        "train": "tokens (and targets) dataset -> a trained model",
        "train-m1": "text -> a transformer byte model, exact",
        "evaluate": "a model and a dataset -> loss and bits per byte",
        "generate": "a model -> text, as it comes",
        "export": "a model, a codebook -> a Hugging Face folder",
    },
    "a look": {
        "quickstart": "an embedded corpus -> both jobs, and a page about what came out",
        "report": "datasets and training runs -> one HTML page",
        "verify": "a dataset -> whether its files are what its manifest says",
    },
}
COMMANDS = [name for commands in COMMANDS_FOR.values() for name in commands]

# Packages that only some commands need -> the extra of setup.py that brings them.
EXTRAS = {
    "google.api_core": "gcp",
    "google.auth": "gcp",
    "matplotlib": "report",
    "tensorboard": "train",
    "torch": "train",
}

_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")
# Below INFO these write down their requests, with the user's tokens in them.
_TALKATIVE = ("aiobotocore", "boto3", "botocore", "gcsfs", "google", "s3fs", "urllib3")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code; as a process, ends it where it is interrupted."""
    if argv is None and isinstance(sys.stdout, io.TextIOWrapper):
        # Texts are shown, whatever the encoding has letters for; as errors are by themselves.
        sys.stdout.reconfigure(errors="backslashreplace")
    interruption = Interruption()
    with interruption.watched(for_good=argv is None):
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        except BaseException as error:  # noqa: BLE001  (other packages wrap what Ctrl-C raises)
            if not interruption.happened and not isinstance(error, KeyboardInterrupt):
                return _failed(error)
            interruption.say()
            if argv is None:
                interruption.leave()
            return EXIT_CODE


def _run(argv: Sequence[str]) -> int:
    level = os.environ.get("CORPUSMILL_LOG", "CRITICAL").upper()
    if level not in logging.getLevelNamesMapping():
        raise UsageError(f"CORPUSMILL_LOG is {level}; accepted are {', '.join(_LEVELS)}")
    # Beam warns of packages that nobody asked for and logs an error's traceback several times; the
    # error itself comes out below.
    logging.basicConfig(level=level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.INFO, logging.root.level))
    for argument in argv:
        if not argument.isascii() and argument.encode(errors="replace").decode() != argument:
            raise UsageError(f"the argument {argument!r} is not UTF-8")
    command, rest = _command(argv)
    if command is not None:
        with _missing_extras():
            run_command(command, rest)
    return 0


def run_command(command: str, argv: Sequence[str]) -> None:
    """Imports what the command needs, and does it; raises what it raises."""
    module = importlib.import_module(f"corpusmill.commands.{command.replace('-', '_')}")
    module.main(argv)


def _failed(error: BaseException) -> int:
    """Says what went wrong; gives the exit code."""
    if isinstance(error, CorpusmillError):
        return _complain(str(error), 2 if isinstance(error, UsageError) else 1)
    if isinstance(error, BrokenPipeError):
        # The reader of our output has seen enough; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    # As PyTorch says it, by errors of several classes.
    texts = "can't allocate memory", "CUDA out of memory", "CUDA error: out of memory"
    if isinstance(error, MemoryError) or any(text in str(error) for text in texts):
        return _complain(f"there is not enough memory: {one_line(error)}", 1)
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return _complain(f"{error.strerror}{place}", 1)
    if not isinstance(error, Exception):
        raise error
    # The last resort: a bug, shown in full.
    traceback.print_exception(error)
    print("corpusmill: error: this should not have happened; see above", file=sys.stderr)
    return 1


def _complain(message: str, code: int) -> int:
    # What was given may have several lines.
    print(f"corpusmill: error: {' '.join(message.splitlines())}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _missing_extras() -> Iterator[None]:
    """Names what to install; a command or a runner imports it when it is needed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        remedy = f"pip install 'corpusmill[{EXTRAS[error.name]}]'"
        raise UsageError(f"the package {error.name} is not installed: {remedy}") from error


def _command(argv: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
        return None, ()
    if argv[0] == "--version":
        print(f"corpusmill {__version__}")
        return None, ()
    if argv[0] not in COMMANDS:
        nearest = difflib.get_close_matches(argv[0], COMMANDS, 1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(COMMANDS)}"
        raise UsageError(f"unknown command {argv[0]!r}; {hint}")
    return argv[0], argv[1:]


def _help() -> str:
    lines = ["usage: corpusmill COMMAND [OPTION ...]"]
    for purpose, commands in COMMANDS_FOR.items():
        lines += ["", f"{purpose}:"]
        lines += [f"  {name:<15}{summary}" for name, summary in commands.items()]
    lines += ["", "'corpusmill COMMAND --help' shows a command's options and an example."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
