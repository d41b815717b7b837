"""Peak memory of `enrich` where no worker can hold the table, at 1, 4 and 16 times the text.

Byte tokens of one file of documents, so that the tokens are one file, too: `--table-mib` is so
small that there are dozens of tables. A chunk of positions that is in memory has eight million, so
fewer tokens take less.
"""

import itertools
import json
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence

from benchmarks import data, measure
from corpusmill.commands import count, tokenize
from corpusmill.corpus.datasets import read_manifest

_TIMES = (1, 4, 16)
_TABLE_MIB = 2


def documents(corpus: str | None) -> Iterator[str]:
    """Texts, again and again: each time with other words at other places."""
    paths, _ = data.documents(corpus)
    for turn in itertools.count():
        for path in paths:
            for text in data.texts(path):
                words = text.split(" ")
                yield " ".join(words[turn::7] + words[:turn])


def prepare(folder: pathlib.Path, size: int, corpus: str | None) -> int:
    """Tokens and counts of about so many bytes; returns how many there are."""
    left = size
    with (folder / "text.jsonl").open("w", encoding="utf-8") as file:
        for text in documents(corpus):
            file.write(json.dumps({"text": text}) + "\n")
            left -= len(text.encode())
            if left <= 0:
                break
    with measure.silence():
        read = ["--input", f"{folder}/text.jsonl", "--shard-mib", "65536"]
        tokenize.main([*read, "--tokenizer", "bytes", "--output", f"{folder}/tokens"])
        count.main(["--tokens", f"{folder}/tokens", "--output", f"{folder}/counts"])
    manifest = read_manifest(f"{folder}/tokens")
    assert len(manifest.data_files) == 1
    return int(manifest.properties["tokens"])


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("enrich_memory", __doc__, 10_000_000)
    arguments = parser.parse_args(argv)
    rows, peaks = [], []
    for times in _TIMES:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            tokens = prepare(folder, arguments.tokens * times, arguments.corpus)
            command = [sys.executable, "-m", "corpusmill.commands.cli", "enrich"]
            command += ["--tokens", f"{folder}/tokens", "--counts", f"{folder}/counts"]
            command += ["--output", f"{folder}/targets", "--table-mib", str(_TABLE_MIB)]
            seconds, resident, own = measure.run_watched(command)
            counters = read_manifest(f"{folder}/targets").counters
        peaks.append(resident)
        spilled = counters["spilled_bytes"] / tokens
        mib = resident / 2**20, own / 2**20
        rows.append((f"{times} x", tokens / 1e6, seconds, *mib, resident / peaks[0], spilled))
    measure.print_table(
        f"enrich of one file with --table-mib {_TABLE_MIB}",
        (
            "text",
            "million tokens",
            "seconds",
            "resident MiB",
            "without mapped files",
            "1 x = 1",
            "bytes a position in files",
        ),
        rows,
    )
    measure.print_goal("resident GiB", max(peaks) / 2**30, at_most=1.5)
    measure.print_goal("largest over smallest", max(peaks) / min(peaks), at_most=1.3)


if __name__ == "__main__":
    main(sys.argv[1:])
