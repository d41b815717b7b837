"""Who may import whom, checked in the source of every module and in a fresh interpreter."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from corpusmill.pipelines.launching.dataflow import PACKAGES

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {
    "corpus": set(),
    "ngram_agg": {"corpus"},
    "compress": {"corpus", "ngram_agg"},
    "report": {"compress", "corpus", "ngram_agg"},
    "trainer": {"compress", "corpus", "ngram_agg"},
    "pipelines": {"compress", "corpus", "ngram_agg"},
    "commands": {"compress", "corpus", "ngram_agg", "pipelines", "report", "trainer"},
}
# What compress consists of; each imports itself and those before it.
COMPRESS = (
    *("byte_strings", "byte_tokens", "tally", "byte_models", "coders", "codebooks", "codecs"),
    *("datasets", "__init__"),
)
# Modules and packages outside which a library is not imported.
ONLY_IN = {
    "apache_beam": {"pipelines", "commands/run_options.py"},
    "torch": {"trainer", "compress/byte_models/torch_transformer.py"},
}


def imported_names(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each absolute import, wherever it stands."""
    for node in ast.walk(module):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield node.lineno, alias.name
            case ast.ImportFrom(module=str(name), names=names, level=0):
                for alias in names:
                    yield node.lineno, f"{name}.{alias.name}"
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def reason_against(file: str, name: str) -> str | None:
    """Why a file must not import what has this name; None where it may."""
    package, part = file.removesuffix(".py").split("/")[:2]
    match name.split("."):
        case [first, *_] if first in MAY_IMPORT:
            return f"{first} is corpusmill.{first}"
        case ["corpusmill", "compress", other, *_] if package == "compress":
            if other not in COMPRESS[: COMPRESS.index(part) + 1]:
                return f"{part} must not import {other}"
        case ["corpusmill", other, *_] if other in MAY_IMPORT.keys() - MAY_IMPORT[package]:
            if other != package:
                return f"{package} must not import {other}"
        case [first, *_] if first in ONLY_IN and not {package, file} & ONLY_IN[first]:
            return f"{first} has no place here"
    return None


def violations(root: Path) -> list[str]:
    """What the packages under `root` import and must not, as 'file:line: reason'."""
    found = []
    for package in MAY_IMPORT:
        for path in sorted((root / package).rglob("*.py")):
            file = path.relative_to(root).as_posix()
            for line, name in imported_names(ast.parse(path.read_bytes(), file)):
                if reason := reason_against(file, name):
                    found.append(f"{file}:{line}: {reason}")
    return found


def packages_in_tree(root: Path) -> list[str]:
    """Dotted names of the packages of corpusmill, those inside others included."""
    inside = (
        ".".join(("corpusmill", *path.parent.relative_to(root).parts))
        for package in MAY_IMPORT
        for path in (root / package).rglob("__init__.py")
    )
    return ["corpusmill", *sorted(inside)]


def plant(root: Path, file: str, source: str) -> None:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)


