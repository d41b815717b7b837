"""A transformer byte model from text, made exact at the end."""

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from corpusmill.compress.byte_models import TransformerModel, save_model
from corpusmill.compress.byte_models.transformer_state import START
from corpusmill.compress.byte_models.transformer_weights import (
    LARGEST_WIDTH,
    LayerWeights,
    NetworkWeights,
)
from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.compress.byte_tokens import check_bytes
from corpusmill.compress.datasets.samples import documents_text, sample_text
from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.tokenizers import describe_tokenizer, load_tokenizer
from corpusmill.corpus.training_runs import RunConfig
from corpusmill.trainer.batches import Batch
from corpusmill.trainer.byte_runs import ByteRunOptions, ByteRuns
from corpusmill.trainer.distributed import Processes, joined
from corpusmill.trainer.evaluate import evaluate
from corpusmill.trainer.models import Transformer
from corpusmill.trainer.objective import Objective, precision_name
from corpusmill.trainer.opening import open_model
from corpusmill.trainer.options import M1Options, TrainOptions
from corpusmill.trainer.train import carry_out

# More text is left aside: all of it is held in memory, and a small model learns no more from it.
_TEXT_BYTES = 1 << 30
# The text to validate on is a sample of runs, always the same.
_VALIDATION_TEXT_BYTES = 64 << 20
_VALIDATION_BYTES = 1 << 16
_VALIDATION_RUNS = 256


def train_m1(options: M1Options) -> None:
    """Trains a byte model, or goes on with it; its folder becomes that of a saved `ByteModel`.

    Raises:
      UsageError: before any work: something doesn't fit, or the output holds something else.
      CorpusmillError: the loss or the gradient is no number any more.
    """
    training, runs = options.training, _runs(options)
    with joined(training.device) as processes:
        text, held_out = _text(options), _held_out(options)
        batches = ByteRuns(text, runs, processes.rank, processes.ranks)
        config = _config(options, text, held_out, processes)
        validation = _validation(options, held_out, processes)
        carry_out(training, config, processes, batches, len(text.data), validation)
        if processes.is_first:
            # Alone, because the others have nothing more to do.
            alone = Processes(torch.device("cpu"))
            _finish(training, _validation(options, held_out, alone), alone)


def _runs(options: M1Options) -> ByteRunOptions:
    """The runs that are learnt; raises UsageError where no exact model could be made of them."""
    training = options.training
    width = training.model_config(START + 1, START).width
    if width > LARGEST_WIDTH:
        raise UsageError(f"--width {width} is more than {LARGEST_WIDTH:,}, the largest exact width")
    return ByteRunOptions(options.starts, training.length, training.batch_size, training.seed)


def _text(options: M1Options) -> ByteStrings:
    if options.input:
        return documents_text(options.input, _TEXT_BYTES)
    return _tokens_text(options.training.tokens, _TEXT_BYTES)


def _held_out(options: M1Options) -> ByteStrings | None:
    validate = options.training.validate
    return None if validate is None else _tokens_text(validate, _VALIDATION_TEXT_BYTES)


def _tokens_text(tokens: str, most_bytes: int) -> ByteStrings:
    manifest = read_manifest(tokens, "tokens")
    check_bytes(tokens, manifest)
    return sample_text(tokens, manifest, most_bytes)


def _validation(
    options: M1Options, text: ByteStrings | None, processes: Processes
) -> ByteRuns | None:
    if text is None:
        return None
    runs = ByteRunOptions(options.starts, options.training.length, _VALIDATION_RUNS, seed=0)
    count = max(1, _VALIDATION_BYTES // (runs.length * runs.batch_size))
    return ByteRuns(text, runs, processes.rank, processes.ranks, count)


def _config(
    options: M1Options, text: ByteStrings, held_out: ByteStrings | None, processes: Processes
) -> RunConfig:
    training = options.training
    precision = precision_name(training.precision, processes.device)
    tokenizer = describe_tokenizer(load_tokenizer("bytes"))
    return RunConfig(
        options={**training.decisive(processes.ranks, precision), "starts": options.starts},
        model=dataclasses.asdict(training.model_config(START + 1, START)),
        tokenizer=tokenizer,
        data={"text": _hash(text), "validate": None if held_out is None else _hash(held_out)},
        places={
            "text": training.tokens or " ".join(options.input),
            "validate": training.validate,
        },
    )


def _hash(text: ByteStrings) -> str:
    digest = hashlib.sha256(text.offsets.astype("<i8").tobytes())
    digest.update(np.ascontiguousarray(text.data).data)
    return digest.hexdigest()


def network_weights(network: Transformer) -> NetworkWeights:
    """A network's weights by what they are for."""

    def array(module: Any) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = module.weight.detach().numpy()
        return found

    def layer(block: Any) -> LayerWeights:
        attention, mlp = block.attention, block.mlp
        return LayerWeights(
            array(block.attention_norm),
            array(attention.query),
            array(attention.key),
            array(attention.value),
            array(attention.output),
            array(block.mlp_norm),
            array(mlp.gate),
            array(mlp.inner),
            array(mlp.output),
        )

    layers = [layer(block) for block in network.blocks]
    return NetworkWeights(array(network.embedding), layers, array(network.norm))


def _finish(training: TrainOptions, validation: ByteRuns | None, alone: Processes) -> None:
    """Saves the exact model of the last checkpoint, and says what exactness costs."""
    network = open_model(training.output).model
    heads = network.config.heads
    try:
        model = TransformerModel.quantized(network_weights(network), heads, training.length)
    except ValueError as error:
        raise DataError(f"{training.output} can't become an exact byte model: {error}") from error
    save_model(model, training.output)
    print(f"byte model {training.output}: id {model.content_hash}")
    if validation is None:
        return
    floating = evaluate(Objective(network, torch.float32), validation, alone)
    print(f"  {'bits per byte, float':<28}{floating.bits_per_byte:>16.4f}")
    print(f"  {'bits per byte, exact':<28}{bits_per_byte(model, validation):>16.4f}")


def bits_per_byte(model: TransformerModel, batches: Iterable[Batch]) -> float:
    """What the bytes of runs take if they are coded with a model's frequencies."""
    bits, count = 0.0, 0
    for batch in batches:
        following = batch.next_tokens.numpy()
        state = model.start(len(following))
        for place in range(following.shape[1]):
            rows = np.flatnonzero(following[:, place] >= 0)
            read = following[rows, place]
            bits -= float(np.log2(state.frequencies()[rows, read] / 2**model.precision).sum())
            count += len(rows)
            state.read(rows, read.astype(np.uint8))
    return bits / count
