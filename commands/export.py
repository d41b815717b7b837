"""`corpusmill export`: models and codebooks for Hugging Face's libraries."""

from collections.abc import Sequence

from corpusmill.commands.arguments import make_parser, parse_known


def main(argv: Sequence[str]) -> None:
    """`corpusmill export`"""
    parser = make_parser(
        "export",
        "Writes a trained model as a folder that AutoModelForCausalLM opens, with the tokenizer of"
        " its ids; or a codebook as a tokenizer that AutoTokenizer opens.",
        "corpusmill export run --output model",
    )
    add = parser.add_argument
    add("source", metavar="RUN", help="folder or URL of a run or a checkpoint; or a codebook")
    add("--output", required=True, metavar="DIR", help="a new folder, or URL")
    arguments = parse_known(parser, argv)[0]
    # Not before: reading codebooks needs numba, and models need torch, which takes seconds.
    from corpusmill.compress.codecs.codebook_export import export_codebook, is_codebook

    if is_codebook(arguments.source):
        print(export_codebook(arguments.source, arguments.output))
        return
    from corpusmill.trainer.export import export_model

    print(*export_model(arguments.source, arguments.output), sep="\n")