def test_imports_point_one_way() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        (
            "corpus/a.py",
            "import corpusmill.ngram_agg.counts_runs",
            "corpus must not import ngram_agg",
        ),
        (
            "corpus/deep/er.py",
            "from corpusmill.pipelines import a",
            "corpus must not import pipelines",
        ),
        (
            "ngram_agg/a.py",
            "from corpusmill.compress.ac import x",
            "ngram_agg must not import compress",
        ),
        (
            "compress/a.py",
            "import numpy, corpusmill.commands.cli",
            "compress must not import commands",
        ),
        (
            "compress/coders/a.py",
            "from corpusmill.compress import codecs",
            "coders must not import codecs",
        ),
        (
            "compress/codebooks/a.py",
            "import corpusmill.compress.codecs.frozen",
            "codebooks must not import codecs",
        ),
        (
            "compress/tally.py",
            "from corpusmill.compress.coders.lanes import Lanes",
            "tally must not import coders",
        ),
        (
            "compress/datasets/a.py",
            "from corpusmill.compress import ByteStrings",
            "datasets must not import ByteStrings",
        ),
        ("trainer/a.py", "import corpusmill.pipelines as p", "trainer must not import pipelines"),
        ("pipelines/a.py", "from corpusmill import trainer", "pipelines must not import trainer"),
        ("corpus/a.py", "from corpus import b", "corpus is corpusmill.corpus"),
        ("corpus/a.py", "from apache_beam import io", "apache_beam has no place here"),
        ("trainer/a.py", "import apache_beam as beam", "apache_beam has no place here"),
        ("compress/ac.py", "import torch.nn", "torch has no place here"),
        ("pipelines/a.py", "import torch", "torch has no place here"),
        ("corpus/a.py", "def f():\n    import torch", "torch has no place here"),
        (
            "ngram_agg/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import apache_beam",
            "apache_beam has no place here",
        ),
        ("corpus/a.py", "importlib.import_module('torch.nn')", "torch has no place here"),
        (
            "corpus/a.py",
            "import_module('corpusmill.ngram_agg')",
            "corpus must not import ngram_agg",
        ),
        ("corpus/a.py", "__import__('apache_beam')", "apache_beam has no place here"),
    ],
)
def test_violation_is_found(tmp_path: Path, file: str, source: str, expected: str) -> None:
    plant(tmp_path, file, source)
    line = len(source.splitlines())
    assert violations(tmp_path) == [f"{file}:{line}: {expected}"]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("corpus/a.py", "import numpy\nfrom corpusmill.corpus import b\nfrom . import b"),
        ("ngram_agg/a.py", "import corpusmill.corpus.storage"),
        (
            "compress/a.py",
            "from corpusmill.ngram_agg import runs\nfrom corpusmill.corpus import errors",
        ),
        (
            "compress/codecs/a.py",
            "import corpusmill.compress.codecs.codec\nfrom corpusmill.compress import tally",
        ),
        ("compress/__init__.py", "from corpusmill.compress.datasets import samples"),
        ("trainer/a.py", "import torch\nfrom corpusmill import compress, ngram_agg, corpus"),
        (
            "pipelines/a.py",
            "import apache_beam\nfrom corpusmill import compress, ngram_agg, corpus",
        ),
        ("tests/a.py", "import apache_beam, torch, pipelines, trainer"),
    ],
)
def test_allowed_import_is_no_violation(tmp_path: Path, file: str, source: str) -> None:
    plant(tmp_path, file, source)
    assert violations(tmp_path) == []


def test_importing_everything_without_beam_loads_neither_beam_nor_torch() -> None:
    """But for the module that holds a network, which is imported when a device is asked for."""
    program = """
import importlib, pkgutil, sys
from corpusmill import compress, corpus, ngram_agg
for package in compress, corpus, ngram_agg:
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name != "corpusmill.compress.byte_models.torch_transformer":
            importlib.import_module(module.name)
print(*sorted({"apache_beam", "torch"} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_importing_the_jobs_does_not_load_torch() -> None:
    """But for those with a network: Beam's RunInference imports torch where it is installed."""
    program = """
import importlib, pkgutil, sys
from corpusmill import pipelines
for module in pkgutil.walk_packages(pipelines.__path__, "corpusmill.pipelines."):
    if module.name != "corpusmill.pipelines.launching.inference":
        importlib.import_module(module.name)
print("torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


def test_help_does_not_wait_for_what_only_the_work_needs() -> None:
    program = """
import contextlib, os, sys
from corpusmill.commands import cli
for command in cli.COMMANDS:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(open(os.devnull, "w")):
        assert cli.main([command, "--help"]) == 0
heavy = {"apache_beam", "fastokens", "google.protobuf", "grpc", "matplotlib", "numba", "pandas"}
print(*sorted((heavy | {"sentencepiece", "torch"}) & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_setup_lists_the_packages_that_exist() -> None:
    [listed] = [
        ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "setup.py").read_bytes()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PACKAGES"
    ]
    assert listed == packages_in_tree(ROOT)
    # Its marker counts for the packages inside it.
    assert (ROOT / "corpusmill" / "py.typed").is_file()


def test_mypy_checks_the_packages_that_exist() -> None:
    [rooms] = [
        line.removeprefix("ROOMS := ").split()
        for line in (ROOT / "Makefile").read_text().splitlines()
        if line.startswith("ROOMS := ")
    ]
    assert rooms == sorted(MAY_IMPORT) == list(PACKAGES)


def test_packages_are_found_at_every_depth(tmp_path: Path) -> None:
    for file in ("corpus/__init__.py", "corpus/readers/__init__.py", "docs/__init__.py"):
        plant(tmp_path, file, "")
    assert packages_in_tree(tmp_path) == [
        "corpusmill",
        "corpusmill.corpus",
        "corpusmill.corpus.readers",
    ]
