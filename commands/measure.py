"""compressed, examples or tokens datasets -> what their ids are like"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from corpusmill.commands.arguments import make_parser, parse_known, reading
from corpusmill.compress.datasets.id_statistics import EDITS, SEGMENT_BITS, TextsOfIds
from corpusmill.compress.datasets.measures import Measures, measure
from corpusmill.corpus.datasets import ID_KINDS, Manifest, read_manifest
from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.options import positive_integer
from corpusmill.corpus.outputs import check_output_file, write_output_file
from corpusmill.corpus.progress import shown_stages
from corpusmill.report.names import short_names

_MIB = 1 << 20
_DIVERGENCES_PRINTED = (1, 2, 4, 8, 12, 16)
_IDS_PRINTED = 4


def tables(measured: Mapping[str, Measures]) -> Iterator[str]:
    """Lines that show datasets side by side, by name."""
    yield from _table(
        "Compression; bits per byte of text to a uniform and to a unigram model",
        ("", "text", "vocabulary", "ids", "bytes per id", "bits per bit", "uniform", "unigram"),
        [
            (
                name,
                f"{each.text_bytes:,} B",
                f"{each.vocabulary_size:,}",
                f"{each.ids:,}",
                *map(
                    _decimals,
                    (
                        each.bytes_per_id,
                        each.bit_compression,
                        each.uniform_bits_per_byte,
                        each.unigram_bits_per_byte,
                    ),
                ),
            )
            for name, each in measured.items()
        ],
    )
    yield from _table(
        "Divergence of pieces of n bits from uniform, in bits",
        ("n =", *map(str, _DIVERGENCES_PRINTED)),
        [
            (
                name,
                *(
                    _decimals(each.divergences[SEGMENT_BITS.index(bits)], 4)
                    for bits in _DIVERGENCES_PRINTED
                ),
            )
            for name, each in measured.items()
        ],
    )
    stable = {name: each.sample.stability for name, each in measured.items()}
    yield from _table(
        "Ids until they agree again after an edit (median), and share of ids that agree",
        ("", *EDITS),
        [
            (
                name,
                *(
                    f"{_decimals(edit.ids_until, 0) or 'never'}  {edit.agreeing:.1%}"
                    for edit in each.edits.values()
                ),
            )
            for name, each in stable.items()
            if each is not None
        ],
    )
    for name, each in measured.items():
        sample = each.sample
        if sample.texts is not None:
            yield from _texts_table(f"{name}: texts of the most frequent ids", sample.texts)
        if sample.window_texts is not None:
            title = f"{name}: texts of the most frequent rows of {sample.window_ids} ids"
            yield from _texts_table(title, sample.window_texts)


def _texts_table(title: str, texts: Sequence[TextsOfIds]) -> Iterator[str]:
    yield from _table(
        title,
        ("id", "of all", "texts", "the most frequent ones"),
        [
            (
                " ".join(map(str, each.ids)),
                f"{each.share:.2%}",
                f"{each.different:,}",
                ", ".join(f"{text!r} {share:.1%}" for text, share in each.most_frequent),
            )
            for each in texts[:_IDS_PRINTED]
        ],
        left=(0, 3),
    )


def _table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)
) -> Iterator[str]:
    """A title and columns, those but `left` ones to the right; nothing where there are no rows."""
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    yield f"\n{title}"
    for row in (header, *rows):
        cells = (
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def _decimals(value: float | None, places: int = 3) -> str:
    return "" if value is None else f"{value:.{places}f}"


def main(argv: Sequence[str]) -> None:
    """`corpusmill measure`"""
    parser = make_parser(
        "measure",
        "Shows what the ids of datasets are like: compression, bits per byte, divergence from"
        " uniform bits, stability when text is edited, and what ids stand for. The datasets are of"
        " any codecs or tokenizers, and best of the same text.",
        "corpusmill measure codebook bytes gzip tokens --output measures.json",
    )
    add = parser.add_argument
    add("folders", metavar="DIR", nargs="+", help=f"folder or URL of a {_kinds()} dataset")
    add("--output", metavar="FILE", help="file or URL for the measures as JSON, for report")
    add(
        "--sample-mib",
        type=reading(positive_integer),
        default=4,
        metavar="MIB",
        help="text of a dataset on which lengths, texts of ids and stability are measured",
    )
    arguments, _ = parse_known(parser, argv)
    folders = list(dict.fromkeys(folder.rstrip("/") for folder in arguments.folders))
    manifests = {folder: _manifest(folder) for folder in folders}
    if arguments.output is not None:
        check_output_file(arguments.output)
    with shown_stages("B") as progress:
        measured = [
            measure(folder, manifest, arguments.sample_mib * _MIB, progress)
            for folder, manifest in manifests.items()
        ]
    names = short_names(folders)
    print("\n".join(tables(dict(zip(names, measured, strict=True)))).lstrip())
    if arguments.output is not None:
        fields: dict[str, Any] = {"measures": [dataclasses.asdict(each) for each in measured]}
        text = json.dumps(fields, indent=1, ensure_ascii=False) + "\n"
        write_output_file(arguments.output, text.encode())


def _manifest(folder: str) -> Manifest:
    manifest = read_manifest(folder)
    if manifest.kind not in ID_KINDS:
        raise UsageError(f"{folder} is a {manifest.kind} dataset; measure takes {_kinds()}")
    return manifest


def _kinds() -> str:
    return f"{', '.join(ID_KINDS[:-1])} or {ID_KINDS[-1]}"
