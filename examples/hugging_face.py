"""Compact targets in the Hugging Face Trainer, with any causal language model.

python examples/hugging_face.py data/tokens data/targets model
"""

import sys

import datasets
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from corpus.datasets import read_manifest
from trainer.hugging_face import CompactCollator, compact_loss


def train(tokens: str, targets: str, output: str, steps: int = 50) -> list[float]:
    """Returns the losses logged."""
    columns = [
        datasets.load_dataset("parquet", data_files=f"{folder}/*.parquet", split="train")
        for folder in (tokens, targets)
    ]
    manifest = read_manifest(targets, "targets")
    vocabulary_size = manifest.tokenizer["vocabulary_size"]
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary_size,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
    )
    trainer = Trainer(
        model,
        TrainingArguments(
            output,
            max_steps=steps,
            per_device_train_batch_size=8,
            learning_rate=1e-2,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            remove_unused_columns=False,
            disable_tqdm=True,
        ),
        train_dataset=datasets.concatenate_datasets(columns, axis=1),
        data_collator=CompactCollator.of(manifest, length=64),
        compute_loss_func=compact_loss,
    )
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


if __name__ == "__main__":
    print(train(*sys.argv[1:]))
