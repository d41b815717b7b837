"""A model of 3 million parameters teaches one of 500 thousand, through a targets dataset.

python examples/distil.py data/tokens data/held-out runs
"""

import sys
from pathlib import Path

from corpusmill.corpus.training_runs import read_metrics
from corpusmill.trainer import DataOptions, Loader, TokenDataset, model_distributions, write_targets
from corpusmill.trainer.opening import open_model
from corpusmill.trainer.options import TrainOptions
from corpusmill.trainer.train import train

BATCH, LENGTH = 8, 128
HEAD, TAIL_DRAWS = 16, 4


def distil(
    tokens: str, held_out: str, folder: str, teacher_steps: int = 200, steps: int = 200
) -> dict[str, list[float]]:
    """Returns the losses on held-out tokens, of each evaluation, by what was learnt."""
    usual = {"batch_size": BATCH, "length": LENGTH, "learning_rate": 3e-3, "validate": held_out}
    usual |= {"validate_tokens": 1 << 14, "validate_every": max(1, steps // 4)}
    places = {name: str(Path(folder, name)) for name in ("teacher", "targets", "one-hot", "taught")}
    train(TrainOptions(tokens, places["teacher"], teacher_steps, size="3m", **usual))

    teacher = open_model(places["teacher"])
    batches = Loader(TokenDataset(tokens, DataOptions(BATCH, LENGTH, shuffle=False), epochs=1))
    write_targets(
        tokens,
        places["targets"],
        model_distributions(teacher.model, batches, HEAD, TAIL_DRAWS),
        head=HEAD,
        tail_draws=TAIL_DRAWS,
        made_of={"teacher": teacher.checkpoint},
    )
    student = {"size": "500k", **usual}
    train(TrainOptions(tokens, places["one-hot"], steps, **student))
    learnt = {"objective": "compact", "targets": places["targets"]}
    train(TrainOptions(tokens, places["taught"], steps, **learnt, **student))
    return {name: _losses(places[name]) for name in ("teacher", "one-hot", "taught")}


def _losses(run: str) -> list[float]:
    lines = read_metrics(run)
    return [line["validation_loss"] for line in lines if "validation_loss" in line]


if __name__ == "__main__":
    for name, losses in distil(*sys.argv[1:]).items():
        print(f"{name:<10}", *(f"{loss:8.4f}" for loss in losses))
