"""`corpusmill train-m1`: a transformer byte model from text, made exact at the end."""

from collections.abc import Sequence

from corpusmill.commands.arguments import (
    add_folder,
    add_options,
    make_parser,
    parse_known,
    parsed,
    reading,
)
from corpusmill.commands.learning_options import LEARNING, RUNNING
from corpusmill.corpus.options import integer
from corpusmill.trainer.options import M1Options, TrainOptions

_LENGTHS = {"anywhere": 64, "documents": 256}


def main(argv: Sequence[str]) -> None:
    """`corpusmill train-m1`"""
    parser = make_parser(
        "train-m1",
        "Trains a transformer that predicts bytes, M1, and saves it as a byte model in exact"
        " integer arithmetic. Run again, it goes on from the last checkpoint.",
        "corpusmill train-m1 --tokens byte-tokens --output m1 --steps 2000",
    )
    data = parser.add_argument_group("data")
    add_folder(data, "--tokens", "a tokens dataset of bytes", required=False)
    add_options(data, M1Options)
    add_options(data, TrainOptions, "validate", "output")
    data.add_argument(
        "--length",
        type=reading(integer),
        metavar="N",
        help="bytes of a run, and the longest context (default: 64; 256 with --starts documents)",
    )
    learning = parser.add_argument_group("what is learnt, and how")
    # Short runs are learnt in short runs.
    add_options(learning, TrainOptions, *LEARNING, batch_size=64)
    running = parser.add_argument_group("running; may change when a run goes on")
    add_options(running, TrainOptions, *RUNNING)
    arguments = parse_known(parser, argv)[0]
    length = _LENGTHS[arguments.starts] if arguments.length is None else arguments.length
    training = parsed(TrainOptions, arguments, tokens=arguments.tokens or "", length=length)
    inputs = tuple(arguments.input)
    options = parsed(M1Options, arguments, training=training, input=inputs)
    # Not before: torch takes seconds.
    from corpusmill.trainer.train_m1 import train_m1

    train_m1(options)
