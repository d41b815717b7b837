"""What do page checksums cost: tokens and targets written and read with and without them?"""

import functools
import pathlib
import sys
import tempfile
from collections.abc import Sequence

import pyarrow.parquet as pq

from benchmarks import data, measure
from corpusmill.corpus import parquet


def main(argv: Sequence[str]) -> None:
    arguments = measure.make_parser("checksums", __doc__, 5_000_000).parse_args(argv)
    tokens = data.tokens_dataset(arguments.tokens, arguments.corpus)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        counts, targets = f"{folder}/counts", f"{folder}/targets"
        with measure.silence():
            data.run("count", "--tokens", tokens, "--output", counts)
            data.run("enrich", "--tokens", tokens, "--counts", counts, "--output", targets)
        for dataset in (str(tokens), targets):
            for path in sorted(pathlib.Path(dataset).rglob("*.parquet")):
                name = f"{pathlib.Path(dataset).name}/{path.relative_to(dataset)}"
                rows += compare(name, path, f"{folder}/copy", arguments.repeat)
    measure.print_table("milliseconds", ("file", "without checksums", "with", "without = 1"), rows)


def compare(
    name: str, path: pathlib.Path, copy: str, repeat: int
) -> list[tuple[str, float, float, float]]:
    """A row for writing and one for reading; the copies are compressed alike."""
    table = pq.read_table(path)
    rows = pq.read_metadata(path).row_group(0).num_rows
    clock = measure.Clock()
    for _ in range(repeat):
        for checked in (False, True):
            write = functools.partial(
                pq.write_table,
                table,
                copy,
                row_group_size=rows,
                compression="zstd",
                compression_level=parquet.COMPRESSION_LEVEL,
                use_dictionary=False,
                column_encoding=dict(parquet.encodings(table.schema)),
                write_page_checksum=checked,
            )
            read = functools.partial(
                pq.read_table, copy, use_threads=False, page_checksum_verification=checked
            )
            clock.time(f"write {checked}", write)
            clock.time(f"read {checked}", read)
    spent = {step: seconds * 1e3 for step, seconds in clock.best.items()}
    return [
        (
            f"{name}: {step}",
            spent[f"{step} False"],
            spent[f"{step} True"],
            spent[f"{step} True"] / spent[f"{step} False"],
        )
        for step in ("write", "read")
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
