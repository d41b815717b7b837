"""One HTML page about datasets, training runs and what was measured of them."""

from collections.abc import Sequence

from corpusmill.commands.arguments import make_parser, parse_known
from corpusmill.corpus import storage
from corpusmill.corpus.datasets import INCOMPLETE, MANIFEST, read_manifest
from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.outputs import check_output_file, write_output_file
from corpusmill.corpus.training_runs import METRICS
from corpusmill.report import curves, numbers
from corpusmill.report.names import short_names


def main(argv: Sequence[str]) -> None:
    """`corpusmill report`"""
    parser = make_parser(
        "report",
        "Makes one HTML page about datasets and training runs: n-grams by order, frequencies, mass"
        " of heads and tails, storage, training curves, results of measure and evaluate.",
        "corpusmill report tokens counts distributions runs/one runs/two --output report.html",
    )
    parser.add_argument(
        "places",
        metavar="DIR|FILE",
        nargs="+",
        help="folder or URL of a dataset or a training run, or a file that measure or evaluate"
        " wrote with --output",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="file or URL of the page")
    arguments, _ = parse_known(parser, argv)
    check_output_file(arguments.output)
    write_output_file(arguments.output, make_report(arguments.places).encode())


def make_report(places: Sequence[str]) -> str:
    """The page as the text of an HTML file; the same places give the same page.

    Args:
      places: folders of datasets of any kind and of training runs, and files that `measure` or
        `evaluate` wrote; one named twice is shown once.

    Raises:
      UsageError: one is neither of these, or a dataset that can't be shown.
      DataError: a file is damaged or missing.
    """
    # Drawing takes a second to import, and is an extra that may not be installed.
    from corpusmill.report import findings, page, sections

    places = list(dict.fromkeys(place.rstrip("/") for place in places))
    names = dict(zip(places, short_names(places), strict=True))
    kinds = {place: _kind(place) for place in places}
    datasets = [
        numbers.Dataset(names[place], place, read_manifest(place))
        for place, kind in kinds.items()
        if kind == "dataset"
    ]
    runs = {names[place]: curves.read_run(place) for place in places if kinds[place] == "run"}
    found = [
        findings.read_findings(names[place], place) for place in places if kinds[place] == "file"
    ]
    readers = {
        "tokens": lambda each: sections.of_tokens(each, numbers.read_document_lengths(each)),
        "counts": lambda each: sections.of_counts(each, numbers.read_counts_by_order(each)),
        "distributions": lambda each: sections.of_distributions(
            each, numbers.read_distributions_by_order(each)
        ),
        "targets": lambda each: sections.of_targets(each, numbers.read_targets(each)),
        "compressed": lambda each: sections.of_tokens(each, numbers.read_document_lengths(each)),
        "examples": lambda each: sections.of_tokens(each, numbers.read_document_lengths(each)),
    }
    for each in datasets:
        kind = each.manifest.kind
        if kind not in readers:
            raise UsageError(
                f"{each.folder} is a {kind} dataset; report shows {', '.join(readers)}"
            )
        if not each.tokens:
            raise UsageError(f"{each.folder} has no tokens, so there is nothing to show")
    parts = [sections.overview(datasets)] if datasets else []
    parts += [readers[each.manifest.kind](each) for each in datasets]
    parts += list(findings.sections(found))
    parts += [sections.of_runs(runs)] if runs else []
    columns = [numbers.read_column_bytes(each) for each in datasets]
    parts += [sections.details(datasets, columns, runs)] if datasets or runs else []
    return page.render("corpusmill report", parts)


def _kind(place: str) -> str:
    """`run`, `dataset` (perhaps one in the making) or `file`."""
    if storage.exists(storage.join(place, METRICS)):
        return "run"
    if any(storage.exists(storage.join(place, name)) for name in (MANIFEST, INCOMPLETE)):
        return "dataset"
    if storage.exists(place) and not storage.is_folder(place):
        return "file"
    raise UsageError(
        f"{place} is neither a dataset nor a training run nor a file of measures: it has no"
        f" {MANIFEST} and no {METRICS}"
    )
