"""documents -> examples of compressed text to learn from"""

import dataclasses
from functools import partial

from corpusmill.compress.codecs import Codec, SubwordCodec
from corpusmill.compress.datasets.examples import ExampleOptions, make_examples
from corpusmill.corpus.datasets import DatasetWriter
from corpusmill.corpus.errors import UsageError
from corpusmill.pipelines.compress import codec_config, describe_codec, load_encoder
from corpusmill.pipelines.documents import EncodeJob, FoundDocuments


def make_job(
    documents: FoundDocuments, codec: Codec, options: ExampleOptions, output: str
) -> EncodeJob:
    """The job that writes the examples dataset `output`.

    Raises:
      UsageError: the codec takes no end marks.
    """
    if isinstance(codec, SubwordCodec):
        raise UsageError(
            "examples end documents with a byte that is in no text, which --codec subword can't"
            " encode; tokenize makes a dataset of its ids to learn from"
        )
    cutting = dataclasses.asdict(options)
    config = {**documents.config, **codec_config(codec), **cutting}
    return EncodeJob(
        "examples",
        documents,
        DatasetWriter(output, "examples", config),
        codec.files,
        partial(load_encoder, content_hash=codec.content_hash),
        codec.description,
        describe_codec(codec),
        partial(make_examples, options=options),
        cutting,
    )
