"""Small trained models of every sort of ids, made when a test asks for them."""

import io

import pytest
import sentencepiece
import tokenizers

from tests.codebooks import small_book
from tests.integration.samples import random_texts, run, write_jsonl

SENTENCES = [
    "The river rises in the hills, and the town lies where it meets the sea.",
    "thé à la crème, 猫は好きです。 🐈‍⬛",
    "  def f(x):\n\treturn {x: [x]}  # №\r\n",
]


@pytest.fixture(scope="session")
def trained_model(tmp_path_factory):
    """Gives the folder of a run on the ids of a sort: a name in `_MAKERS`."""
    folder = tmp_path_factory.mktemp("models")
    write_jsonl(folder / "in.jsonl", [*SENTENCES, *random_texts(1, words=600, documents=20)])

    def make(kind):
        output = folder / f"{kind}-run"
        if not output.exists():
            data = folder / kind
            command, options = _MAKERS[kind](folder)
            run(command, "--input", folder / "in.jsonl", *options, "--output", data)
            options = ["--steps", 2, "--batch-size", 2, "--length", 32, "--device", "cpu"]
            run("train", "--tokens", data, "--output", output, "--size", "500k", *options)
        return output

    return make


def byte_level_bpe(*, added=()):
    """A trained byte-level BPE as a `tokenizer.json`, without an end of documents of its own."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=letters, special_tokens=list(added), show_progress=False
    )
    tokenizer.train_from_iterator([*SENTENCES, *random_texts(1, words=600)], trainer)
    return tokenizer


def _json(folder, *added):
    path = folder / f"tokenizer-{len(added)}.json"
    byte_level_bpe(added=added).save(str(path))
    return path


def _sentencepiece(folder):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(random_texts(1, words=2000)),
        model_writer=out,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path = folder / "sp.model"
    path.write_bytes(out.getvalue())
    return path


def _codebook(folder):
    path = folder / "small.codebook"
    if not path.exists():
        small_book().write(str(path))
    return path


_MAKERS = {
    "bytes": lambda _: ("tokenize", ["--tokenizer", "bytes"]),
    "new-end": lambda folder: ("tokenize", ["--tokenizer", _json(folder)]),
    "own-end": lambda folder: ("tokenize", ["--tokenizer", _json(folder, "<|endoftext|>")]),
    "sentencepiece": lambda folder: ("tokenize", ["--tokenizer", _sentencepiece(folder)]),
    "codebook": lambda folder: ("compress", ["--codebook", _codebook(folder)]),
    "flexible": lambda folder: (
        "compress",
        ["--codebook", _codebook(folder), "--parse", "flexible"],
    ),
    "raw": lambda _: ("compress", ["--codec", "bytes"]),
    "gzip": lambda _: ("compress", ["--codec", "gzip"]),
    "subword": lambda folder: ("compress", ["--codec", "subword", "--tokenizer", _json(folder)]),
}
