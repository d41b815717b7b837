"""One HTML page about datasets and training runs."""

import importlib.util
from collections.abc import Sequence

from corpus import storage
from corpus.arguments import make_parser, parse_known
from corpus.datasets import INCOMPLETE, MANIFEST, read_manifest
from corpus.errors import UsageError
from pipelines.reports import curves, numbers


def main(argv: Sequence[str]) -> None:
    """`corpusmill report`"""
    parser = make_parser(
        "report",
        "Makes one HTML page about datasets and training runs: n-grams by order, frequencies, mass"
        " of heads and tails, storage, training curves, manifests.",
        "corpusmill report tokens counts distributions runs/one runs/two --output report.html",
    )
    parser.add_argument(
        "folders", metavar="DIR", nargs="+", help="folder or URL of a dataset or a training run"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="file or URL of the page")
    arguments, _ = parse_known(parser, argv)
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "report draws with matplotlib, which is not installed: pip install 'corpusmill[report]'"
        )
    if storage.list_names(arguments.output):
        raise UsageError(f"--output {arguments.output} is a folder; name a file, such as a.html")
    page = make_report(arguments.folders)
    try:
        storage.write_bytes(arguments.output, page.encode())
    except OSError as error:
        raise UsageError(f"cannot write to --output {arguments.output}: {error}") from error
    print(f"wrote {arguments.output}")


def make_report(folders: Sequence[str]) -> str:
    """The page as the text of an HTML file; the same folders give the same page.

    Args:
      folders: of datasets of any kind and of training runs; one named twice is shown once.

    Raises:
      UsageError: a folder is neither a training run nor a dataset that can be shown.
      DataError: a file in one of them is damaged or missing.
    """
    # Drawing takes a second to import, and is an extra that may not be installed.
    from pipelines.reports import page, sections

    places = list(dict.fromkeys(folder.rstrip("/") for folder in folders))
    names = dict(zip(places, short_names(places), strict=True))
    is_run = {folder: _is_run(folder) for folder in places}
    datasets = [
        numbers.Dataset(names[folder], folder, read_manifest(folder))
        for folder in places
        if not is_run[folder]
    ]
    runs = {names[folder]: curves.read_run(folder) for folder in places if is_run[folder]}
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
    parts = [sections.overview(datasets)] if datasets else []
    parts += [readers[each.manifest.kind](each) for each in datasets]
    parts += [sections.of_runs(runs)] if runs else []
    columns = [numbers.read_column_bytes(each) for each in datasets]
    parts.append(sections.details(datasets, columns, runs))
    return page.render("corpusmill report", parts)


def short_names(folders: Sequence[str]) -> list[str]:
    """The folders' last names, with as many names before them as tell all apart.

    >>> short_names(["data/wiki/counts", "data/web/counts"])
    ['wiki/counts', 'web/counts']
    """
    paths = [folder.split("/") for folder in folders]
    for length in range(1, max(map(len, paths), default=0)):
        names = ["/".join(path[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return list(folders)


def _is_run(folder: str) -> bool:
    """Whether a folder is a training run; else it's a dataset, or one in the making."""
    if storage.exists(storage.join(folder, curves.METRICS)):
        return True
    if not any(storage.exists(storage.join(folder, name)) for name in (MANIFEST, INCOMPLETE)):
        raise UsageError(
            f"{folder} is neither a dataset nor a training run: it has no {MANIFEST} and no"
            f" {curves.METRICS}"
        )
    return False
