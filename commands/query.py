"""Shows what follows a context, in a distributions dataset."""

import shutil
import sys
from collections.abc import Sequence

from corpusmill.commands.arguments import make_parser, parse_known
from corpusmill.corpus import storage
from corpusmill.corpus.datasets import TOKENIZER_FOLDER
from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.tokenizers import Tokenizer, load_tokenizer
from corpusmill.ngram_agg import Distribution, Distributions, open_distributions


def main(argv: Sequence[str]) -> None:
    """`corpusmill query`"""
    parser = make_parser(
        "query",
        "Shows the next-token distribution of the longest end of a context that was seen.",
        'corpusmill query distributions "the United"',
    )
    parser.add_argument("dataset", metavar="DIR", help="folder or URL of a distributions dataset")
    parser.add_argument("context", nargs="?", help="text; '' for the empty context")
    parser.add_argument("--ids", metavar="IDS", help="the context as token ids, such as 464,1578")
    arguments, _ = parse_known(parser, argv)
    if (arguments.context is None) == (arguments.ids is None):
        raise UsageError("give a context as text or as --ids, one of the two")
    dataset = open_distributions(arguments.dataset)
    tokenizer = load_tokenizer(storage.join(arguments.dataset, TOKENIZER_FOLDER))
    if arguments.ids is None:
        context = tokenizer.encode(arguments.context).tolist()
    else:
        context = _parse_ids(arguments.ids, tokenizer.vocab_size)
    for line in show(dataset, tokenizer, context):
        print(line)


def show(dataset: Distributions, tokenizer: Tokenizer, context: Sequence[int]) -> list[str]:
    """Lines that show each context tried, from the longest on, and what follows the first found."""
    lines = []
    for order in range(min(len(context), dataset.max_order), -1, -1):
        tried = tuple(context[len(context) - order :])
        found = dataset.find(tried)
        seen = (
            f"seen {found.total:,} times" if found else f"seen fewer than {dataset.min_count} times"
        )
        shown = " ".join(tokenizer.quoted(token) for token in tried) or "(empty context)"
        lines.append(f"order {order}  {shown:<40} {seen}")
        if found:
            return [*lines, "", *_bars(found, tokenizer)]
    return [*lines, "", "nothing to show: no end of this context was kept"]


def _bars(found: Distribution, tokenizer: Tokenizer) -> list[str]:
    rows = [
        (tokenizer.quoted(token), str(token), count)
        for token, count in zip(found.next_tokens.tolist(), found.next_counts.tolist(), strict=True)
    ]
    if found.tail_count:
        rows.append((f"({found.tail_distinct:,} more)", "", found.tail_count))
    width = max(len("next token"), *(len(label) for label, _, _ in rows))
    bar_width = max(8, shutil.get_terminal_size().columns - width - 35)
    lines = [f"{'next token':<{width}} {'id':>7} {'count':>12} {'share':>8}"]
    for label, token, count in rows:
        share = count / found.total
        bar = _bar(share, bar_width)
        lines.append(f"{label:<{width}} {token:>7} {count:>12,} {share:>8.3%}  {bar}".rstrip())
    return lines


def _bar(share: float, width: int) -> str:
    eighths = round(share * width * 8)
    full, part = divmod(eighths, 8)
    bar = "█" * full + " ▏▎▍▌▋▊▉"[part]
    encoding = sys.stdout.encoding or "ascii"
    try:
        bar.encode(encoding)
    except UnicodeEncodeError:
        return "#" * round(share * width)
    return bar


def _parse_ids(text: str, vocabulary_size: int) -> list[int]:
    parts = [part for part in text.replace(",", " ").split() if part]
    if not all(part.isdecimal() and int(part) < vocabulary_size for part in parts):
        raise UsageError(
            f"--ids {text!r} is not a list of token ids from 0 to {vocabulary_size - 1}"
        )
    return [int(part) for part in parts]
