"""Byte-level BPE, which codebooks and models of their ids are compared with."""

from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers


def train_bpe(
    texts: Iterable[str],
    *,
    pre_tokenized: bool,
    vocabulary: int = 1 << 16,
    special_tokens: Sequence[str] = (),
) -> tokenizers.Tokenizer:
    """A byte-level BPE; without pre-tokenization only line ends stop merges."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=pre_tokenized
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special_tokens),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    parts = texts if pre_tokenized else (line for text in texts for line in text.splitlines(True))
    tokenizer.train_from_iterator(parts, trainer)
    return tokenizer
