"""How fast each kind of targets is loaded, and how much of it there is."""

import pathlib
import time
from collections.abc import Sequence

from benchmarks.convergence.rows import Row
from corpusmill.trainer.data import TokenDataset
from corpusmill.trainer.order import DataOptions

_OPTIONS = DataOptions(batch_size=16, length=256, seed=1)


def table(folder: pathlib.Path, rows: Sequence[Row]) -> list[str]:
    """In Markdown, a line for each kind of targets."""
    lines = [
        "Loading one epoch in the process that trains:",
        "",
        "| row | positions a second | next-token = 1 | tokens with weights a position |",
        "|---|---|---|---|",
    ]
    rates: list[float] = []
    for row in rows:
        # How the loss is mixed doesn't change what is loaded.
        if not row.train:
            rate, entries = measured(folder, row)
            rates.append(rate)
            lines.append(f"| {row.name} | {rate:,.0f} | {rate / rates[0]:.3g} | {entries:.1f} |")
    return lines


def measured(folder: pathlib.Path, row: Row) -> tuple[float, float]:
    """Positions a second, and tokens with weights a position."""
    targets, counts = row.sources(folder)
    dataset = TokenDataset(str(folder / "tokens"), _OPTIONS, targets, counts=counts, epochs=1)
    # What is compiled and built once.
    next(iter(dataset))
    started = time.perf_counter()
    positions = entries = 0
    for batch in dataset:
        positions += batch.tokens.numel()
        entries += 0 if batch.target_tokens is None else batch.target_tokens.numel()
    return positions / (time.perf_counter() - started), entries / positions
