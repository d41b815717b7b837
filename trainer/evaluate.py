"""`corpusmill evaluate`: how well a model predicts a tokens dataset."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from corpus.arguments import make_parser, parse_known, positive
from corpus.errors import DataError, UsageError
from trainer import checkpoints
from trainer.data import IGNORED, Batch, DataOptions, Loader, TokenDataset
from trainer.distributed import DEVICES, Processes, joined
from trainer.models import ModelConfig, Transformer
from trainer.objective import PRECISIONS, Objective, matrix_type, on_device, predictions
from trainer.runs import read_config


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts.

    Attributes:
      loss: mean negative log likelihood of a token, in nats.
      tokens: tokens predicted, each document's end included.
      bytes: of the documents' texts in UTF-8.
    """

    loss: float
    tokens: int
    bytes: int

    @property
    def perplexity(self) -> float:
        # Beyond that it has no float.
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits that the documents take, ends included, for each byte of text.

        Unlike the loss it can be compared between tokenizers.
        """
        return self.loss * self.tokens / (math.log(2) * self.bytes)


@torch.no_grad()
def evaluate(objective: nn.Module, batches: Iterable[Batch], processes: Processes) -> Evaluation:
    """Evaluates a model on the batches of all processes.

    Args:
      objective: an `Objective`, or what `Processes.wrap` made of one.
      batches: this process's share.
      processes: those that evaluate together.

    Raises:
      DataError: there is no text in the batches.
    """
    totals = torch.zeros(3, dtype=torch.float64, device=processes.device)
    objective.eval()
    for batch in _evenly(batches, processes):
        here = on_device(batch, processes.device)
        loss = objective(here._replace(target_tokens=None, target_weights=None), 0.0, 1)
        numbers = (loss.next_token, predictions(here), here.bytes.sum())
        # One by one: together, whole numbers would become float32.
        totals += torch.stack([each.double() for each in numbers])
    objective.train()
    nats, tokens, text_bytes = processes.add_up(totals).tolist()
    if not text_bytes:
        raise DataError("the dataset to evaluate on has no bytes of text")
    return Evaluation(nats / tokens, int(tokens), int(text_bytes))


def evaluation_loader(
    tokens: str,
    tokenizer: Mapping[str, Any],
    options: DataOptions,
    processes: Processes,
    workers: int,
) -> Loader:
    """One epoch of a tokens dataset, in the files' order.

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
    theirs = dataset.manifest.tokenizer
    if theirs["content_hash"] != tokenizer["content_hash"]:
        raise UsageError(
            f"{tokens} has tokens of another tokenizer ({theirs['kind']},"
            f" {theirs['content_hash'][:12]}) than the model's ({tokenizer['kind']},"
            f" {tokenizer['content_hash'][:12]}); tokenize the text with the model's"
        )
    return Loader(dataset, workers)


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


def main(argv: Sequence[str]) -> None:
    """`corpusmill evaluate`"""
    parser = make_parser(
        "evaluate",
        "Shows how well a trained model predicts a tokens dataset: loss in nats a token, perplexity"
        " and bits per byte.",
        "corpusmill evaluate --model run --tokens held-out-tokens",
    )
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="folder or URL of a run or a checkpoint")
    add("--tokens", required=True, metavar="DIR", help="folder or URL of a tokens dataset")
    add("--batch-size", type=positive, default=32, metavar="N", help="sequences at once")
    add("--length", type=positive, metavar="N", help="tokens of a sequence; default: the run's")
    add("--workers", type=int, default=0, metavar="N", help="processes that read; 0: this one")
    add("--precision", choices=PRECISIONS, default="auto", help="auto: bfloat16 on GPUs that can")
    add("--device", choices=DEVICES, default="auto", help="auto: a GPU, if there is one")
    arguments = parse_known(parser, argv)[0]
    run, checkpoint = checkpoints.find(arguments.model)
    config = read_config(run)
    with joined(arguments.device) as processes:
        options = DataOptions(
            arguments.batch_size, arguments.length or config.options["length"], shuffle=False
        )
        loader = evaluation_loader(
            arguments.tokens, config.tokenizer, options, processes, arguments.workers
        )
        model = Transformer(ModelConfig(**config.model))
        model.load_state_dict(checkpoints.load_model(checkpoint))
        objective = Objective(model, matrix_type(arguments.precision, processes.device))
        result = evaluate(objective.to(processes.device), loader, processes)
        if processes.is_first:
            print(summary(result, checkpoint, arguments.tokens))


def summary(evaluation: Evaluation, checkpoint: str, tokens: str) -> str:
    """The lines that `corpusmill evaluate` prints."""
    return "\n".join(
        [
            f"{checkpoint} on {tokens}:",
            f"  {'loss (nats per token)':<28}{evaluation.loss:>16.4f}",
            f"  {'perplexity':<28}{evaluation.perplexity:>16.3f}",
            f"  {'bits per byte':<28}{evaluation.bits_per_byte:>16.4f}",
            f"  {'tokens':<28}{evaluation.tokens:>16,}",
            f"  {'bytes':<28}{evaluation.bytes:>16,}",
        ]
    )
