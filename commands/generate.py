"""`corpusmill generate`: what a model says."""

import sys
from collections.abc import Sequence

from corpusmill.commands.arguments import integer, make_parser, parse_known, positive
from corpusmill.commands.learning_options import MODEL, set_defaults
from corpusmill.trainer.options import DEVICES, GenerateOptions


def main(argv: Sequence[str]) -> None:
    """`corpusmill generate`"""
    parser = make_parser(
        "generate",
        "Goes on with a prompt, or begins a text, and prints it as it comes; for models of tokens"
        " and of compressed text.",
        'corpusmill generate --model run --prompt "The river" --top-p 0.9',
    )
    set_defaults(parser, GenerateOptions)
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help=MODEL)
    add("--prompt", metavar="TEXT", help="what the text begins with; default: nothing")
    add("--tokens", type=positive, metavar="N", help="most ids to go on with")
    add("--number", type=positive, metavar="N", help="texts")
    add("--temperature", type=float, metavar="T", help="of the choice; 0: the most likely id")
    add("--top-p", type=float, metavar="SHARE", help="of the probability that is drawn from")
    add("--seed", type=integer, metavar="N", help="of the draws")
    add("--device", choices=DEVICES, help="auto: a GPU, if there is one")
    options = GenerateOptions(**vars(parse_known(parser, argv)[0]))
    # Not before: torch takes seconds.
    from corpusmill.trainer.generate import generate

    for piece in generate(options):
        sys.stdout.write(piece)
        sys.stdout.flush()
