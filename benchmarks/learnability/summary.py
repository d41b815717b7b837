"""Bits per byte against text, computing and bytes a sequence, beside models that learn nothing."""

import json
import math
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt

from benchmarks.convergence.summary import LOOKS
from benchmarks.learnability.prepare import HELD_OUT, TRAIN, data
from benchmarks.learnability.rows import Row
from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.tokens import read_row_groups, text_bytes
from corpusmill.corpus.training_runs import read_config, read_metrics

EVALUATION = "evaluation.json"

# A run that saw this much of what was asked for counts as there: epochs end with short batches.
_NEARLY = 0.95
_COLUMNS = (
    "row",
    "seeds",
    "bytes an id",
    "uniform",
    "unigram",
    "bits per byte at {megabytes:.3g} MB of text",
    "spread",
    "at {teraflops:g} TFLOPs",
    "at the end",
    "epochs",
    "accuracy",
    "bytes a sequence",
    "kFLOPs a byte",
    "minutes",
)

Floats = npt.NDArray[np.float64]


def training_flops(flops_per_token: int) -> int:
    """Of a token in training: the backward pass takes twice the forward pass."""
    return 3 * flops_per_token


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
      tokens: predicted until each validation, of shape [validations].
      bits: per byte, of the same shape.
      seconds: that the run took.
      evaluation: what `evaluate` wrote.
      length: ids of a sequence.
    """

    tokens: Floats
    bits: Floats
    seconds: float
    evaluation: dict[str, float]
    length: int

    @classmethod
    def read(cls, folder: pathlib.Path) -> "Run":
        lines = [line for line in read_metrics(str(folder)) if "validation_loss" in line]
        return cls(
            np.array([line["tokens"] for line in lines]),
            np.array([line["validation_bits_per_byte"] for line in lines]),
            lines[-1]["seconds"],
            json.loads((folder / EVALUATION).read_bytes()),
            read_config(str(folder)).options["length"],
        )


@dataclass(frozen=True)
class Result:
    """What is known of a row.

    Attributes:
      row: the row.
      runs: of it, one a seed.
      tokens: ids of the text that is learnt.
      text_bytes: of that text.
      uniform: bits per byte on held-out text of a model for which all ids are equally likely.
      unigram: of one that knows how often each id is in the text that is learnt, plus one.
    """

    row: Row
    runs: Sequence[Run]
    tokens: int
    text_bytes: int
    uniform: float
    unigram: float

    @classmethod
    def of(cls, folder: pathlib.Path, row: Row, runs: Sequence[Run]) -> "Result":
        train, held_out = (data(folder, row, part) for part in (TRAIN, HELD_OUT))
        vocabulary = read_manifest(str(train)).tokenizer["vocabulary_size"]
        seen, expected = (_frequencies(place, vocabulary) for place in (train, held_out))
        shares = (seen + 1) / (seen + 1).sum()
        held_out_bytes = _text_bytes(held_out)
        return cls(
            row,
            runs,
            int(seen.sum()),
            _text_bytes(train),
            float(expected.sum()) * math.log2(vocabulary) / held_out_bytes,
            float(-(expected * np.log2(shares)).sum() / held_out_bytes),
        )

    @property
    def bytes_per_id(self) -> float:
        return self.text_bytes / self.tokens

    @property
    def flops(self) -> float:
        """Of training on an id."""
        evaluation = self.runs[0].evaluation
        return training_flops(evaluation["flops_per_byte"] * evaluation["bytes_per_token"])

    @property
    def bits(self) -> Floats:
        """Per byte, of each validation: a mean over seeds."""
        return np.mean([run.bits for run in self.runs], axis=0)

    def bits_at(self, tokens: float) -> Floats:
        """Bits per byte of each run after so many ids, between validations; NaN beyond the end."""
        last = self.runs[0].tokens[-1]
        if last < _NEARLY * tokens:
            return np.full(len(self.runs), np.nan)
        return np.array([np.interp(tokens, run.tokens, run.bits) for run in self.runs])


def _frequencies(folder: pathlib.Path, vocabulary: int) -> npt.NDArray[np.int64]:
    """How often each id is in a dataset."""
    found = np.zeros(vocabulary, np.int64)
    for file in read_manifest(str(folder)).data_files:
        for ids in read_row_groups(str(folder / file.name)):
            found += np.bincount(ids, minlength=vocabulary)
    return found


def _text_bytes(folder: pathlib.Path) -> int:
    return text_bytes(str(folder), read_manifest(str(folder)))


def table(results: Sequence[Result], flops: float) -> list[str]:
    """In Markdown, a line a row; means over seeds.

    Args:
      results: the rows.
      flops: at which rows are compared.
    """
    megabytes = max(result.text_bytes for result in results) / 1e6
    names = [name.format(megabytes=megabytes, teraflops=flops / 1e12) for name in _COLUMNS]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for result in results:
        first, text = result.runs[0], result.bits_at(result.tokens)
        cells = [
            result.row.name,
            len(result.runs),
            f"{result.bytes_per_id:.3f}",
            f"{result.uniform:.3f}",
            f"{result.unigram:.3f}",
            f"{text.mean():.4f}",
            f"{np.ptp(text):.4f}",
            f"{result.bits_at(flops / result.flops).mean():.4f}",
            f"{result.bits[-1]:.4f}",
            f"{first.tokens[-1] / result.tokens:.2f}",
            f"{np.mean([run.evaluation['accuracy'] for run in result.runs]):.3f}",
            f"{result.bytes_per_id * first.length:.0f}",
            f"{first.evaluation['flops_per_byte'] / 1000:.0f}",
            f"{np.mean([run.seconds for run in result.runs]) / 60:.1f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def plot(results: Sequence[Result], report: pathlib.Path) -> None:
    """Bits per byte against text seen, against computing, and at the end against bytes a step."""
    curves = {
        "text": ("bytes of text seen", lambda result: result.bytes_per_id),
        "flops": ("FLOPs of training", lambda result: result.flops),
    }
    for name, (label, of_a_token) in curves.items():
        axes = _axes(label)
        for result in results:
            x = result.runs[0].tokens * of_a_token(result)
            axes.plot(x, result.bits, label=result.row.name)
        _save(axes, report / f"learnability-{name}.png")
    axes = _axes("bytes of text in a sequence")
    for result in results:
        x = result.bytes_per_id * result.runs[0].length
        axes.plot([x], [result.bits[-1]], marker="o", linestyle="none", label=result.row.name)
    _save(axes, report / "learnability-sequence.png")


def _axes(label: str) -> plt.Axes:
    _, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    axes.set_prop_cycle(LOOKS)
    axes.set(xlabel=label, ylabel="bits per byte, held-out text", xscale="log")
    return axes


def _save(axes: plt.Axes, path: pathlib.Path) -> None:
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes.figure.savefig(path, dpi=120)
    plt.close(axes.figure)
