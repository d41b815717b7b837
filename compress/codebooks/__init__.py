"""Codebooks: the file, its look-up, and how one is fitted to text or frozen from a byte model."""
