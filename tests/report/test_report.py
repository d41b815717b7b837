"""report: its numbers against an oracle, its page as HTML, its errors."""

import json
import math
import re
import sys
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.training_runs import RunConfig, read_metrics
from corpusmill.ngram_agg import count_ngrams
from corpusmill.report import charts, curves, numbers, page
from corpusmill.report.names import short_names
from tests.codebooks import small_book
from tests.pipelines.conftest import TEXTS
from tests.pipelines.samples import command, write_jsonl
from tests.targets import in_slots, names, read_rows

END = 256
MAX_ORDER = 3


def dataset(folder):
    return numbers.Dataset(folder.name, str(folder), read_manifest(str(folder)))


def documents():
    return [[*text.encode(), END] for text in TEXTS]


def oracle_of_order(order):
    """How often each n-gram and each context of an order occurs in TEXTS."""
    ngrams, contexts = Counter(), Counter()
    for document in documents():
        for place in range(order, len(document)):
            context = tuple(document[place - order : place])
            ngrams[context, document[place]] += 1
            contexts[context] += 1
    return ngrams, contexts


def bins_of(seen):
    """An independent, slow version of numbers.Frequencies."""
    things, positions = Counter(), Counter()
    for times in seen:
        things[times.bit_length() - 1] += 1
        positions[times.bit_length() - 1] += times
    return things, positions


def assert_frequencies(found, seen):
    things, positions = bins_of(seen)
    assert {b: n for b, n in enumerate(found.things.tolist()) if n} == things
    assert {b: n for b, n in enumerate(found.positions.tolist()) if n} == positions


@pytest.fixture(scope="session")
def targets(job):
    folder = job / "targets"
    inputs = ("--tokens", job / "tokens", "--counts", job / "counts")
    small = ("--head", 2, "--tail-draws", 1)
    assert command("enrich", *inputs, "--output", folder, *small) == 0
    return folder


def write_run(folder, *, steps=40, floor=3.0, tokenizer="a" * 64, **options):
    """A folder as `train` leaves it; validation every 10 steps."""
    folder.mkdir()
    config = RunConfig(
        options={"model": "3m", **options},
        model={},
        tokenizer={"content_hash": tokenizer},
        data={},
        places={},
    )
    (folder / "config.json").write_bytes(config.to_json())
    lines = []
    for step in range(1, steps + 1):
        loss = floor + 6 / step
        place = {"step": step, "tokens": 100 * step, "seconds": 0.5 * step}
        lines.append(place | {"loss": loss, "next_token_loss": loss, "learning_rate": 0.1})
        if step % 10 == 0:
            bits = loss / math.log(2) / 4
            lines.append(place | {"validation_loss": loss, "validation_bits_per_byte": bits})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return folder


class Page(HTMLParser):
    """The text of a page, and whatever it would have to fetch or run."""

    EMPTY = ("meta", "path", "use", "rect")

    def __init__(self, text):
        super().__init__()
        self.open, self.foreign, self.links, self.ids = [], [], [], set()
        self.texts, self.rows = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self._look_at(tag, dict(attributes))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self._look_at(tag, dict(attributes))

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data.strip())
        if self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data

    def _look_at(self, tag, attributes):
        if tag in ("script", "img", "link", "iframe", "object") or "src" in attributes:
            self.foreign.append((tag, attributes))
        links = [attributes.get("href"), attributes.get("xlink:href")]
        self.links += [link for link in links if link]
        self.links += re.findall(r"url\((.*?)\)", " ".join(filter(None, attributes.values())))
        self.ids.add(attributes.get("id"))


def report(tmp_path, *folders):
    """The page about folders, parsed."""
    output = tmp_path / "page.html"
    assert command("report", *folders, "--output", output) == 0
    return Page(output.read_text())


def rows_of(found, first):
    """The rows that begin with a cell, in all tables, without it."""
    return [row[1:] for row in found.rows if row[0] == first]


def test_counts_agree_with_counting_by_hand(job):
    found = numbers.read_counts_by_order(dataset(job / "counts"))
    assert len(found) == MAX_ORDER + 1
    for order, counts in enumerate(found):
        ngrams, contexts = oracle_of_order(order)
        assert_frequencies(counts.ngrams, ngrams.values())
        assert_frequencies(counts.contexts, contexts.values())


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.data())
def test_groups_do_not_depend_on_where_runs_are_cut(tokens, data):
    run = count_ngrams(np.array([*tokens, 4]), max_order=2, vocabulary_size=5, end_of_document=4)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(run)), max_size=4)))
    groups = numbers._Groups()
    for first, last in zip([0, *cuts], [*cuts, len(run)], strict=True):
        groups.add(run[first:last].shortened(1))
    assert_frequencies(groups.closed(), Counter([*tokens, 4]).values())


