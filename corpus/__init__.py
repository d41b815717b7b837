"""What all jobs share: reading corpora, tokenizers, datasets and their files. No Beam, no torch."""
