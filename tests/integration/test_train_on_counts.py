"""Training on counts: full distributions that are looked up, and compact targets made of them."""

import tempfile

import pytest
import torch

from corpusmill.commands import cli
from corpusmill.corpus.errors import DatasetError, UsageError
from corpusmill.corpus.training_runs import read_metrics
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.trainer.batches import IGNORED
from corpusmill.trainer.data import Loader, TokenDataset
from corpusmill.trainer.order import DataOptions
from tests.integration.samples import documents_of, random_texts, run, write_jsonl
from tests.oracle import count_contexts
from tests.trainer import samples

MAX_ORDER = 2


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    write_jsonl(folder / "in.jsonl", ["", *random_texts(1, words=400, documents=8), "x"])
    tokens = ("--tokenizer", "bytes", "--output", folder / "tokens")
    run("tokenize", "--input", folder / "in.jsonl", *tokens)
    counts = ("--output", folder / "counts", "--max-order", MAX_ORDER)
    run("count", "--tokens", folder / "tokens", *counts)
    return folder


def full_distributions(documents):
    """For every token of the corpus: next token -> probability, behind its longest context."""
    contexts = [count_contexts(documents, order) for order in range(MAX_ORDER + 1)]
    for document in documents:
        for position, token in enumerate(document):
            found = {token: 1}
            for order in range(1, min(position, MAX_ORDER) + 1):
                nexts = contexts[order][tuple(document[position - order : position])]
                if sum(nexts.values()) >= 2:
                    found = nexts
            yield {each: count / sum(found.values()) for each, count in found.items()}


@pytest.mark.parametrize("workers", [0, 2])
def test_each_position_has_the_full_distribution_of_its_context(workers, job):
    # Several pools, so that batches are joined.
    options = DataOptions(3, 7, shuffle=False, pool=1)
    dataset = TokenDataset(str(job / "tokens"), options, counts=str(job / "counts"), epochs=1)
    expected = full_distributions(documents_of(job / "tokens"))
    for batch in Loader(dataset, workers):
        next_tokens = batch.next_tokens.flatten().tolist()
        offsets = batch.target_offsets.tolist()
        assert len(offsets) == len(next_tokens) + 1
        assert offsets[-1] == len(batch.target_tokens) == len(batch.target_weights)
        for position, token in enumerate(next_tokens):
            if token != IGNORED:
                entries = slice(offsets[position], offsets[position + 1])
                tokens = batch.target_tokens[entries].tolist()
                found = dict(zip(tokens, batch.target_weights[entries].tolist(), strict=True))
                assert found == pytest.approx(next(expected))
                assert len(found) == len(tokens)
    assert next(expected, None) is None


def test_a_model_learns_from_them(job, tmp_path, capsys):
    data = ("--tokens", job / "tokens", "--counts", job / "counts", "--objective", "all-ngrams")
    small = ("--batch-size", 2, "--length", 16, "--warmup", 1, "--device", "cpu")
    torch.manual_seed(0)
    run("train", *data, *small, "--steps", 12, "--output", tmp_path / "run")
    losses = [line["loss"] for line in read_metrics(str(tmp_path / "run")) if "loss" in line]
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 0.5
    capsys.readouterr()
    wrong = ["train", *data[:4], "--steps", "1", "--output", tmp_path / "other"]
    assert cli.main([str(each) for each in wrong]) == 2
    assert "--counts is for --objective compact or all-ngrams" in capsys.readouterr().err


def test_computed_targets_are_learnt_like_stored_ones(job, tmp_path, monkeypatch):
    """The same losses, step by step; a run that goes on needs the same options of targets."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made_of = ("--head", 3, "--tail-draws", 2, "--draw-seed", 5)
    inputs = ("--tokens", job / "tokens", "--counts", job / "counts")
    run("enrich", *inputs, *made_of, "--output", tmp_path / "targets")
    small = ("--batch-size", 2, "--length", 16, "--device", "cpu", "--steps", 4)
    compact = ("--tokens", job / "tokens", "--objective", "compact", *small)
    stored = ("--targets", tmp_path / "targets", "--output", tmp_path / "stored")
    run("train", *compact, *stored)
    computed = ("--counts", job / "counts", "--output", tmp_path / "computed")
    run("train", *compact, *computed, *made_of)
    losses = [
        [line["loss"] for line in read_metrics(str(tmp_path / name)) if "loss" in line]
        for name in ("stored", "computed")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4
    again = ["train", *compact, *computed, "--head", "4"]
    assert cli.main([str(each) for each in again]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objective", "compact"], "needs --targets or --counts, the folder of a dataset"),
        (
            ["--objective", "compact", "--counts", "counts", "--targets", "targets"],
            "needs --targets or --counts, the folder of a dataset, not both",
        ),
        (["--head", "3"], "--head is for targets that are computed: --objective compact with"),
        (
            ["--objective", "compact", "--counts", "counts", "--max-order", "5"],
            "max-order 5 is more than the 2 tokens of context that",
        ),
        (
            ["--objective", "compact", "--counts", "counts", "--head", "999"],
            "head 999 is not between 0 and 256",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(options, message, job, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(job)
    arguments = ["train", "--tokens", "tokens", "--steps", "1", "--output", str(tmp_path / "run")]
    assert cli.main([*arguments, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_counts_must_fit_the_tokens(job, tmp_path):
    tokens = samples.write_tokens(tmp_path / "tokens", samples.random_files(1, [(50,)]))
    options = DataOptions(2, 8)
    with pytest.raises(DatasetError, match="was not counted with the tokenizer of the tokens"):
        TokenDataset(tokens, options, counts=str(job / "counts"))
    with pytest.raises(DatasetError, match="kind counts is needed"):
        TokenDataset(tokens, options, counts=str(job / "tokens"))
    with pytest.raises(UsageError, match="max-order 3 is more than the 2 tokens of context"):
        TokenDataset(
            str(job / "tokens"), options, counts=str(job / "counts"), compact=TargetOptions()
        )
    with pytest.raises(UsageError, match="one is accepted"):
        TokenDataset(tokens, options, targets=tokens, counts=tokens)
