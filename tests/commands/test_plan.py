"""The command `plan`."""

import itertools

import numpy as np
import pytest

from corpusmill.commands.plan import Estimates, PlanOptions, measure
from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.sampling import Sample
from corpusmill.pipelines.enrich import EnrichJob
from tests.pipelines.samples import command, write_jsonl

# Words as frequent as in real text, of the letters of their rank.
TEXTS = [
    " ".join(f"{rank:x}" for rank in np.random.default_rng(number).zipf(1.5, 80) % 10**6)
    for number in range(300)
]


@pytest.fixture(scope="module")
def estimates():
    options = PlanOptions("bytes", max_order=2)
    measured = list(measure(Sample(tuple(TEXTS), 1000), options))
    return Estimates(measured, measured[-1].tokens, options)


def test_what_was_measured_whole_is_what_the_jobs_make(estimates, tmp_path):
    source = write_jsonl(tmp_path / "corpus.jsonl", TEXTS)
    tokens, counts, tables = (tmp_path / name for name in ("tokens", "counts", "tables"))
    assert command("tokenize", "--input", source, "--tokenizer", "bytes", "--output", tokens) == 0
    assert command("count", "--tokens", tokens, "--max-order", 2, "--output", counts) == 0
    assert command("distributions", "--counts", counts, "--output", tables) == 0
    manifest = read_manifest(str(counts))
    assert estimates.most.tokens == manifest.properties["tokens"]
    texts = [[*text.encode(), 256] for text in TEXTS]
    for length in (1, 2, 3):
        ngrams = {
            tuple((text + [256] * length)[i : i + length])
            for text in texts
            for i in range(len(text))
        }
        assert estimates.most.distinct[length - 1] == len(ngrams)
        low, high = estimates.distinct()[length - 1]
        assert low == pytest.approx(len(ngrams))
        assert high == pytest.approx(len(ngrams))
    contexts = read_manifest(str(tables)).counters["contexts"]
    assert estimates.contexts().low == pytest.approx(contexts)
    assert estimates.spilled_rows().low == pytest.approx(manifest.counters["ngrams_merged"])


def test_rows_of_spilled_runs_are_as_wide_as_their_keys():
    texts = tuple(TEXTS[:64])
    [*_, most] = measure(Sample(texts, 1000), PlanOptions("bytes", max_order=7))
    # 8 ids of 9 bits are 72 bits; two words of 64 bits and a byte with the count.
    assert Estimates([most], most.tokens, PlanOptions("bytes")).spilled_row_bytes == 17
    [*_, most] = measure(Sample(texts, 1000), PlanOptions("bytes", max_order=12))
    assert Estimates([most], most.tokens, PlanOptions("bytes")).spilled_row_bytes == 24


def test_parts_double(estimates):
    tokens = [part.tokens for part in estimates.measured]
    assert len(tokens) == 5
    for smaller, larger in itertools.pairwise(tokens):
        assert 1.6 < larger / smaller < 2.5


def test_larger_corpora_take_more(estimates):
    larger = Estimates(estimates.measured, 1e12, estimates.options)
    assert larger.runs == round(1e12 / (1 << 23))
    assert larger.merges() == 4
    assert larger.distinct()[-1].low >= estimates.distinct()[-1].low
    for name, hours in larger.core_hours().items():
        assert hours.high > estimates.core_hours()[name].high


def test_enrich_takes_tables_while_they_are_small_and_spills_beyond(estimates, monkeypatch):
    assert estimates.is_one_table
    assert estimates.enrich_scratch() == estimates.target_tables()
    monkeypatch.setattr(EnrichJob, "table_mib", 1e-3)
    larger = Estimates(estimates.measured, 1e12, estimates.options)
    assert not larger.is_one_table
    # Memory has an end, scratch grows with the tokens.
    assert larger.enrich_memory() < 1.5 * 2**30
    assert larger.enrich_scratch().low > 1e13
    # At most a number of 4 bytes, 4 draws of 2, and heads.
    assert larger.dataset_bytes("targets").high < 30 * 1e12


def test_it_says_what_a_corpus_takes(tmp_path, capsys):
    source = write_jsonl(tmp_path / "corpus.jsonl", TEXTS)
    arguments = ("plan", "--input", source, "--tokenizer", "bytes")
    assert command(*arguments, "--text-gib", 4000) == 0
    printed = capsys.readouterr()
    assert "million distinct 4-grams" in printed.out
    assert "memory of a worker of enrich, GiB" in printed.out
    assert "4,000" in printed.out
    assert "range reads are many: count with --run-tokens" in printed.out
    assert printed.err.count("measuring") == 5
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text-gib", "0"], "--text-gib: '0' is not a number above 0"),
        (["--text-gib", "nan"], "--text-gib: 'nan' is not a number above 0"),
        (["--tokenizer", "nowhere.json"], "nowhere.json"),
        (["--max-order", "40"], "40"),
        (["--sample-mb", "3"], "did you mean --sample-mib?"),
        (["--output", "x"], "unknown option --output"),
    ],
)
def test_bad_options_fail_before_any_work(tmp_path, capsys, options, message):
    source = write_jsonl(tmp_path / "corpus.jsonl", TEXTS)
    assert command("plan", "--input", source, "--tokenizer", "bytes", *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_sample_of_nothing_is_refused(tmp_path, capsys):
    source = write_jsonl(tmp_path / "corpus.jsonl", TEXTS[:5])
    assert command("plan", "--input", source, "--tokenizer", "bytes") == 1
    assert "5 documents, 64 are needed" in capsys.readouterr().err


def test_documents_without_text_are_refused(tmp_path, capsys):
    source = write_jsonl(tmp_path / "corpus.jsonl", [""] * 70)
    assert command("plan", "--input", source, "--tokenizer", "bytes") == 1
    assert "the 70 documents of the sample are all empty" in capsys.readouterr().err


def test_counts_without_contexts_can_be_planned(tmp_path, capsys):
    source = write_jsonl(tmp_path / "corpus.jsonl", TEXTS)
    assert command("plan", "--input", source, "--tokenizer", "bytes", "--max-order", 0) == 0
    assert "core hours: enrich" in capsys.readouterr().out
