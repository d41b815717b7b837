"""The examples run, learn, and agree with each other."""

import datasets
import pytest
import torch

from corpus.datasets import read_manifest
from examples import bare_loop, hugging_face
from tests.integration.samples import random_texts, run, write_jsonl
from trainer.data import DataOptions, TokenDataset
from trainer.hugging_face import CompactCollator, compact_loss
from trainer.losses import sparse_cross_entropy


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    write_jsonl(folder / "in.jsonl", random_texts(1, words=3000))
    run(
        "tokenize",
        "--input",
        folder / "in.jsonl",
        "--tokenizer",
        "bytes",
        "--output",
        folder / "tokens",
    )
    run("count", "--input", folder / "tokens", "--output", folder / "counts")
    inputs = ("--tokens", folder / "tokens", "--counts", folder / "counts")
    run("enrich", *inputs, "--output", folder / "targets")
    return folder


def test_a_loop_of_ones_own(job):
    losses = bare_loop.train(str(job / "tokens"), str(job / "targets"), steps=30)
    assert len(losses) == 30
    assert losses[-1] < losses[0] - 1


def test_the_hugging_face_trainer(job, tmp_path):
    folders = str(job / "tokens"), str(job / "targets")
    losses = hugging_face.train(*folders, str(tmp_path / "run"), steps=20)
    assert len(losses) == 20
    assert losses[-1] < losses[0] - 1


def test_collated_documents_have_the_loss_of_the_loaders_sequences(job):
    """One document a batch: what the loader gives as one sequence."""
    tokens = datasets.load_dataset(
        "parquet", data_files=str(job / "tokens" / "*.parquet"), split="train"
    )
    targets = datasets.load_dataset(
        "parquet", data_files=str(job / "targets" / "*.parquet"), split="train"
    )
    manifest = read_manifest(str(job / "targets"))
    collate = CompactCollator.of(manifest, length=1 << 20)
    rows = [{**tokens[i], **targets[i]} for i in range(3)]
    together = collate(rows)
    generator = torch.Generator().manual_seed(0)
    shape = (*together["input_ids"].shape, manifest.tokenizer["vocabulary_size"])
    logits = torch.randn(shape, generator=generator)
    sums = 0.0
    count = sum(len(row["tokens"]) for row in rows)
    options = DataOptions(1, sum(map(len, tokens["tokens"])), shuffle=False)
    batch = next(iter(TokenDataset(str(job / "tokens"), options, str(job / "targets"))))
    first = 0
    for i, row in enumerate(rows):
        size = len(row["tokens"])
        here = slice(first, first + size)
        assert torch.equal(together["input_ids"][i, :size], batch.tokens[0, here])
        sums += sparse_cross_entropy(
            logits[i, :size], batch.target_tokens[0, here], batch.target_weights[0, here]
        ).sum()
        first += size
    loss = compact_loss({"logits": logits}, together["labels"])
    torch.testing.assert_close(loss, sums / count)
    torch.testing.assert_close(compact_loss({"logits": logits}, together["labels"], 7), sums / 7)
