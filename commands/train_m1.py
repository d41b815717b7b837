"""`corpusmill train-m1`: a transformer byte model from text, made exact at the end."""

from collections.abc import Sequence
from typing import Any

from corpusmill.commands.arguments import integer, make_parser, parse_known
from corpusmill.commands.learning_options import (
    add_learning_arguments,
    add_run_arguments,
    set_defaults,
)
from corpusmill.trainer.options import STARTS, M1Options, TrainOptions

_LENGTHS = {"anywhere": 64, "documents": 256}


def main(argv: Sequence[str]) -> None:
    """`corpusmill train-m1`"""
    parser = make_parser(
        "train-m1",
        "Trains a transformer that predicts bytes, M1, and saves it as a byte model in exact"
        " integer arithmetic. Run again, it goes on from the last checkpoint.",
        "corpusmill train-m1 --tokens byte-tokens --output m1 --steps 2000",
    )
    set_defaults(parser, TrainOptions)
    # Short runs are learnt in short runs.
    parser.set_defaults(tokens="", input=[], length=None, batch_size=64)
    data = parser.add_argument_group("data").add_argument
    data("--tokens", metavar="DIR", help="folder or URL of a tokens dataset of bytes")
    data(
        "--input",
        action="append",
        metavar="GLOB",
        help="documents instead, as tokenize reads them; may be repeated",
    )
    data("--validate", metavar="DIR", help="tokens dataset of bytes to evaluate on")
    data("--output", required=True, metavar="DIR", help="folder or URL of the run and the model")
    data(
        "--starts",
        choices=STARTS,
        default="anywhere",
        help="where the runs that are learnt start: anywhere, as windows do, or where they do in"
        " documents that are coded as a whole",
    )
    data(
        "--length",
        type=integer,
        metavar="N",
        help="bytes of a run, and the longest context (default: 64; 256 with --starts documents)",
    )
    add_learning_arguments(parser.add_argument_group("what is learnt, and how"))
    add_run_arguments(parser.add_argument_group("running; may change when a run goes on"))
    given: dict[str, Any] = vars(parse_known(parser, argv)[0])
    inputs, starts = tuple(given.pop("input")), given.pop("starts")
    length = given.pop("length")
    training = TrainOptions(**given, length=_LENGTHS[starts] if length is None else length)
    options = M1Options(training, inputs, starts)
    # Not before: torch takes seconds.
    from corpusmill.trainer.train_m1 import train_m1

    train_m1(options)
