"""What `measure` and `evaluate` wrote, as sections of a report."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from corpusmill.compress.datasets.id_statistics import EDITS, LONGEST, SEGMENT_BITS, Recovery
from corpusmill.compress.datasets.measures import Measures
from corpusmill.corpus import storage
from corpusmill.corpus.errors import DataError, UsageError, one_line
from corpusmill.report import charts
from corpusmill.report.charts import Chart, Line, Scale, format_share
from corpusmill.report.names import short_names
from corpusmill.report.page import Section, Table

# Less than so many bits is noise.
_LEAST_DIVERGENCE = 1e-4
_IDS_SHOWN = 4
_TEXT_CHARACTERS = 24


@dataclass(frozen=True)
class EvaluationFound:
    """What `evaluate` found.

    Attributes:
      dataset: where the text was.
      checkpoint: where the model was.
      loss: in nats an id.
      bits_per_byte: of text.
      accuracy: share of ids that were the most probable one.
      accuracy_by_position: the same for the first, second, ... id of windows; None without any.
    """

    dataset: str
    checkpoint: str
    loss: float
    bits_per_byte: float
    accuracy: float
    accuracy_by_position: Sequence[float] | None


@dataclass(frozen=True)
class Findings:
    """What a file says.

    Attributes:
      measures: of datasets.
      evaluations: by name.
    """

    measures: Sequence[Measures] = ()
    evaluations: Mapping[str, EvaluationFound] = field(default_factory=dict)


def read_findings(name: str, url: str) -> Findings:
    """Reads a file that `measure` or `evaluate` wrote.

    Args:
      name: what to call it in the report.
      url: path or URL.

    Raises:
      UsageError: it is something else.
      DataError: it is damaged.
    """
    try:
        fields = json.loads(storage.read_bytes(url))
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{url} is no JSON that measure or evaluate wrote") from error
    try:
        if "measures" in fields:
            return Findings(measures=list(map(Measures.from_json, fields["measures"])))
        if "accuracy_by_position" in fields:
            wanted = {each: fields[each] for each in EvaluationFound.__dataclass_fields__}
            return Findings(evaluations={name: EvaluationFound(**wanted)})
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{url} is damaged: {one_line(error)}") from error
    raise UsageError(f"{url} is no JSON that measure or evaluate wrote")


def sections(findings: Sequence[Findings]) -> Iterator[Section]:
    """A section for all measures and one for all evaluations, where there are any."""
    measures = {each.dataset: each for found in findings for each in found.measures}
    names = short_names(list(measures))
    if measures:
        yield _of_measures(dict(zip(names, measures.values(), strict=True)))
    evaluations = {name: each for found in findings for name, each in found.evaluations.items()}
    if evaluations:
        yield _of_evaluations(evaluations)


def _of_measures(measures: Mapping[str, Measures]) -> Section:
    text = (
        "Bytes per id is the token compression ratio, bits per bit the bit compression ratio: bits"
        " of text for each bit of ids. Bits per byte of text are those of models to which all ids"
        " are equally probable, or as probable as they are frequent. After an edit of a document's"
        " front, ids are in step again from where all are what they were before."
    )
    tables = [_compression(measures), *_stability(measures), *_texts(measures)]
    drawn = [*_divergences(measures), *_curves(measures), _lengths(measures)]
    return Section("Ids", text, tables, drawn)


def _compression(measures: Mapping[str, Measures]) -> Table:
    header = (
        "dataset",
        "codec",
        "vocabulary",
        "ids",
        "bytes per id",
        "bits per bit",
        "bits per byte, uniform",
        "bits per byte, unigram",
    )
    rows = [
        (
            name,
            each.codec,
            f"{each.vocabulary_size:,}",
            f"{each.ids:,}",
            f"{each.bytes_per_id:.3f}",
            f"{each.bit_compression:.3f}",
            f"{each.uniform_bits_per_byte:.3f}",
            f"{each.unigram_bits_per_byte:.3f}",
        )
        for name, each in measures.items()
    ]
    return Table(header, rows)


def _stability(measures: Mapping[str, Measures]) -> Iterator[Table]:
    """What edits do."""
    rows = [
        (name, *(_recovery(stable.edits[edit]) for edit in EDITS))
        for name, each in measures.items()
        if (stable := each.sample.stability) is not None
    ]
    if rows:
        yield Table(("in step again, ids that agree", *EDITS), rows)


def _recovery(found: Recovery) -> str:
    until = "never" if found.ids_until is None else f"after {found.ids_until:g} ids"
    return f"{until}, {format_share(found.agreeing)}"


def _texts(measures: Mapping[str, Measures]) -> Iterator[Table]:
    """What the most frequent ids stand for."""
    header = ("dataset", "ids", "share of all", "different texts", "most frequent texts")
    rows = [
        (
            name,
            " ".join(map(str, texts.ids)),
            format_share(texts.share),
            f"{texts.different:,}",
            ", ".join(map(_shown_text, texts.most_frequent)),
        )
        for name, each in measures.items()
        for texts in (
            *(each.sample.texts or ())[:_IDS_SHOWN],
            *(each.sample.window_texts or ())[:_IDS_SHOWN],
        )
    ]
    if rows:
        yield Table(header, rows)


def _shown_text(text: tuple[str, float]) -> str:
    shown = text[0][:_TEXT_CHARACTERS]
    return f"{shown!r} {format_share(text[1])}"


def _divergences(measures: Mapping[str, Measures]) -> Iterator[Chart]:
    lines = []
    for index, (name, each) in enumerate(measures.items()):
        points = [
            (bits, divergence)
            for bits, divergence in zip(SEGMENT_BITS, each.divergences, strict=True)
            if divergence is not None and divergence >= _LEAST_DIVERGENCE
        ]
        if points:
            x, y = zip(*points, strict=True)
            lines.append(Line(name, x, y, charts.style_of_run(index)))
    if lines:
        yield charts.draw_lines(
            "Divergence of pieces of n bits from uniform bits",
            lines,
            Scale("n (bits)", "whole"),
            Scale("bits", "log"),
            f"Below {_LEAST_DIVERGENCE:g} bits nothing is drawn.",
        )


def _curves(measures: Mapping[str, Measures]) -> Iterator[Chart]:
    lines = [
        Line(name, np.arange(1, len(stable.curve) + 1), stable.curve, charts.style_of_run(index))
        for index, (name, each) in enumerate(measures.items())
        if (stable := each.sample.stability) is not None
    ]
    if lines:
        yield charts.draw_lines(
            "Ids that agree again after an edit of the document's front",
            lines,
            Scale("ids from the edit on", "log"),
            Scale("share of documents", "share"),
        )


def _lengths(measures: Mapping[str, Measures]) -> Chart:
    lines = [
        Line(
            name,
            range(LONGEST + 1),
            np.cumsum(each.sample.lengths[::-1])[::-1],
            charts.style_of_run(index),
        )
        for index, (name, each) in enumerate(measures.items())
    ]
    return charts.draw_lines(
        "Ids by the bytes of text that they add",
        lines,
        Scale("bytes, at least", "whole"),
        Scale("share of ids", "share"),
    )


def _of_evaluations(evaluations: Mapping[str, EvaluationFound]) -> Section:
    header = ("evaluation", "dataset", "bits per byte", "loss (nats per id)", "accuracy")
    rows = [
        (
            name,
            each.dataset,
            f"{each.bits_per_byte:.4f}",
            f"{each.loss:.4f}",
            format_share(each.accuracy),
        )
        for name, each in evaluations.items()
    ]
    lines = []
    for index, (name, each) in enumerate(evaluations.items()):
        shares = each.accuracy_by_position or ()
        if len(shares) > 1:
            style = charts.style_of_run(index)
            lines.append(Line(name, range(1, len(shares) + 1), shares, style))
    drawn = []
    if lines:
        title = "Accuracy by the id's position in its window"
        scales = Scale("position", "whole"), Scale("share of ids", "share")
        drawn.append(charts.draw_lines(title, lines, *scales))
    return Section("Evaluations", tables=[Table(header, rows)], charts=drawn)
