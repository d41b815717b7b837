"""Compact targets in the Hugging Face Trainer, with any causal language model.

python examples/hugging_face.py data/tokens data/targets model
"""

import sys

import datasets
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from corpusmill.corpus.datasets import read_manifest
from corpusmill.trainer.hugging_face import CompactCollator, compact_loss, target_rows


def train(tokens: str, targets: str, output: str, steps: int = 50) -> list[float]:
    """Returns the losses logged."""
    manifest = read_manifest(targets, "targets")
    names = [record.name for record in read_manifest(tokens, "tokens").data_files]
    rows = datasets.IterableDataset.from_generator(
        target_rows, gen_kwargs={"tokens": tokens, "targets": targets, "names": names}
    )
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
        train_dataset=rows.shuffle(seed=0, buffer_size=1000),
        data_collator=CompactCollator.of(manifest, length=64),
        compute_loss_func=compact_loss,
    )
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


if __name__ == "__main__":
    print(train(*sys.argv[1:]))
