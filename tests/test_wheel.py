"""What `pip install corpusmill` puts into an environment, and whether it works from there."""

import os
import shutil
import subprocess
import sys
import sysconfig

import pytest

from tests.test_layering import MAY_IMPORT, ROOT

# A user's own packages of the same names, which must be neither imported nor in the way.
NAMES = [*MAY_IMPORT, "benchmarks", "tests"]
PROGRAM = """
import sys
import corpusmill
assert {"apache_beam", "torch"}.isdisjoint(sys.modules)
from corpusmill import Codebook, count_ngrams, open_distributions
from corpusmill.commands.cli import main
print(corpusmill.__file__)
assert main("tokenize --input in.txt --tokenizer bytes --output tokens".split()) == 0
assert main("count --tokens tokens --output counts --workers 2".split()) == 0
assert main("distributions --counts counts --output tables".split()) == 0
assert main("enrich --tokens tokens --counts counts --output targets".split()) == 0
assert main(["query", "tables", "the "]) == 0
assert "apache_beam" not in sys.modules  # which only --runner needs
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the wheel's contents, as in an environment's site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in [*MAY_IMPORT, "corpusmill"]:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation"]
    target = ["--target", folder / "site"]
    subprocess.run([*pip, "install", *options, *target, source], check=True)
    return folder / "site"


def test_nothing_generic_lies_at_the_top(site):
    names = {path.name.split("-")[0] for path in site.iterdir()}
    assert names == {"bin", "corpusmill"}
    packages = {path.name for path in (site / "corpusmill").iterdir() if path.is_dir()}
    assert packages - {"__pycache__"} == set(MAY_IMPORT)
    assert (site / "corpusmill" / "py.typed").exists()


def run(where, folder):
    """Runs the program in a folder, with the package from a place and nothing installed."""
    (folder / "in.txt").write_text("the cat and the dog\nthe end\n")
    (folder / "program.py").write_text(
        f"if __name__ == '__main__':\n{PROGRAM.replace(chr(10), chr(10) + '    ')}\n"
    )
    libraries = sysconfig.get_path("purelib"), sysconfig.get_path("platlib")
    # Without the site module, so that the repository's own installation is not found.
    done = subprocess.run(
        [sys.executable, "-S", "program.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (where, *libraries)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(where))
    assert "next token" in done.stdout


def test_it_works_beside_a_users_own_packages(site, tmp_path):
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('a package of the user')")
    run(site, tmp_path)


def test_a_checkout_works_where_nothing_is_installed(tmp_path):
    run(ROOT, tmp_path)
