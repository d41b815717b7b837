"""`corpusmill evaluate`: how well a model predicts a dataset of tokens."""

from collections.abc import Sequence

from corpusmill.commands.arguments import integer, make_parser, parse_known, positive
from corpusmill.commands.learning_options import DATASETS, MODEL, set_defaults
from corpusmill.trainer.options import DEVICES, PRECISIONS, EvaluateOptions


def main(argv: Sequence[str]) -> None:
    """`corpusmill evaluate`"""
    parser = make_parser(
        "evaluate",
        "Shows how well a trained model predicts tokens, or compressed text: loss in nats a token,"
        " perplexity, bits per byte, accuracy.",
        "corpusmill evaluate --model run --tokens held-out-tokens",
    )
    set_defaults(parser, EvaluateOptions)
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help=MODEL)
    add("--tokens", required=True, metavar="DIR", help=DATASETS)
    add("--output", metavar="FILE", help="file or URL for the results as JSON")
    add("--batch-size", type=positive, metavar="N", help="sequences at once")
    add("--length", type=positive, metavar="N", help="tokens of a sequence; default: the run's")
    add(
        "--stride",
        type=positive,
        metavar="N",
        help="tokens from one sequence to the next; they overlap, and only what is new is"
        " predicted (default: the length)",
    )
    add("--workers", type=integer, metavar="N", help="processes that read; 0: this one")
    add("--precision", choices=PRECISIONS, help="auto: bfloat16 on GPUs that can")
    add("--device", choices=DEVICES, help="auto: a GPU, if there is one")
    options = EvaluateOptions(**vars(parse_known(parser, argv)[0]))
    # Not before: torch takes seconds.
    from corpusmill.trainer.evaluate import evaluate_model

    evaluate_model(options)
