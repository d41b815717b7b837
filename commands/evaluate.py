"""`corpusmill evaluate`: how well a model predicts a dataset of tokens."""

from collections.abc import Sequence

from corpusmill.commands.arguments import add_options, make_parser, parse_known, parsed
from corpusmill.trainer.options import EvaluateOptions


def main(argv: Sequence[str]) -> None:
    """`corpusmill evaluate`"""
    parser = make_parser(
        "evaluate",
        "Shows how well a trained model predicts tokens, or compressed text: loss in nats a token,"
        " perplexity, bits per byte, accuracy.",
        "corpusmill evaluate --run run --tokens held-out-tokens",
    )
    add_options(parser, EvaluateOptions)
    options = parsed(EvaluateOptions, parse_known(parser, argv)[0])
    # Not before: torch takes seconds.
    from corpusmill.trainer.evaluate import evaluate_model

    evaluate_model(options)