@given(st.lists(st.integers(1, 1 << 40), max_size=50))
def test_frequencies_are_binned_exactly(seen):
    found = numbers.Frequencies()
    found.add(np.array(seen, np.int64))
    assert_frequencies(found, seen)
    for exponent in (0, 1, 5):
        from_there = [times for times in seen if times >= 1 << exponent]
        assert found.things_from(1 << exponent) == len(from_there)
        assert found.positions_from(1 << exponent) == sum(from_there)


def test_distributions_agree_with_counting_by_hand(job):
    found = numbers.read_distributions_by_order(dataset(job / "distributions"))
    assert list(found) == list(range(MAX_ORDER + 1))
    for order, table in found.items():
        ngrams, contexts = oracle_of_order(order)
        kept = {context for context, seen in contexts.items() if seen >= 2}
        by_rank = Counter()
        for context in kept:
            seen = sorted((n for (c, _), n in ngrams.items() if c == context), reverse=True)
            by_rank.update(dict(enumerate(seen)))
        positions = sum(contexts[context] for context in kept)
        head = [by_rank[rank] for rank in range(8)]
        assert (table.contexts, table.positions) == (len(kept), positions)
        assert table.head_counts.tolist() == head
        assert table.tail_count == positions - sum(head)
        np.testing.assert_allclose(table.head_mass, np.cumsum(head) / positions)
        assert table.head_mass[-1] + table.tail_mass == pytest.approx(1)


def test_targets_agree_with_their_rows(targets):
    found = numbers.read_targets(dataset(targets))
    orders, weights = Counter(), np.zeros(3, np.int64)
    used = np.zeros(3, np.int64)
    for name in names(targets):
        for order, head, drawn in (each for row in read_rows(targets, name) for each in row):
            orders[order] += 1
            slots = np.array([weight for _, weight in in_slots(head, drawn, (2, 1))])
            weights += slots
            used += slots > 0
    assert {o: n for o, n in enumerate(found.positions_of_order.tolist()) if n} == orders
    assert found.slot_weights.tolist() == weights.tolist()
    assert found.slots_used.tolist() == used.tolist()
    assert weights.sum() == 65535 * sum(map(len, documents()))


def test_document_lengths_leave_out_empty_ones(job):
    found = numbers.read_document_lengths(dataset(job / "tokens"))
    assert_frequencies(found, [len(text) for text in TEXTS if text])


def test_columns_are_what_the_files_consist_of(job):
    tokens = dataset(job / "tokens")
    columns = numbers.read_column_bytes(tokens)
    assert columns.keys() == {"doc_id", "tokens", "byte_length"}
    assert 0 < sum(columns.values()) < tokens.bytes


def test_page_shows_every_kind_and_needs_nothing_else(job, targets, tmp_path):
    run = write_run(tmp_path / "a run")
    kinds = [job / "tokens", job / "counts", job / "distributions", targets]
    found = report(tmp_path, *kinds, run)
    assert found.foreign == []
    # Links lead to marks and clips of the page's own charts.
    assert {link.removeprefix("#") for link in found.links} <= found.ids
    for title in (
        "Tokens: tokens",
        "Counts: counts",
        "Distributions: distributions",
        "Targets: targets",
        "Training",
        "Contexts by frequency",
        "Mass of the r most frequent next tokens",
        "Validation loss, by time",
    ):
        assert title in found.texts
    positions = sum(map(len, documents()))
    assert rows_of(found, "tokens")[0][2] == f"{positions:,}"
    assert read_manifest(str(targets)).content_hash in found.texts


def test_page_is_the_same_each_time(job, tmp_path):
    folders = (job / "counts", job / "distributions", write_run(tmp_path / "run"))
    pages = []
    for name in ("first.html", "second.html"):
        assert command("report", *folders, "--output", tmp_path / name) == 0
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


def test_runs_are_compared_by_what_it_took_them(tmp_path):
    slow = write_run(tmp_path / "slow", floor=3.0, objective="next-token")
    fast = write_run(tmp_path / "fast", floor=2.9, objective="compact")
    found = report(tmp_path, slow, fast)
    # The slow one's best, 3.15, which the fast one is below at its evaluation after 30 steps.
    assert "steps to loss 3.150" in found.texts
    assert rows_of(found, "slow") == [
        ["40", "4,000", "20 s", "3.1500", f"{3.15 / math.log(2) / 4:.4f}", "40", "20 s"],
        ["next-token"],
    ]
    assert rows_of(found, "fast") == [
        ["40", "4,000", "20 s", "3.0500", f"{3.05 / math.log(2) / 4:.4f}", "30", "15 s"],
        ["compact"],
    ]


