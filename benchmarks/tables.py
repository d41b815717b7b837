"""How large are distribution tables, and how fast are look-ups in them?"""

import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from benchmarks import data
from benchmarks.measure import best_of, parse_tokens, show
from ngram_agg import open_distributions
from pipelines import count, distributions, tokenize

_LOOK_UPS = 1_000_000
_MAX_ORDER = 4


def make_tables(tokens: str, folder: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        counts, tables = f"{folder}/counts", f"{folder}/distributions"
        count.main(["--input", tokens, "--output", counts, "--max-order", str(_MAX_ORDER)])
        distributions.main(["--input", counts, "--output", tables, "--min-count", "2"])
    return tables


def simplewiki(folder: str) -> str | None:
    """Tokens of simplewiki alone, or None where the development data is absent."""
    source = data.SHARED / "corpora" / "simplewiki.jsonl.gz"
    if not source.exists():
        return None
    tokenizer = data.SHARED / "tokenizers" / "mistral_v1.model"
    arguments = ["--input", source, "--tokenizer", tokenizer, "--output", f"{folder}/wiki"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        tokenize.main([str(argument) for argument in arguments])
    return f"{folder}/wiki"


def show_sizes(tables: str) -> None:
    manifest = open_distributions(tables).manifest
    million = manifest.properties["tokens"] / 1e6
    rows = [("order", "contexts", "MB per million tokens")]
    total = 0
    for order in range(_MAX_ORDER + 1):
        files = [file for file in manifest.data_files if file.name.startswith(f"order={order}/")]
        size = sum(file.bytes for file in files)
        total += size
        rows.append((order, f"{sum(f.rows for f in files):,}", f"{size / 1e6 / million:.3f}"))
    rows.append(("all", "", f"{total / 1e6 / million:.2f} (goal: at most 2.5)"))
    print(f"min_count 2, {million:.1f} million tokens:\n")
    show(rows)


def show_look_ups(tables: str, tokens: np.ndarray, vocabulary: int, cache: str) -> None:
    rows = [("order", "contexts", "found", "in memory, million/s", "memory-mapped, million/s")]
    generator = np.random.default_rng(0)
    for order in (2, 3, _MAX_ORDER):
        positions = generator.integers(order, len(tokens), _LOOK_UPS)
        seen = np.stack([tokens[positions - order + i] for i in range(order)], axis=1)
        random = generator.integers(0, vocabulary, (_LOOK_UPS, order))
        held = open_distributions(tables).load(order)
        mapped = open_distributions(tables).load(order, cache)
        for name, contexts in (("of the corpus", seen), ("random", random)):
            in_memory, found = best_of(3, lambda table=held, c=contexts: table.find(c))
            on_disk, _ = best_of(3, lambda table=mapped, c=contexts: table.find(c))
            speeds = [f"{_LOOK_UPS / 1e6 / seconds:.0f}" for seconds in (in_memory, on_disk)]
            rows.append((order, name, f"{(found >= 0).mean():.0%}", *speeds))
    show(rows)
    print("goal: at least 5 million/s in memory\n")


def main(argv: Sequence[str] | None = None) -> None:
    wanted = parse_tokens(argv, __doc__)
    folder = tempfile.mkdtemp(dir=data.DATA)
    wiki = simplewiki(folder)
    if wiki is not None:
        show_sizes(make_tables(wiki, f"{folder}/w"))
    tables = make_tables(data.tokens_dataset(wanted), f"{folder}/all")
    tokens, vocabulary, _ = data.token_array(wanted)
    show_look_ups(tables, tokens, vocabulary, f"{folder}/cache")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
