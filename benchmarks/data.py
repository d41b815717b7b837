"""Text and tokens datasets for the benchmarks, made once and kept in benchmarks/.data.

`shared` is Simple English Wikipedia and web pages of the US government (../shared/data), tokenized
with Mistral's 32,000 pieces; `embedded` is the documentation of Python, for machines without.

A corpus that is too small grows by copies of its documents, each cut to pieces of `_PIECE` tokens
in a new order. So a copy brings about as many new 2-, 3-, 4- and 5-grams a token (0.09, 0.32, 0.55,
0.76) as fresh text does (0.09, 0.35, 0.60, 0.74); a plain copy would bring none.
"""

import gzip
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks import measure
from corpusmill.commands import cli, quickstart, tokenize
from corpusmill.corpus.datasets import Completion, DatasetWriter, Manifest, part_name, read_manifest
from corpusmill.corpus.ragged import offsets_of
from corpusmill.corpus.tokens import TokensWriter, read_row_groups, tokens_schema
from corpusmill.ngram_agg.packing import Packing

Tokens = npt.NDArray[np.uint16]

FOLDER = pathlib.Path(__file__).parent / ".data"
SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"
_PIECE = 5
_VOCABULARY = 8192
_DOCUMENTS_PER_BATCH = 512


def run(*arguments: object) -> None:
    """A command of corpusmill.

    Raises:
      SystemExit: it failed.
    """
    if cli.main([str(argument) for argument in arguments]):
        raise SystemExit(f"corpusmill {' '.join(map(str, arguments))} failed")


def texts(path: str | pathlib.Path) -> Iterator[str]:
    """The documents of a JSONL file, plain or compressed."""
    with fsspec.open(str(path), "rt", encoding="utf-8", compression="infer") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def make_once(
    folder: pathlib.Path, source: Mapping[str, object], make: Callable[[], object]
) -> None:
    """Makes the texts of a folder, unless they are there, whole.

    Args:
      folder: with all that is made of these texts; created if missing.
      source: what they are made of; numbers and strings.
      make: makes them.

    Raises:
      SystemExit: the folder has texts of something else.
    """
    path = folder / "source.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        make()
        path.write_text(json.dumps(source))
    there = json.loads(path.read_bytes())
    if there != source:
        raise SystemExit(f"{folder} has text of {there}, not of {source}: name another --folder")


def real_text(corpus: str | None = None, *, only_wiki: bool = False) -> str:
    """The folder of a tokens dataset of text as it is."""
    corpus = corpus or _default_corpus()
    folder = FOLDER / (f"{corpus}-wiki" if only_wiki and corpus == "shared" else corpus)
    if not (folder / "manifest.json").exists():
        inputs, tokenizer = documents(corpus, only_wiki=only_wiki)
        arguments = itertools.chain(*(("--input", str(path)) for path in inputs))
        with measure.silence():
            tokenize.main([*arguments, "--tokenizer", str(tokenizer), "--output", str(folder)])
    return str(folder)


def documents(
    corpus: str | None = None, *, only_wiki: bool = False
) -> tuple[list[pathlib.Path], pathlib.Path]:
    """Files of documents, and of a tokenizer for them."""
    is_shared = (corpus or _default_corpus()) == "shared"
    return _shared(only_wiki) if is_shared else _embedded()


def _default_corpus() -> str:
    return "shared" if SHARED.exists() else "embedded"


def tokens_dataset(tokens: int, corpus: str | None = None, files: int = 4) -> str:
    """The folder of a tokens dataset of about so many tokens."""
    source = real_text(corpus)
    folder = FOLDER / f"{pathlib.Path(source).name}-{tokens}-{files}"
    if not (folder / "manifest.json").exists():
        _write(str(folder), source, tokens, files)
    return str(folder)


def load(folder: str) -> tuple[Tokens, Manifest]:
    """All tokens of a dataset, documents one after the other, and its manifest."""
    manifest = read_manifest(folder, "tokens")
    groups = [group for url in manifest.data_urls(folder) for group in read_row_groups(url)]
    return np.concatenate(groups), manifest


def load_tokens(tokens: int, corpus: str | None = None) -> tuple[Tokens, Packing]:
    """A corpus of about so many tokens in memory, and the packing of its 5-grams."""
    array, manifest = load(tokens_dataset(tokens, corpus))
    return array, Packing.of(manifest.tokenizer, 5)


def _shared(only_wiki: bool) -> tuple[list[pathlib.Path], pathlib.Path]:
    names = ("simplewiki",) if only_wiki else ("simplewiki", "usgovweb")
    inputs = [SHARED / "corpora" / f"{name}.jsonl.gz" for name in names]
    return inputs, SHARED / "tokenizers" / "mistral_v1.model"


def _embedded() -> tuple[list[pathlib.Path], pathlib.Path]:
    FOLDER.mkdir(exist_ok=True)
    path, tokenizer = FOLDER / "embedded.jsonl.gz", FOLDER / "embedded.json"
    texts = [text for _, text in quickstart.embedded_corpus()]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    tokenizer.write_text(quickstart.train_tokenizer(texts, _VOCABULARY))
    return [path], tokenizer


def grown(documents: list[Tokens], tokens: int) -> Iterator[Tokens]:
    """The documents, then shuffled copies of them, until there are so many tokens."""
    for copy in itertools.count():
        for number, document in enumerate(documents):
            if tokens <= 0:
                return
            document = document if copy == 0 else _shuffled(document, seed=(copy, number))
            tokens -= len(document)
            yield document


def _shuffled(document: Tokens, seed: tuple[int, int]) -> Tokens:
    text, end = document[:-1], document[-1:]
    whole = len(text) // _PIECE * _PIECE
    pieces = np.random.default_rng(seed).permutation(text[:whole].reshape(-1, _PIECE))
    return np.concatenate([pieces.ravel(), text[whole:], end])


def _write(folder: str, source: str, tokens: int, files: int) -> None:
    array, manifest = load(source)
    ends = np.flatnonzero(array == manifest.tokenizer["end_of_document"]) + 1
    grown_documents = list(grown(np.split(array, ends[:-1]), tokens))
    writer = DatasetWriter(folder, "tokens", {"source": manifest.content_hash, "tokens": tokens})
    writer.begin()
    writer.copy_tokenizer(source, manifest)
    parts = [part_name(number, files) for number in range(files)]
    for number, part in enumerate(parts):
        with writer.new_file(part) as file, TokensWriter(file.path, array.dtype) as output:
            for first in range(number, len(grown_documents), files * _DOCUMENTS_PER_BATCH):
                last = first + files * _DOCUMENTS_PER_BATCH
                output.write(_token_batch(grown_documents[first:last:files]))
            output.close()
            file.rows, file.tokens = output.rows, output.tokens
        writer.complete(part, Completion((file.written,), {}))
    properties = {"documents": len(grown_documents), "tokens": sum(map(len, grown_documents))}
    completions = writer.completed(["tokenizer", *parts])
    writer.finish(completions, inputs={}, tokenizer=manifest.tokenizer, properties=properties)


def _token_batch(documents: list[Tokens]) -> pa.RecordBatch:
    schema = tokens_schema(documents[0].dtype)
    lengths = np.array([len(document) for document in documents])
    offsets = pa.array(offsets_of(lengths).astype(np.int32))
    lists = pa.ListArray.from_arrays(
        offsets, pa.array(np.concatenate(documents)), type=schema.field("tokens").type
    )
    ids = pa.array([str(number) for number in range(len(documents))])
    return pa.record_batch([ids, lists, pa.array(lengths.astype(np.uint32))], schema=schema)
