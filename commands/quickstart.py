"""Everything, small, on an embedded corpus: the documentation of Python's standard library."""

import ast
import json
import pathlib
import pydoc_data.topics
import shlex
import sysconfig
from collections.abc import Iterator, Sequence

import tokenizers

from corpusmill.commands.arguments import make_parser
from corpusmill.commands.cli import run_command
from corpusmill.corpus import storage

_VOCABULARY = 8192
_END_OF_DOCUMENT = "<|endoftext|>"
_CONTEXT = "Return the"


def main(argv: Sequence[str]) -> None:
    """`corpusmill quickstart`"""
    parser = make_parser(
        "quickstart",
        "Writes the documentation of Python's standard library as JSONL, trains a small tokenizer"
        " on it and runs the n-gram job: tokenize, count, distributions, query, enrich, verify.",
        "corpusmill quickstart --output quickstart",
    )
    parser.add_argument("--output", default="quickstart", metavar="DIR", help="folder for it all")
    arguments = parser.parse_args(argv)
    names = ("docs.jsonl", "tokenizer.json", "tokens", "counts", "distributions", "targets")
    documents, tokenizer, tokens, counts, tables, targets = (
        storage.join(arguments.output, name) for name in names
    )
    _make_inputs(documents, tokenizer)
    for command in (
        ["tokenize", "--input", documents, "--tokenizer", tokenizer, "--output", tokens],
        ["count", "--input", tokens, "--output", counts, "--max-order", "4"],
        ["distributions", "--input", counts, "--output", tables],
        ["query", tables, _CONTEXT],
        ["enrich", "--tokens", tokens, "--counts", counts, "--output", targets],
        ["verify", targets],
    ):
        print(f"\n$ corpusmill {shlex.join(command)}", flush=True)
        run_command(command[0], command[1:])


def embedded_corpus() -> Iterator[tuple[str, str]]:
    """Names and texts: the language reference's topics and the docstrings of each module."""
    for name, text in sorted(pydoc_data.topics.topics.items()):
        yield f"topic:{name}", text
    for path in sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = "\n\n".join(_docstrings(path.read_bytes()))
        if text:
            yield f"module:{path.stem}", text


def train_tokenizer(texts: Sequence[str], vocabulary_size: int) -> str:
    """A byte-level BPE tokenizer of the given size, as the text of a tokenizer.json."""
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        texts, vocabulary_size, special_tokens=[_END_OF_DOCUMENT], show_progress=False
    )
    return str(tokenizer.to_str())


def _make_inputs(documents: str, tokenizer: str) -> None:
    if not storage.exists(documents):
        lines = [json.dumps({"id": name, "text": text}) + "\n" for name, text in embedded_corpus()]
        storage.write_bytes(documents, "".join(lines).encode())
    if not storage.exists(tokenizer):
        lines = storage.read_bytes(documents).decode().splitlines()
        texts = [json.loads(line)["text"] for line in lines]
        storage.write_bytes(tokenizer, train_tokenizer(texts, _VOCABULARY).encode())
    print(f"wrote {documents} and {tokenizer}")


def _docstrings(source: bytes) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text
