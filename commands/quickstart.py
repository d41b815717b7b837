"""Both jobs, small, on an embedded corpus: the documentation of Python's standard library."""

import ast
import importlib.util
import json
import pathlib
import pydoc_data.topics
import shlex
import sysconfig
from collections.abc import Iterator, Sequence
from functools import partial

import orjson
import tokenizers

from corpusmill.commands.arguments import make_parser, parse_known
from corpusmill.commands.cli import run_command
from corpusmill.corpus import storage
from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.errors import DataError

# As many ids for the tokenizer as for the codebook, so that they can be compared.
_BITS = 13
_END_OF_DOCUMENT = "<|endoftext|>"
_CONTEXT = "Return the"


def main(argv: Sequence[str]) -> None:
    """`corpusmill quickstart`"""
    parser = make_parser(
        "quickstart",
        "Writes the documentation of Python's standard library as JSONL and trains a small"
        " tokenizer on it. Then both jobs: next-token distributions (tokenize, count,"
        " distributions, query, enrich, verify), and compression (freeze, compress, decompress,"
        " measure). A report shows what came out.",
        "corpusmill quickstart --output quickstart",
    )
    parser.add_argument("--output", default="quickstart", metavar="DIR", help="folder for it all")
    arguments, _ = parse_known(parser, argv)
    place = partial(storage.join, arguments.output)
    documents, tokenizer = place("docs.jsonl"), place("tokenizer.json")
    tokens, counts, tables, targets = map(place, ("tokens", "counts", "distributions", "targets"))
    book, small, back = place("docs.codebook"), place("compressed"), place("documents")
    measures, page = place("measures.json"), place("report.html")
    _make_inputs(documents, tokenizer)
    read = ["tokenize", "--input", documents, "--tokenizer"]
    _run(*read, tokenizer, "--output", tokens)
    _run("count", "--tokens", tokens, "--output", counts, "--max-order", "4")
    _run("distributions", "--counts", counts, "--output", tables)
    _run("query", tables, _CONTEXT)
    _run("enrich", "--tokens", tokens, "--counts", counts, "--output", targets)
    _run("verify", targets)
    _run(*read, "bytes", "--output", place("byte-tokens"))
    _run("freeze", "--tokens", place("byte-tokens"), "--window-bits", f"{_BITS}", "--output", book)
    _run("compress", "--input", documents, "--codebook", book, "--output", small)
    _run("decompress", "--compressed", small, "--output", back)
    _compare(documents, back)
    _run("measure", tokens, small, "--output", measures)
    if importlib.util.find_spec("matplotlib") is None:
        print(
            "\npip install 'corpusmill[report]' and run this again: a page with pictures of it all"
        )
        return
    _run("report", tokens, counts, tables, targets, small, measures, "--output", page)
    print("\nopen it in a browser: what was counted, what targets are made of, what ids are like")


def _run(*command: str) -> None:
    print(f"\n$ corpusmill {shlex.join(command)}", flush=True)
    run_command(command[0], command[1:])


def _compare(documents: str, folder: str) -> None:
    """Compares documents with those that came back; raises DataError where one is another."""
    parts = [storage.join(folder, file.name) for file in read_manifest(folder).files]
    texts, found = (
        [
            orjson.loads(line)["text"]
            for url in urls
            for line in storage.read_bytes(url).splitlines()
        ]
        for urls in ([documents], parts)
    )
    if texts != found:
        raise DataError(f"{folder} has other documents than {documents}")
    print(f"\nall {len(texts)} documents came back, byte for byte")


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
        storage.write_bytes(tokenizer, train_tokenizer(texts, 1 << _BITS).encode())
        print(f"wrote {documents} and {tokenizer}")


def _docstrings(source: bytes) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text
