"""The jobs, one module each: what it reads, its Beam pipeline, and how it finishes the dataset."""
