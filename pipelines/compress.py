"""documents -> compressed dataset"""

from functools import partial
from typing import Any

from corpusmill.compress.codecs import (
    Codec,
    SubwordCodec,
    codec_on_device,
    device_of,
    expect_codec,
)
from corpusmill.compress.datasets.compressed import CodecEncoder
from corpusmill.corpus.datasets import DatasetWriter
from corpusmill.corpus.tokenizers import use_backend
from corpusmill.pipelines.documents import (
    EncodeJob,
    FoundDocuments,
    in_large_batches,
    one_row_each,
    prepare_tokenizer,
)


def make_job(
    documents: FoundDocuments, codec: Codec, output: str, device: str = "cpu"
) -> EncodeJob:
    """The job that writes the compressed dataset `output`.

    The device computes the codec's network, if it has one.
    """
    notes = describe_codec(codec)
    if isinstance(codec, SubwordCodec):
        notes += prepare_tokenizer(codec.tokenizer, documents)
    config = {**documents.config, **codec_config(codec)}
    network_device = device_of(codec, device)
    return EncodeJob(
        "compress",
        documents,
        DatasetWriter(output, "compressed", config),
        codec.files,
        partial(
            load_encoder, content_hash=codec.content_hash, device=device, backend=codec.backend
        ),
        codec.description,
        notes,
        one_row_each if network_device is None else in_large_batches,
        device=network_device,
        backend=codec.backend,
    )


def describe_codec(codec: Codec) -> list[str]:
    """The lines that a job says about it."""
    options = [f"{name} {value}" for name, value in codec.options.items() if value is not None]
    known = ", ".join([codec.kind, *options, f"{codec.vocab_size:,} ids", codec.content_hash])
    lines = [f"codec: {known.replace('_', ' ')}"]
    if not codec.is_lossless:
        lines.append("this codec loses text: many documents will not come back")
    return lines


def codec_config(codec: Codec) -> dict[str, Any]:
    """What a dataset's configuration says of the codec."""
    return {"codec": codec.kind, "codec_hash": codec.content_hash, **codec.options}


def load_encoder(
    folder: str, content_hash: str, device: str = "cpu", backend: str | None = None
) -> CodecEncoder:
    """What workers encode with, from a folder with the codec of this hash."""
    codec = expect_codec(folder, content_hash)
    if isinstance(codec, SubwordCodec) and backend is not None:
        use_backend(codec.tokenizer, backend)
    return CodecEncoder(codec_on_device(codec, device))
