"""Corpora for whole jobs, and what is done with the datasets that come out."""

import hashlib
import json
import random
from pathlib import Path

import pyarrow.parquet as pq

from corpusmill.commands import cli
from corpusmill.corpus.datasets import read_manifest


def run(*arguments):
    assert cli.main([str(argument) for argument in arguments]) == 0


def file_hashes(folder):
    """The sha256 of every file below a folder but of the manifest, which has times in it."""
    folder = Path(folder)
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def assert_same_data(folder, other):
    assert file_hashes(folder) == file_hashes(other)
    first, second = (read_manifest(str(each)) for each in (folder, other))
    assert first.content_hash == second.content_hash


def random_texts(seed, words=20_000, documents=60):
    generator = random.Random(seed)
    vocabulary = ["".join(generator.choices("abcdefghijklmno é", k=6)) for _ in range(5000)]
    texts = []
    for _ in range(documents):
        length = generator.randrange(2 * words // documents)
        chosen = (vocabulary[int(5000 * generator.random() ** 2)] for _ in range(length))
        texts.append(" ".join(chosen))
    return texts


def write_jsonl(path, texts):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def documents_of(folder):
    """The documents of a tokens dataset as lists of ids, read with pyarrow alone."""
    end = read_manifest(str(folder)).tokenizer["end_of_document"]
    documents = [[]]
    for path in sorted(Path(folder).glob("*.parquet")):
        for row in pq.read_table(path)["tokens"].to_pylist():
            documents[-1].extend(row)
            if row[-1] == end:
                documents.append([])
    return documents[:-1]