def test_runs_of_different_tokenizers_are_compared_by_bits_per_byte(tmp_path):
    one = write_run(tmp_path / "one")
    other = write_run(tmp_path / "other", tokenizer="b" * 64)
    found = report(tmp_path, one, other)
    assert "Validation bits per byte, by steps" in found.texts
    assert "Validation loss, by steps" not in found.texts
    assert not any(text.startswith("steps to loss") for text in found.texts)


def test_runs_that_have_just_begun_or_were_killed(tmp_path):
    new = write_run(tmp_path / "new", steps=0)
    killed = write_run(tmp_path / "killed", steps=5)
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    run = curves.read_run(str(killed))
    assert run.training["step"].tolist() == [1, 2, 3, 4, 5]
    found = report(tmp_path, new, killed)
    assert rows_of(found, "new")[0] == ["0", "0", "", "", ""]
    assert rows_of(found, "killed")[0] == ["5", "500", "2.5 s", "", ""]
    assert report(tmp_path, new).foreign == []


def test_names_are_shown_as_they_are(tmp_path):
    run = write_run(tmp_path / "_a$b$ <script>&amp;")
    other = write_run(tmp_path / "--> x")
    found = report(tmp_path, run, other)
    assert found.foreign == []
    # In a table, in legends and above the configuration.
    for name in ("_a$b$ <script>&amp;", "--> x"):
        assert sum(name in text for text in found.texts) > 3


@pytest.mark.parametrize("floor", [0.0, -2.0])
def test_losses_that_have_no_logarithm_are_left_out(tmp_path, floor):
    assert report(tmp_path, write_run(tmp_path / "run", floor=floor)).foreign == []


def test_a_tiny_corpus_without_long_contexts(tmp_path):
    tokens, counts, tables = (tmp_path / name for name in ("tokens", "counts", "tables"))
    source = write_jsonl(tmp_path / "corpus.jsonl", ["", "a"])
    arguments = ("--input", source, "--tokenizer", "bytes", "--output", tokens)
    assert command("tokenize", *arguments) == 0
    assert command("count", "--tokens", tokens, "--output", counts) == 0
    assert command("distributions", "--counts", counts, "--output", tables) == 0
    found = report(tmp_path, tokens, counts, tables)
    assert "2 documents of 3 tokens, 0.0 KiB of text: 0.33 bytes of text per token." in found.texts
    assert rows_of(found, "3")[0] == ["0", "", "0", "", "0%", "0%"]


def test_distributions_without_contexts(job, tmp_path):
    tables = tmp_path / "tables"
    arguments = ("--counts", job / "counts", "--output", tables, "--min-count", 1000)
    assert command("distributions", *arguments) == 0
    assert "Distributions: tables" in report(tmp_path, tables).texts


def test_bad_usage(job, tmp_path, capsys):
    def refused(*arguments):
        assert command("report", *arguments) == 2
        return capsys.readouterr().err

    output = ("--output", tmp_path / "page.html")
    assert "neither a dataset nor a training run" in refused(tmp_path, *output)
    assert "neither a dataset nor a training run" in refused(tmp_path / "absent", *output)
    assert "is a folder" in refused(job / "counts", "--output", job)
    assert "did you mean --output" in refused(job / "counts", "--ouptut", "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_dataset_without_tokens_is_refused(tmp_path, capsys):
    small_book().write(str(tmp_path / "book"))
    write_jsonl(tmp_path / "in.jsonl", ["", ""])
    inputs = ("--input", tmp_path / "in.jsonl", "--codebook", tmp_path / "book")
    assert command("compress", *inputs, "--output", tmp_path / "none") == 0
    capsys.readouterr()
    assert command("report", tmp_path / "none", "--output", tmp_path / "page.html") == 2
    assert "none has no tokens, so there is nothing to show" in capsys.readouterr().err


def test_files_nested_without_end_are_refused(tmp_path, capsys):
    deep = "[" * 100_000
    (tmp_path / "found.json").write_text(deep)
    assert command("report", tmp_path / "found.json", "--output", tmp_path / "page.html") == 2
    assert "no JSON that measure or evaluate wrote" in capsys.readouterr().err
    run = tmp_path / "run"
    write_run(run, steps=1)
    (run / "config.json").write_text(deep)
    assert command("report", run, "--output", tmp_path / "page.html") == 1
    assert "config.json is damaged" in capsys.readouterr().err


def test_without_matplotlib_it_says_what_to_install(job, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert command("report", job / "counts", "--output", tmp_path / "page.html") == 2
    assert "corpusmill[report]" in capsys.readouterr().err


def test_unfinished_datasets_are_refused(tmp_path, capsys):
    (tmp_path / "_incomplete").mkdir()
    assert command("report", tmp_path, "--output", tmp_path / "page.html") == 2
    assert "has not finished" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["tokens", "counts", "distributions", "targets"])
def test_damaged_files_are_named(job, targets, tmp_path, kind, capsys):
    copy = tmp_path / kind
    source = job / kind
    for file in source.rglob("*"):
        if file.is_file():
            target = copy / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    name = read_manifest(str(copy)).data_files[0].name
    (copy / name).write_bytes(b"no Parquet")
    assert command("report", copy, "--output", tmp_path / "page.html") == 1
    assert name in capsys.readouterr().err
    (copy / name).unlink()
    assert command("report", copy, "--output", tmp_path / "page.html") == 1
    assert name in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        "[" * 100_000,
        "[1, 2]",
        '{"step": "many"}',
        '{"loss": 1}',
        '{"step": 1, "loss": []}',
    ],
)
def test_damaged_metrics_are_named(tmp_path, line):
    run = write_run(tmp_path / "run", steps=2)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    # As the last one it may be what a crash left, for a report as for a run that goes on.
    assert curves.read_run(str(run)).training["step"].tolist() == [1, 2]
    assert [each["step"] for each in read_metrics(str(run))] == [1, 2]
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3}\n')
    with pytest.raises(
        DataError, match=r"metrics\.jsonl is damaged in line 3: .*; remove that line"
    ):
        curves.read_run(str(run))


