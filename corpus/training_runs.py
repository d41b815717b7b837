"""The files in the folder of a training run: the trainer writes them, a report reads them."""

METRICS = "metrics.jsonl"
CONFIG = "config.json"
