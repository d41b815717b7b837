"""lm-evaluation-harness on an exported model, with a task of one's own.

corpusmill export runs/compact --output model
python examples/harness.py model held-out.jsonl
"""

import sys
from pathlib import Path

import lm_eval
import yaml

TASK = Path(__file__).with_name("bits_per_byte.yaml")


def bits_per_byte(model: str, documents: str) -> float:
    """Of the texts in a file of JSON lines, by a model in a folder of `corpusmill export`."""
    task = yaml.safe_load(TASK.read_text(encoding="utf-8"))
    task["dataset_kwargs"] = {"data_files": {"test": documents}}
    found = lm_eval.simple_evaluate(
        model="hf",
        # The harness itself puts the token before each document that the model has seen there.
        model_args={
            "pretrained": model,
            "device": "cpu",
            "dtype": "float32",
            "add_bos_token": False,
        },
        tasks=[task],
        batch_size=8,
        bootstrap_iters=0,
        log_samples=False,
    )
    return found["results"][task["task"]]["bits_per_byte,none"]


if __name__ == "__main__":
    print(bits_per_byte(*sys.argv[1:]))