def test_a_run_without_its_configuration_is_none(tmp_path):
    run = write_run(tmp_path / "run", steps=1)
    (run / "config.json").unlink()
    with pytest.raises(UsageError, match=r"run has no config\.json: it's no training run"):
        curves.read_run(str(run))


def test_folders_at_a_url(job, tmp_path):
    local = tmp_path / "page.html"
    folder = job / "distributions"
    assert command("report", folder, "--output", local) == 0
    assert command("report", f"file://{folder}", "--output", f"file://{tmp_path}/url.html") == 0
    shown = (tmp_path / "url.html").read_text().replace(f"file://{folder}", str(folder))
    assert shown == local.read_text()


@given(
    st.lists(st.tuples(st.floats(1, 1e6), st.floats(0, 10)), min_size=1, max_size=300),
    st.integers(1, 50),
)
def test_smoothing_keeps_sums_and_order(points, stretches):
    x, y = np.array(sorted(points)).T
    smooth_x, smooth_y = curves.smoothed(x, y, stretches)
    assert 1 <= len(smooth_x) <= stretches
    assert (np.diff(smooth_x) > 0).all()
    margin = 1e-9 * abs(y).max()
    assert y.min() - margin <= smooth_y.min() <= smooth_y.max() <= y.max() + margin


@given(st.floats(1e-6, 1e12), st.floats(1.5, 1e12), st.sampled_from(["log", "log seconds"]))
def test_ticks_are_few_and_inside(low, ratio, kind):
    high = low * ratio
    ticks = charts.log_ticks(low, high, kind)
    assert len(ticks) <= 7
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= high for tick in ticks)
    if kind == "log":
        assert len(ticks) >= 2


def test_ticks_are_round():
    assert charts.log_ticks(0.8, 150000, "log") == [1, 10, 100, 1000, 10000, 100000]
    assert charts.log_ticks(2.9, 8.4, "log") == [3, 4, 5, 6, 7, 8]
    assert charts.log_ticks(20, 9000, "log seconds") == [60, 600, 3600]


def test_formats():
    assert [charts.format_number(value) for value in (0.05, 1, 1234, 2.5e6, 3e12)] == [
        "0.05", "1", "1.23k", "2.5M", "3T",
    ]  # fmt: skip
    assert [charts.format_seconds(value) for value in (0.5, 90, 5400, 172800)] == [
        "0.5 s", "1.5 min", "1.5 h", "2 d",
    ]  # fmt: skip
    assert charts.format_share(0.1234) == "12.3%"


def test_short_names_tell_folders_apart():
    assert short_names(["a/b/counts", "a/b/tokens"]) == ["counts", "tokens"]
    assert short_names(["x/a/counts", "y/a/counts"]) == ["x/a/counts", "y/a/counts"]
    assert short_names(["counts"]) == ["counts"]


def test_table_cells_must_fit_the_header():
    table = page.Table(["a", "b"], [["1", "2", "3"]])
    with pytest.raises(ValueError, match="zip"):
        page.render("t", [page.Section("s", tables=[table])])
