"""From numbers to the sections of a report."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from corpusmill.ngram_agg.heads import NO_CONTEXT, WEIGHT_UNITS
from corpusmill.report import charts
from corpusmill.report.charts import Chart, Line, Scale, format_seconds, format_share
from corpusmill.report.curves import Curve, TrainingRun, smoothed
from corpusmill.report.numbers import (
    Dataset,
    Frequencies,
    Integers,
    OrderCounts,
    OrderDistributions,
    TargetNumbers,
)
from corpusmill.report.page import Facts, Section, Table

# Beyond so many places a line is drawn through some of them only.
_MAX_POINTS = 200
# Curves begin at this share of the longest run: before it the loss only falls from chance.
_CURVES_BEGIN = 1e-3
_MAX_VALUE_CHARACTERS = 400

_SEEN = Scale("seen at least so many times", "log")
_ORDER = Scale("order (tokens of context)", "whole")


def overview(datasets: Sequence[Dataset]) -> Section:
    """All datasets, and what each takes on disk."""
    header = ("dataset", "kind", "tokenizer", "tokens", "files", "size", "bytes per token")
    rows = [
        (
            dataset.name,
            dataset.manifest.kind,
            _tokenizer(dataset.manifest.tokenizer),
            f"{dataset.tokens:,}",
            f"{len(dataset.manifest.data_files):,}",
            _size(dataset.bytes),
            f"{dataset.bytes_per_token:.2f}",
        )
        for dataset in datasets
    ]
    bars = charts.draw_bars(
        "Bytes on disk per token of the corpus",
        [(dataset.name, dataset.bytes_per_token) for dataset in datasets],
        lambda value: f"{value:.2f}",
    )
    return Section("Datasets", tables=[Table(header, rows)], charts=[bars])


def of_tokens(dataset: Dataset, lengths: Frequencies) -> Section:
    """The documents of a tokens or compressed dataset, or examples."""
    kind = dataset.manifest.kind
    if kind == "examples":
        things, number = kind, dataset.manifest.rows
    else:
        things, number = "documents", dataset.manifest.properties["documents"]
    text_bytes = lengths.positions_from()
    text = (
        f"{number:,} {things} of {dataset.tokens:,} tokens, {_size(text_bytes)} of text:"
        f" {text_bytes / dataset.tokens:.2f} bytes of text per token."
    )
    drawn = []
    if text_bytes:
        used = slice(int(np.argmax(lengths.things > 0)), lengths.used_bins)
        middles = 2.0 ** (np.arange(used.start, used.stop) + 0.5)
        lines = [
            Line(name, middles, values[used] / values.sum(), charts.style_of_run(index))
            for index, (name, values) in enumerate(
                [(things, lengths.things), ("text", lengths.positions)]
            )
        ]
        note = "Each point stands for the lengths from 0.7 to 1.4 times its own."
        title = f"{things.capitalize()} by length"
        length = Scale(f"bytes of text in one of the {things}", "log")
        drawn.append(charts.draw_lines(title, lines, length, Scale("share", "share"), note))
    return Section(f"{kind.capitalize()}: {dataset.name}", text, charts=drawn)


def of_counts(dataset: Dataset, orders: Sequence[OrderCounts]) -> Section:
    """The n-grams of a counts dataset, by order."""
    header = (
        "order",
        "n-grams",
        "n-grams seen once",
        "contexts",
        "contexts seen once",
        "positions with a context",
        "with one seen twice or more",
    )
    rows = [
        (
            str(order),
            f"{found.ngrams.things_from():,}",
            _share(int(found.ngrams.things[0]), found.ngrams.things_from()),
            f"{found.contexts.things_from():,}",
            _share(int(found.contexts.things[0]), found.contexts.things_from()),
            _share(found.contexts.positions_from(), dataset.tokens),
            _share(found.contexts.positions_from(2), dataset.tokens),
        )
        for order, found in enumerate(orders)
    ]
    text = (
        "Order n: what follows contexts of n tokens. An n-gram is a context with a token that"
        " follows it; a position of the corpus has a context where its document has n tokens"
        " before it."
    )
    drawn = [_ngrams_by_order(orders), *_context_frequencies(orders, dataset.tokens)]
    return Section(f"Counts: {dataset.name}", text, [Table(header, rows)], drawn)


def _ngrams_by_order(orders: Sequence[OrderCounts]) -> Chart:
    columns = {
        "n-grams": [found.ngrams.things_from() for found in orders],
        "contexts": [found.contexts.things_from() for found in orders],
        "contexts seen twice or more": [found.contexts.things_from(2) for found in orders],
    }
    lines = [
        Line(name, range(len(orders)), values, charts.style_of_run(index))
        for index, (name, values) in enumerate(columns.items())
    ]
    return charts.draw_lines("N-grams by order", lines, _ORDER, Scale("number", "log"))


def _context_frequencies(orders: Sequence[OrderCounts], tokens: int) -> Iterator[Chart]:
    """How many contexts were seen how often, and how much of the corpus follows them."""
    contexts, positions = [], []
    for order, found in enumerate(orders):
        used = found.contexts.used_bins
        # There is only one context of no tokens.
        if order and used:
            name, style = f"order {order}", charts.style_of_order(order, len(orders))
            times = 2.0 ** np.arange(used)
            contexts.append(Line(name, times, _from_bin(found.contexts.things[:used]), style))
            share = _from_bin(found.contexts.positions[:used]) / tokens
            positions.append(Line(name, times, share, style))
    if contexts:
        yield charts.draw_lines("Contexts by frequency", contexts, _SEEN, Scale("contexts", "log"))
        yield charts.draw_lines(
            "Positions by frequency of their context",
            positions,
            _SEEN,
            Scale("share of all positions", "share"),
        )


def of_distributions(dataset: Dataset, orders: Mapping[int, OrderDistributions]) -> Section:
    """How much of the distributions their heads hold."""
    top_k, min_count = (dataset.manifest.properties[name] for name in ("top_k", "min_count"))
    header = (
        "order",
        "contexts",
        "positions",
        "mass of the first token",
        f"of the first {top_k}",
        "of the tail",
    )
    rows = [
        (
            str(order),
            f"{found.contexts:,}",
            _share(found.positions, dataset.tokens),
            format_share(found.head_mass[0]),
            format_share(found.head_mass[-1]),
            format_share(found.tail_mass),
        )
        for order, found in orders.items()
    ]
    text = (
        f"Contexts seen {min_count} times or more, each with its {top_k} most frequent next tokens."
        " Mass is probability, a mean over the positions that follow the contexts."
    )
    return Section(
        f"Distributions: {dataset.name}",
        text,
        [Table(header, rows)],
        [_head_mass(orders, top_k), _tail_mass(orders, top_k)] if orders else [],
    )


def _head_mass(orders: Mapping[int, OrderDistributions], top_k: int) -> Chart:
    places = _some_places(top_k)
    lines = [
        Line(
            f"order {order}",
            places,
            found.head_mass[places - 1],
            charts.style_of_order(order, max(orders) + 1),
        )
        for order, found in orders.items()
    ]
    x = Scale("r, most frequent next tokens", "whole" if top_k <= 16 else "log")
    return charts.draw_lines(
        "Mass of the r most frequent next tokens", lines, x, Scale("mass", "share")
    )


def _tail_mass(orders: Mapping[int, OrderDistributions], top_k: int) -> Chart:
    shares = [(str(order), found.tail_mass) for order, found in orders.items()]
    title = f"Mass of the tail, after the first {top_k} next tokens"
    return charts.draw_columns(title, shares, _ORDER.title)


def of_targets(dataset: Dataset, numbers: TargetNumbers) -> Section:
    """What the targets of a corpus are made of."""
    orders = numbers.positions_of_order
    positions = int(orders.sum())
    config = dataset.manifest.config
    text = (
        f"Targets of {len(numbers.slots_used)} slots, of which a position uses"
        f" {numbers.slots_used.sum() / positions:.2f} on average."
    )
    if config.get("scheme") == "retain":
        text += f" Slots 1 to {config['head']} are for the head, the others for the tail's draws."
    columns = [
        ("none" if order == NO_CONTEXT else str(order), int(orders[order]) / positions)
        for order in np.roll(np.arange(256), 1).tolist()
        if orders[order]
    ]
    places = _some_places(len(numbers.slot_weights))
    lines = [
        Line(name, places, values[places - 1], charts.style_of_run(index))
        for index, (name, values) in enumerate(
            [
                ("mean weight", numbers.slot_weights / (WEIGHT_UNITS * positions)),
                ("share of positions that use it", numbers.slots_used / positions),
            ]
        )
    ]
    drawn = [
        charts.draw_columns("Positions by the context of their target", columns, _ORDER.title),
        charts.draw_lines("Slots", lines, Scale("slot", "whole"), Scale("share", "share")),
    ]
    return Section(f"Targets: {dataset.name}", text, charts=drawn)


def of_runs(runs: Mapping[str, TrainingRun]) -> Section:
    """Training runs, by name, side by side."""
    comparable = len({run.tokenizer for run in runs.values()}) == 1
    text = "" if comparable else "The runs' tokenizers differ: compare bits per byte, not losses."
    tables = [_results(runs, comparable)]
    differences = _differences(runs)
    if differences:
        tables.append(differences)
    return Section("Training", text, tables, list(_curves(runs, comparable)))


def _results(runs: Mapping[str, TrainingRun], comparable: bool) -> Table:
    header = ["run", "steps", "tokens", "time", "lowest validation loss", "bits per byte"]
    best = [run.best for run in runs.values() if run.best is not None]
    # The loss that all have reached, so that what it took them can be compared.
    goal = max(best) if comparable and len(best) > 1 else None
    if goal is not None:
        header += [f"steps to loss {goal:.3f}", f"time to loss {goal:.3f}"]
    rows = []
    for name, run in runs.items():
        row = [name, *_progress(run.training), *_lowest(run)]
        if goal is not None:
            reached = run.reached(goal)
            row += [f"{reached[0]:,}", format_seconds(reached[1])] if reached else ["", ""]
        rows.append(row)
    return Table(header, rows)


def _progress(training: Curve) -> list[str]:
    if not len(training["step"]):
        return ["0", "0", ""]
    step, tokens, seconds = (training[name][-1] for name in ("step", "tokens", "seconds"))
    return [f"{step:,.0f}", f"{tokens:,.0f}", format_seconds(seconds)]


def _lowest(run: TrainingRun) -> list[str]:
    if run.best is None:
        return ["", ""]
    row = int(np.nanargmin(run.validation["validation_loss"]))
    return [f"{run.best:.4f}", f"{run.validation['validation_bits_per_byte'][row]:.4f}"]


def _differences(runs: Mapping[str, TrainingRun]) -> Table | None:
    """What the runs' configurations don't have in common; None where there is nothing."""
    flat = [_flat(asdict(run.config)) for run in runs.values()]
    names = sorted({name for config in flat for name in config if not name.startswith("places.")})
    names = [name for name in names if len({config.get(name) for config in flat}) > 1]
    if not names:
        return None
    rows = [
        [run, *(_shortened(config.get(name, "")) for name in names)]
        for run, config in zip(runs, flat, strict=True)
    ]
    return Table(["run", *(name.removeprefix("options.") for name in names)], rows)


def _curves(runs: Mapping[str, TrainingRun], comparable: bool) -> Iterator[Chart]:
    measures = [("validation_loss", "Validation loss", "nats per token")]
    if not comparable:
        measures = [("validation_bits_per_byte", "Validation bits per byte", "bits per byte")]
    measures.append(("next_token_loss", "Training loss, next token", "nats per token"))
    if any(_minimizes_another_loss(run) for run in runs.values()):
        measures.append(("loss", "Training loss, as minimized", "nats per token"))
    for measure, title, unit in measures:
        for against, scale in (
            ("step", Scale("steps", "log")),
            ("seconds", Scale("time", "log seconds")),
        ):
            lines = _run_lines(runs, against, measure)
            if lines:
                name = f"{title}, by {scale.title}"
                yield charts.draw_lines(name, lines, scale, Scale(unit, "log"))


def _minimizes_another_loss(run: TrainingRun) -> bool:
    return not np.array_equal(run.training["loss"], run.training["next_token_loss"], equal_nan=True)


def _run_lines(runs: Mapping[str, TrainingRun], against: str, measure: str) -> list[Line]:
    is_validation = measure.startswith("validation")
    curves = [run.validation if is_validation else run.training for run in runs.values()]
    begin = _CURVES_BEGIN * max(curve[against].max(initial=0) for curve in curves)
    lines = []
    for index, (name, curve) in enumerate(zip(runs, curves, strict=True)):
        x, y = curve[against], curve[measure]
        shown = (y > 0) & np.isfinite(y) & (x > 0) & (x >= begin)
        if shown.any():
            x, y = x[shown], y[shown]
            x, y = (x, y) if is_validation else smoothed(x, y)
            lines.append(Line(name, x, y, charts.style_of_run(index)))
    return lines


def details(
    datasets: Sequence[Dataset],
    column_bytes: Sequence[dict[str, int]],
    runs: Mapping[str, TrainingRun],
) -> Section:
    """Manifests, columns and configurations, for reading up."""
    facts = []
    for dataset, columns in zip(datasets, column_bytes, strict=True):
        facts.append(Facts(f"{dataset.name}: manifest", _manifest_facts(dataset)))
        facts.append(Facts(f"{dataset.name}: columns", _column_facts(dataset, columns)))
    facts += [
        Facts(f"{name}: configuration", _flat(asdict(run.config))) for name, run in runs.items()
    ]
    return Section("Details", facts=facts)


def _manifest_facts(dataset: Dataset) -> dict[str, str]:
    manifest = dataset.manifest
    first = {
        "folder": dataset.folder,
        "kind": manifest.kind,
        "content_hash": manifest.content_hash,
        "format_version": manifest.format_version,
        "corpusmill_version": manifest.corpusmill_version,
        "files": len(manifest.files),
    }
    names = ("tokenizer", "inputs", "config", "properties", "counters")
    return _flat(first | {name: getattr(manifest, name) for name in names})


def _column_facts(dataset: Dataset, columns: Mapping[str, int]) -> dict[str, str]:
    total = sum(columns.values())
    return {
        name: f"{_size(size)}, {format_share(size / total)},"
        f" {size / dataset.tokens:.2f} bytes per token"
        for name, size in sorted(columns.items(), key=lambda column: -column[1])
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Names with dots and short texts, of nested values."""
    flat: dict[str, str] = {}
    for name, value in sorted(values.items()) if prefix else values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            flat[prefix + name] = _shortened(text, _MAX_VALUE_CHARACTERS)
    return flat


def _shortened(text: str, characters: int = 20) -> str:
    """Hashes can be told apart by a few characters, and lists may be endless."""
    return text if len(text) <= characters else f"{text[:characters]}…"


def _tokenizer(tokenizer: Mapping[str, Any]) -> str:
    return f"{tokenizer['kind']}, {tokenizer['vocabulary_size']:,} entries"


def _size(size: int) -> str:
    if size < 1 << 20:
        return f"{size / 1024:,.1f} KiB"
    return f"{size / 2**20:,.1f} MiB" if size < 1 << 30 else f"{size / 2**30:,.1f} GiB"


def _share(part: int, whole: int) -> str:
    return format_share(part / whole) if whole else ""


def _from_bin(values: Integers) -> Any:
    """Sums of each bin and all above it."""
    return np.cumsum(values[::-1])[::-1]


def _some_places(last: int) -> Integers:
    """1 to `last`, of many only some, evenly on a logarithmic axis."""
    if last <= _MAX_POINTS:
        return np.arange(1, last + 1)
    return np.unique(np.geomspace(1, last, _MAX_POINTS).round().astype(np.int64))
