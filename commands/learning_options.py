"""Options that several commands of the trainer have."""

import argparse
import dataclasses
from typing import Any

from corpusmill.commands.arguments import integer, positive
from corpusmill.trainer.model_config import SIZES
from corpusmill.trainer.options import DEVICES, OPTIMIZERS, PARALLEL, PRECISIONS, SCHEDULES

DATASETS = "folder or URL of a tokens, compressed or examples dataset"
MODEL = "folder or URL of a run or a checkpoint"


def set_defaults(parser: argparse.ArgumentParser, options: type[Any]) -> None:
    """Gives options the defaults of the fields of a dataclass."""
    fields = dataclasses.fields(options)
    parser.set_defaults(
        **{each.name: each.default for each in fields if each.default is not dataclasses.MISSING}
    )


def add_learning_arguments(group: argparse._ArgumentGroup) -> None:
    """Options of `TrainOptions` that say how any model learns."""
    add = group.add_argument
    add("--model", choices=SIZES, help="parameters without the embedding (default: 3m)")
    add("--width", type=positive, metavar="N", help="of hidden states, instead of the size's")
    add("--heads", type=positive, metavar="N", help="of a layer, which share the width; likewise")
    add("--layers", type=positive, metavar="N", help="likewise")
    add("--mlp-width", type=positive, metavar="N", help="of the MLP's inner states; likewise")
    add("--batch-size", type=integer, metavar="N", help="sequences in a micro-batch")
    add("--accumulate", type=integer, metavar="N", help="micro-batches of each process in a step")
    add("--seed", type=integer, metavar="N", help="of the first parameters and the data's order")
    add("--steps", type=integer, required=True, metavar="N", help="optimizer steps in all")
    add("--optimizer", choices=OPTIMIZERS, help="what turns gradients into steps")
    add("--learning-rate", type=float, metavar="RATE", help="the highest one")
    add("--schedule", choices=SCHEDULES, help="of the learning rate after the warm-up")
    add(
        "--warmup",
        type=integer,
        metavar="N",
        help="steps in which the learning rate rises (default: a tenth of all, 1000 at most)",
    )
    add("--weight-decay", type=float, metavar="D", help="of matrices (default: 0.1; adafactor: 0)")
    add("--betas", type=float, nargs=2, metavar="B", help="of adamw (default: 0.9 0.95)")
    add("--z-loss", type=float, metavar="WEIGHT", help="of the squared log partition function")
    add("--clip", type=float, metavar="NORM", help="longest gradient; 0: no limit")
    add("--precision", choices=PRECISIONS, help="of matrices; auto: bfloat16 on GPUs that can")
    add("--compile", action="store_true", help="has PyTorch compile the layers")


def add_run_arguments(group: argparse._ArgumentGroup) -> None:
    """Options of `TrainOptions` that decide nothing but how a run goes."""
    add = group.add_argument
    add("--validate-every", type=integer, metavar="N", help="steps between two evaluations")
    add("--checkpoint-every", type=integer, metavar="N", help="steps between two checkpoints")
    add("--keep", type=integer, metavar="N", help="checkpoints that are kept")
    add("--device", choices=DEVICES, help="auto: a GPU, if there is one")
    add("--parallel", choices=PARALLEL, help="how processes of torchrun share the work")
