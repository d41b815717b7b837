"""Text from a model: a prompt's continuation, id by id."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from corpusmill.corpus.errors import UsageError
from corpusmill.trainer.distributed import joined
from corpusmill.trainer.models import Cache, Transformer
from corpusmill.trainer.opening import open_model
from corpusmill.trainer.options import GenerateOptions
from corpusmill.trainer.texts import open_texts


def generate(options: GenerateOptions) -> Iterator[str]:
    """The texts that a model makes, prompts included, piece by piece as they come.

    Texts end with a line feed, and where there are several, begin with a line that numbers them.
    Number n is the same however many there are.

    Raises:
      UsageError: there is no such model, it has no tokenizer, or its ids can't be read one by one.
      DataError: something is damaged.
    """
    trained = open_model(options.run)
    texts = open_texts(trained.run, trained.config)
    texts.stream()  # refuses what can't be read as it comes, before any work
    prompt = [texts.start, *texts.encode(options.prompt)]
    with joined(options.device) as processes:
        if processes.ranks > 1:
            raise UsageError("generate runs in one process; start it without torchrun")
        model = trained.model.to(processes.device)
        for number in range(options.number):
            if options.number > 1:
                yield f"--- text {number + 1} ---\n"
            stream, draws = texts.stream(), _draws(options.seed, number)
            reader = Reader(model, trained.config.options["length"])
            yield "".join(map(stream.add, prompt[1:]))
            logits = reader.read(prompt)
            for _ in range(options.max_tokens):
                possible = logits[: texts.vocabulary_size]
                chosen = choose(possible, options.temperature, options.top_p, next(draws))
                if chosen == texts.end:
                    break
                yield stream.add(chosen)
                logits = reader.read([chosen])
            yield stream.finish() + "\n"


class Reader:
    """A model that reads a growing row of ids."""

    def __init__(self, model: Transformer, length: int) -> None:
        """Takes a model, and how many ids it has learnt to read at once."""
        self._model, self._length = model.eval(), length
        self._ids: list[int] = []
        self._cache = self._empty()

    def _empty(self) -> Cache:
        return Cache(self._model.config, 1, self._model.output_weight.device)

    @torch.no_grad()
    def read(self, ids: Sequence[int]) -> Tensor:
        """Reads more ids.

        What was read is kept; where that is more than fits, the last half of as many as fit is
        read anew, and from there on.

        Returns:
          The logits of what follows, float32 of shape [rows of the embedding], on the CPU.
        """
        self._ids += ids
        if self._cache.tokens.shape[1] + len(ids) > self._length:
            self._cache = self._empty()
            ids = self._ids = self._ids[-max(1, self._length // 2) :]
        row = torch.tensor([ids], device=self._model.output_weight.device)
        hidden = self._model(row, self._cache)[0, -1]
        return (self._model.output_weight @ hidden).float().cpu()


def choose(logits: Tensor, temperature: float, top_p: float, draw: float) -> int:
    """The id that a draw from 0 to 1 stands for, the most likely ids first, equals by id.

    Only the fewest likely ids that have `top_p` of the probability are drawn (nucleus sampling,
    Holtzman et al. 2020, arXiv 1904.09751).

    Args:
      logits: floating point of shape [ids].
      temperature: what they are divided by; 0 for the most likely id.
      top_p: above 0, up to 1.
      draw: from 0, below 1.
    """
    values = logits.double().numpy()
    if temperature == 0:
        return int(values.argmax())
    weights = np.exp((values - values.max()) / temperature)
    order = np.argsort(-weights, kind="stable")
    sums = np.cumsum(weights[order])
    kept = int(np.searchsorted(sums, top_p * sums[-1])) + 1
    sums = sums[: min(kept, len(sums))]
    return int(order[min(np.searchsorted(sums, draw * sums[-1], "right"), len(sums) - 1)])


def _draws(seed: int, text: int) -> Iterator[float]:
    """Numbers from 0, below 1, which no version of numpy changes."""
    source = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(text,)))
    while True:
        yield float(source.random_raw() >> 11) * 2.0**-53
