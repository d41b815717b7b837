"""How well a model predicts a dataset of tokens."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.outputs import check_output_file, write_output_file
from corpusmill.trainer.batches import IGNORED, Batch
from corpusmill.trainer.data import Loader, TokenDataset
from corpusmill.trainer.distributed import Processes, joined
from corpusmill.trainer.objective import Objective, matrix_type, on_device, predictions
from corpusmill.trainer.opening import open_model
from corpusmill.trainer.options import EvaluateOptions
from corpusmill.trainer.order import DataOptions


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts.

    Attributes:
      loss: mean negative log likelihood of a token, in nats.
      tokens: tokens predicted, each document's end included.
      bytes: of the documents' texts in UTF-8; of examples, end marks included.
      accuracy: share of tokens that were the most likely one; None where nobody asked.
      accuracy_by_position: the same by the place of an id in its windows, for ids of windows.
    """

    loss: float
    tokens: int
    bytes: int
    accuracy: float | None = None
    accuracy_by_position: tuple[float, ...] | None = None

    @property
    def perplexity(self) -> float:
        # Beyond that it has no float.
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits that the documents take, ends included, for each byte of text.

        Unlike the loss it can be compared between tokenizers.
        """
        return self.loss * self.tokens / (math.log(2) * self.bytes)


@torch.no_grad()
def evaluate(
    objective: nn.Module,
    batches: Iterable[Batch],
    processes: Processes,
    *,
    window_ids: int | None = None,
    accuracy: bool = False,
) -> Evaluation:
    """Evaluates a model on the batches of all processes.

    Args:
      objective: an `Objective`, or what `Processes.wrap` made of one.
      batches: this process's share.
      processes: those that evaluate together.
      window_ids: how many ids of a row take up whole windows; None without windows.
      accuracy: whether to count right predictions; takes the logits a second time.

    Raises:
      DataError: there is no text in the batches.
    """
    # Nats, tokens, bytes; then right and all predictions by place in the windows.
    totals = torch.zeros(3, dtype=torch.float64, device=processes.device)
    found = torch.zeros(2, window_ids or 1, dtype=torch.float64, device=processes.device)
    objective.eval()
    for batch in _evenly(batches, processes):
        here = on_device(batch, processes.device)
        plain = here._replace(target_tokens=None, target_weights=None)
        loss = objective(plain, 0.0, 1, predict=accuracy)
        numbers = (loss.next_token, predictions(here), here.bytes.sum())
        # One by one: together, whole numbers would become float32.
        totals += torch.stack([each.double() for each in numbers])
        if accuracy:
            found += _found(here, loss.predicted, window_ids or 1)
    objective.train()
    nats, tokens, text_bytes = processes.add_up(totals).tolist()
    if not text_bytes:
        raise DataError("the dataset to evaluate on has no bytes of text")
    evaluation = Evaluation(nats / tokens, int(tokens), int(text_bytes))
    if not accuracy:
        return evaluation
    right, all_ = processes.add_up(found)
    return replace(
        evaluation,
        accuracy=(right.sum() / all_.sum()).item(),
        accuracy_by_position=tuple((right / all_).tolist()) if window_ids else None,
    )


def _found(batch: Batch, predicted: Tensor, window_ids: int) -> Tensor:
    """Right and all predictions by place in the windows: float64 of shape [2, window_ids]."""
    next_tokens = batch.next_tokens.flatten()
    is_predicted = next_tokens != IGNORED
    places = torch.zeros_like(next_tokens) if batch.places is None else batch.places.flatten()
    places = places[is_predicted] % window_ids
    right = (predicted == next_tokens)[is_predicted]
    counts = [torch.bincount(each, minlength=window_ids) for each in (places[right], places)]
    return torch.stack(counts).double()


def evaluation_loader(
    tokens: str,
    tokenizer: Mapping[str, Any],
    options: DataOptions,
    processes: Processes,
    workers: int,
) -> Loader:
    """One epoch of a dataset of tokens, in the files' order.

    Args:
      tokens: folder or URL of the dataset.
      tokenizer: of the model, as in a manifest.
      options: size of the batches.
      processes: that share the dataset.
      workers: processes that read.

    Raises:
      UsageError: the dataset's tokenizer is another one than the model's.
    """
    dataset = TokenDataset(tokens, options, rank=processes.rank, ranks=processes.ranks, epochs=1)
    expect_tokenizer(tokens, dataset.manifest.tokenizer, tokenizer)
    return Loader(dataset, workers)


def expect_tokenizer(tokens: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raises UsageError where a dataset's tokenizer is another one than a model's."""
    if theirs["content_hash"] != ours["content_hash"]:
        raise UsageError(
            f"{tokens} has tokens of another tokenizer ({theirs['kind']},"
            f" {theirs['content_hash'][:12]}) than the model's ({ours['kind']},"
            f" {ours['content_hash'][:12]}); make it with the model's"
        )


