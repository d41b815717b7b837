"""documents -> tokens dataset"""

from functools import partial

from corpusmill.corpus import storage
from corpusmill.corpus.datasets import DatasetWriter
from corpusmill.corpus.tokenizers import Tokenizer, describe_tokenizer, load_tokenizer
from corpusmill.pipelines.documents import EncodeJob, FoundDocuments


def make_job(documents: FoundDocuments, tokenizer: Tokenizer, output: str) -> EncodeJob:
    """The job that writes the tokens dataset `output`."""
    config = {**documents.config, "tokenizer": tokenizer.content_hash}
    files = tokenizer.files.items()
    return EncodeJob(
        "tokenize",
        documents,
        DatasetWriter(output, "tokens", config),
        {name: partial(storage.write_bytes, data=data) for name, data in files},
        partial(load_tokenizer, backend=tokenizer.backend),
        describe_tokenizer(tokenizer),
        backend=tokenizer.backend,
        loaded=tokenizer,
    )
