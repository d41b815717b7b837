"""One script a question; `python -m benchmarks.NAME` runs it, `--help` shows its sizes."""