def _evenly(batches: Iterable[Batch], processes: Processes) -> Iterator[Batch]:
    """The batches, filled up so that all processes have as many: they run the model together."""
    if processes.ranks == 1:
        yield from batches
        return
    iterator = iter(batches)
    nothing = torch.full((1, 1), IGNORED)
    filling = Batch(
        torch.zeros_like(nothing), nothing, None, None, torch.zeros(1, dtype=torch.int64)
    )
    while True:
        batch = next(iterator, None)
        going_on = torch.tensor(batch is not None, dtype=torch.int64, device=processes.device)
        if not processes.add_up(going_on).item():
            return
        yield filling if batch is None else batch


def evaluate_model(options: EvaluateOptions) -> None:
    """Evaluates a model on a dataset, prints what came out, and writes it.

    Raises:
      UsageError: there is no such model or dataset, or they don't fit together.
      DataError: something is damaged.
    """
    if options.output is not None:
        check_output_file(options.output)
    trained = open_model(options.run)
    with joined(options.device) as processes:
        length = options.length or trained.config.options.get("length", 0)
        data = DataOptions(options.batch_size, length, shuffle=False, stride=options.stride)
        loader = evaluation_loader(
            options.tokens, trained.config.tokenizer, data, processes, options.workers
        )
        manifest = loader.dataset.manifest
        objective = Objective(trained.model, matrix_type(options.precision, processes.device))
        result = evaluate(
            objective.to(processes.device),
            loader,
            processes,
            window_ids=manifest.tokenizer.get("window_ids"),
            accuracy=True,
        )
        if processes.is_first:
            found = results(result, trained.model.flops_per_token, length)
            print(summary(found, trained.checkpoint, options.tokens))
            if options.output is not None:
                places = {"dataset": options.tokens, "checkpoint": trained.checkpoint}
                facts = {"length": length, "stride": options.stride or length}
                facts |= {"dataset_hash": manifest.content_hash, "tokenizer": manifest.tokenizer}
                text = json.dumps({**found, **places, **facts}, indent=1) + "\n"
                write_output_file(options.output, text.encode())


def results(evaluation: Evaluation, flops_per_token: int, length: int) -> dict[str, Any]:
    """What `corpusmill evaluate` prints and writes, by name.

    Args:
      evaluation: of the model.
      flops_per_token: `Transformer.flops_per_token`.
      length: of sequences in tokens.
    """
    return {
        "loss": evaluation.loss,
        "perplexity": evaluation.perplexity,
        "bits_per_byte": evaluation.bits_per_byte,
        "accuracy": evaluation.accuracy,
        "accuracy_by_position": evaluation.accuracy_by_position,
        "tokens": evaluation.tokens,
        "bytes": evaluation.bytes,
        "bytes_per_token": evaluation.bytes_per_token,
        "bytes_per_sequence": evaluation.bytes_per_token * length,
        "flops_per_byte": flops_per_token / evaluation.bytes_per_token,
    }


def summary(found: Mapping[str, Any], checkpoint: str, tokens: str) -> str:
    """The lines that `corpusmill evaluate` prints of `results`."""
    lines = [_line(*each) for each in found.items() if each[1] is not None]
    return "\n".join([f"{checkpoint} on {tokens}:", *lines])


_DIGITS = ((10, 4), (100, 3), (1000, 2), (10_000, 1))


def _line(name: str, value: Any) -> str:
    label = {"loss": "loss (nats per token)", "flops_per_byte": "FLOPs per byte, forward"}.get(
        name, name.replace("_", " ")
    )
    if isinstance(value, int):
        text = f"{value:,}"
    elif isinstance(value, float):
        # About as many digits as are known.
        digits = next((digits for limit, digits in _DIGITS if value < limit), 0)
        text = f"{value:,.{digits}f}"
    else:
        text = " ".join(f"{each:.4f}" for each in value)
    return f"  {label:<28}{text:>16}"
