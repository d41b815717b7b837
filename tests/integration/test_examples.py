"""The examples run, learn, and agree with each other."""

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from corpusmill.corpus.datasets import read_manifest
from corpusmill.trainer.data import TokenDataset
from corpusmill.trainer.hugging_face import CompactCollator, compact_loss, target_rows
from corpusmill.trainer.losses import sparse_cross_entropy
from corpusmill.trainer.order import DataOptions
from examples import bare_loop, distil, hugging_face
from tests.integration.samples import random_texts, run, write_jsonl


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
    run("count", "--tokens", folder / "tokens", "--output", folder / "counts")
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


def test_distillation(job, tmp_path):
    """Few steps: that everything fits together, not what it is worth."""
    tokens = str(job / "tokens")
    losses = distil.distil(tokens, tokens, str(tmp_path), teacher_steps=4, steps=8)
    assert [len(each) for each in losses.values()] == [2, 4, 4]
    run("verify", tmp_path / "targets")
    assert losses["taught"][-1] < losses["taught"][0]


def test_collated_documents_have_the_loss_of_the_loaders_sequences(job):
    """One document a batch: what the loader gives as one sequence."""
    folders = str(job / "tokens"), str(job / "targets")
    names = [record.name for record in read_manifest(folders[0]).data_files]
    every_row = list(target_rows(*folders, names))
    manifest = read_manifest(folders[1])
    collate = CompactCollator.of(manifest, length=1 << 20)
    rows = every_row[:3]
    together = collate(rows)
    generator = torch.Generator().manual_seed(0)
    shape = (*together["input_ids"].shape, manifest.tokenizer["vocabulary_size"])
    logits = torch.randn(shape, generator=generator)
    sums = 0.0
    count = sum(len(row["tokens"]) for row in rows)
    options = DataOptions(1, sum(len(row["tokens"]) for row in every_row), shuffle=False)
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


class Tiny(nn.Module):
    """Logits that depend on one token."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.output = nn.Embedding(11, 6), nn.Linear(6, 11)

    def forward(self, input_ids=None, attention_mask=None, labels=None):
        return {"logits": self.output(self.embedding(input_ids))}


class KeepGradients(TrainerCallback):
    def __init__(self):
        self.found = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        for name, parameter in model.named_parameters():
            self.found[name] = parameter.grad.clone()


def one_step(rows, folder, batch, accumulation, loss_shifts_labels):
    keep = KeepGradients()
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation, max_steps=1, report_to=[],
        remove_unused_columns=False, max_grad_norm=0, learning_rate=0.0, use_cpu=True,
        save_strategy="no", logging_steps=1, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(
        Tiny(), arguments, train_dataset=rows, data_collator=CompactCollator(2, 0, 64),
        compute_loss_func=compact_loss, callbacks=[keep],
    )  # fmt: skip
    # As it is for language models of its own.
    trainer._loss_shifts_labels = loss_shifts_labels
    trainer.train()
    return trainer.state.log_history[0]["loss"], keep.found


@pytest.mark.parametrize("loss_shifts_labels", [False, True])
def test_a_step_may_be_divided_into_any_batches(tmp_path, loss_shifts_labels):
    """Documents of other lengths weigh by what they predict, however a step is divided."""
    rows = [
        {
            "tokens": [token] * size,
            "target_tokens": [token, token + 1] * size,
            "target_weights": [65535, 0] * size,
        }
        for token, size in ((1, 40), (2, 2), (3, 2), (4, 2))
    ]
    loss, gradients = one_step(rows, tmp_path, 4, 1, loss_shifts_labels)
    assert loss < 3
    for batch, accumulation in ((2, 2), (1, 4)):
        other, found = one_step(rows, tmp_path, batch, accumulation, loss_shifts_labels)
        assert other == pytest.approx(loss, rel=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)
