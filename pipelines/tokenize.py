"""documents -> tokens dataset"""

from functools import partial

from corpusmill.corpus import storage
from corpusmill.corpus.datasets import DatasetWriter
from corpusmill.corpus.tokenizers import Tokenizer, describe_tokenizer, load_tokenizer
from corpusmill.pipelines.documents import EncodeJob, FoundDocuments, prepare_tokenizer


def make_job(documents: FoundDocuments, tokenizer: Tokenizer, output: str) -> EncodeJob:
    """The job that writes the tokens dataset `output`, as fast as this tokenizer may be."""
    notes = prepare_tokenizer(tokenizer, documents)
    config = {**documents.config, "tokenizer": tokenizer.content_hash}
    files = tokenizer.files.items()
    return EncodeJob(
        "tokenize",
        documents,
        DatasetWriter(output, "tokens", config),
        {name: partial(storage.write_bytes, data=data) for name, data in files},
        partial(load_tokenizer, backend=tokenizer.backend),
        describe_tokenizer(tokenizer),
        [_describe(tokenizer), *notes],
        backend=tokenizer.backend,
        loaded=tokenizer,
    )


def _describe(tokenizer: Tokenizer) -> str:
    end = tokenizer.token_text(tokenizer.end_of_document)
    guess = " (by its name; --end-of-document names another)" if tokenizer.end_is_guess else ""
    return (
        f"tokenizer: {tokenizer.kind}, {tokenizer.vocab_size:,} ids; documents end with"
        f" {end}{guess}"
    )
