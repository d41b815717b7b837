"""A reader of targets datasets, from docs/formats.md alone: it needs pyarrow and nothing else."""

from pathlib import Path

import pyarrow.parquet as pq

UNITS = 65535


def read_rows(folder, name):
    """The rows of a file; a row has for each position (order, head, drawn).

    `head` and `drawn` are lists of (token, weight in units of 1/65535).
    """
    heads = pq.read_table(Path(folder) / "heads" / name).to_pylist()
    for row in pq.read_table(Path(folder) / name).to_pylist():
        drawn = iter(row["drawn"])
        yield [_position(heads[number], drawn) for number in row["head"]]
        assert next(drawn, None) is None


def _position(head, drawn):
    left, draws = UNITS - sum(head["weights"]), head["draws"]
    shares = [left // draws + (draw < left % draws) for draw in range(draws)]
    return (
        head["order"],
        list(zip(head["tokens"], head["weights"], strict=True)),
        [(next(drawn), share) for share in shares],
    )


def in_slots(head, drawn, slots):
    """Tokens with weights of one position in the slots of the dense form, (0, 0) where unused."""
    filling = [(0, 0)] * (slots[0] - len(head)) if head else []
    found = [*head, *filling, *drawn]
    return found + [(0, 0)] * (sum(slots) - len(found))


def names(folder):
    """The files of positions."""
    return sorted(path.name for path in Path(folder).glob("*.parquet"))
