"""Loss against steps and seconds, and the bytes that were read for a token."""

import pathlib
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler

from benchmarks.convergence.rows import Row
from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.training_runs import read_metrics

LOOKS = cycler(linestyle=["-", "--"]) * cycler(color=plt.get_cmap("tab10").colors)
Runs = Mapping[Row, Sequence[pathlib.Path]]
_COLUMNS = (
    "row",
    "seeds",
    "validation loss",
    "spread",
    "bits per byte",
    "steps to next-token's loss",
    "seconds to it",
    "seconds in all",
    "bytes a token",
)


def curve(run: pathlib.Path) -> np.ndarray:
    """Step, seconds, validation loss and bits per byte of each validation: [validations, 4]."""
    names = ("step", "seconds", "validation_loss", "validation_bits_per_byte")
    lines = [line for line in read_metrics(str(run)) if "validation_loss" in line]
    return np.array([[line[name] for name in names] for line in lines])


def table(folder: pathlib.Path, runs: Runs) -> list[str]:
    """In Markdown, a line a row; means over seeds."""
    curves = {row: np.mean([curve(run) for run in each], axis=0) for row, each in runs.items()}
    baseline = next((c[-1, 2] for row, c in curves.items() if row.name == "next-token"), np.nan)
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for row, mean in curves.items():
        last = [curve(run)[-1, 2] for run in runs[row]]
        there = np.flatnonzero(mean[:, 2] <= baseline)
        reached = mean[there[0]] if len(there) else None
        cells = [
            row.name,
            len(last),
            f"{mean[-1, 2]:.4f}",
            f"{np.ptp(last):.4f}",
            f"{mean[-1, 3]:.4f}",
            "never" if reached is None else f"{reached[0]:.0f}",
            "never" if reached is None else f"{reached[1]:.0f}",
            f"{mean[-1, 1]:.0f}",
            f"{_bytes_a_token(folder, row):.1f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _bytes_a_token(folder: pathlib.Path, row: Row) -> float:
    names = ["tokens", *([row.targets] if row.enrich else [])]
    manifests = [read_manifest(str(folder / name)) for name in names]
    size = sum(file.bytes for manifest in manifests for file in manifest.data_files)
    return size / manifests[0].properties["tokens"]


def plot(runs: Runs, report: pathlib.Path) -> None:
    """Validation loss against steps and against seconds."""
    for column, name in ((0, "steps"), (1, "seconds")):
        figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
        # No two of the rows have the same look.
        axes.set_prop_cycle(LOOKS)
        for row, each in runs.items():
            mean = np.mean([curve(run) for run in each], axis=0)
            axes.plot(mean[:, column], mean[:, 2], label=row.name)
        axes.set(xlabel=name, ylabel="validation loss, nats a token")
        axes.legend(frameon=False)
        figure.savefig(report / f"convergence-{name}.png", dpi=120)
        plt.close(figure)
