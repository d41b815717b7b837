"""Runs of training: a model from a tokens dataset, and targets; a killed run goes on."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, Protocol

from torch import Tensor

from corpusmill.corpus import storage
from corpusmill.corpus.tokens import text_bytes
from corpusmill.corpus.training_runs import RunConfig
from corpusmill.trainer import checkpoints
from corpusmill.trainer.batches import IGNORED, Batch, model_vocabulary, start_id
from corpusmill.trainer.data import Loader, TokenDataset
from corpusmill.trainer.distributed import Processes, joined
from corpusmill.trainer.evaluate import evaluate, evaluation_loader, expect_tokenizer
from corpusmill.trainer.metrics import Meter, Report
from corpusmill.trainer.model_config import ModelConfig
from corpusmill.trainer.objective import precision_name
from corpusmill.trainer.opening import Trained, open_model
from corpusmill.trainer.options import TrainOptions
from corpusmill.trainer.order import DataOptions, times_read
from corpusmill.trainer.runs import Launch, claim
from corpusmill.trainer.training import Trainer, expect_compiler

# Reading a number from a GPU waits for all the work that is queued there, so it's done rarely.
_STEPS_BETWEEN_READINGS = 10


def train(options: TrainOptions) -> None:
    """Trains a model, or goes on with it from the last checkpoint of its run.

    Raises:
      UsageError: before any work: something doesn't fit, or the output holds something else.
      CorpusmillError: the loss or the gradient is no number any more.
    """
    with joined(options.device) as processes:
        loader = _training_loader(options, processes)
        tokenizer = loader.dataset.manifest.tokenizer
        validation = _validation_loader(options, tokenizer, processes)
        start = _start(options, tokenizer)
        config = _config(options, start, loader, validation, processes)
        epoch = loader.dataset.manifest.tokens
        batches = _first_batches(options, validation, processes)
        if processes.is_first:
            _warn_of_lanes(options, loader.dataset, processes.ranks)
        parameters = None if start is None else start.model.state_dict()
        carry_out(options, config, processes, loader, epoch, batches, parameters)


class Batches(Protocol):
    """An endless stream of batches, which goes on from where its state was taken."""

    def __iter__(self) -> Iterator[Batch]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def carry_out(
    options: TrainOptions,
    config: RunConfig,
    processes: Processes,
    batches: Batches,
    epoch: int,
    validation: Iterable[Batch] | None,
    parameters: Mapping[str, Tensor] | None = None,
) -> None:
    """Begins a run, or goes on with it from its last checkpoint.

    Args:
      options: how it trains.
      config: what decides its result; it goes on only with the same.
      processes: those that train together.
      batches: this process's share of what is learnt.
      epoch: tokens that the data has.
      validation: this process's share of what to evaluate on.
      parameters: what the model begins with; else the seed decides.

    Raises:
      UsageError: the output holds something else, or there is nothing to compile with.
      CorpusmillError: the loss or the gradient is no number any more.
    """
    if options.compile:
        expect_compiler(processes.device)
    launch = claim(options.output, config) if processes.is_first else None
    trainer = Trainer(options, ModelConfig(**config.model), processes, parameters)
    run = _Run(options, launch, processes, trainer, batches, epoch, validation)
    run.restore()
    run.go()


def _training_loader(options: TrainOptions, processes: Processes) -> Loader:
    data = DataOptions(options.batch_size, options.length, options.seed, lanes=options.lanes)
    dataset = TokenDataset(
        options.tokens,
        data,
        options.targets,
        counts=options.counts,
        compact=options.target,
        rank=processes.rank,
        ranks=processes.ranks,
    )
    return Loader(dataset, options.workers)


def _warn_of_lanes(options: TrainOptions, dataset: TokenDataset, ranks: int) -> None:
    readers = ranks * max(1, options.workers)
    times = times_read(dataset.lanes, readers)
    if times > 1:
        print(
            f"warning: {readers} readers (processes x loader workers) share {dataset.lanes} lanes,"
            f" so that each row group is read {times} times; a new run with --lanes {readers}, and"
            " as many row groups, reads it once"
        )


def _start(options: TrainOptions, tokenizer: Mapping[str, Any]) -> Trained | None:
    """The model that the run begins with."""
    if options.start is None:
        return None
    start = open_model(options.start)
    expect_tokenizer(options.tokens, tokenizer, start.config.tokenizer)
    return start


class _FirstBatches:
    """The first batches of a loader, each time.

    A document's bytes are known where it ends, and the last ones end in batches that are left out;
    so these have the bytes that as many tokens of the whole dataset have.
    """

    def __init__(self, loader: Loader, count: int, bytes_per_token: float) -> None:
        self._loader, self._count, self._bytes_per_token = loader, count, bytes_per_token

    def __iter__(self) -> Iterator[Batch]:
        for batch in islice(self._loader, self._count):
            tokens = (batch.next_tokens != IGNORED).sum(1)
            yield batch._replace(bytes=tokens.double() * self._bytes_per_token)


def _first_batches(
    options: TrainOptions, loader: Loader | None, processes: Processes
) -> Iterable[Batch] | None:
    """This process's share of the batches to evaluate on."""
    if options.validate is None or loader is None or options.validate_tokens is None:
        return loader
    batches = -(-options.validate_tokens // (options.batch_size * options.length))
    count = len(range(processes.rank, batches, processes.ranks))
    manifest = loader.dataset.manifest
    size = text_bytes(options.validate, manifest)
    return _FirstBatches(loader, count, size / max(1, manifest.tokens))


def _validation_loader(
    options: TrainOptions, tokenizer: Mapping[str, Any], processes: Processes
) -> Loader | None:
    if options.validate is None:
        return None
    data = DataOptions(options.batch_size, options.length, shuffle=False)
    return evaluation_loader(options.validate, tokenizer, data, processes, options.workers)


def _config(
    options: TrainOptions,
    start: Trained | None,
    loader: Loader,
    validation: Loader | None,
    processes: Processes,
) -> RunConfig:
    tokenizer = loader.dataset.manifest.tokenizer
    precision = precision_name(options.precision, processes.device)
    decisive = options.decisive(processes.ranks, precision)
    if start is None:
        model = options.model_config(model_vocabulary(tokenizer), start_id(tokenizer))
    else:
        model = options.with_documents(start.model.config, start_id(tokenizer))
        decisive["from"] = storage.sha256(checkpoints.model_url(start.checkpoint))
    manifests = {
        "tokens": loader.dataset.manifest,
        "targets": loader.dataset.targets_manifest,
        "counts": loader.dataset.counts_manifest,
        "validate": None if validation is None else validation.dataset.manifest,
    }
    return RunConfig(
        options=decisive,
        model=dataclasses.asdict(model),
        tokenizer=tokenizer,
        data={name: each.content_hash if each else None for name, each in manifests.items()},
        places={name: getattr(options, name) for name in manifests} | {"from": options.start},
    )


class _Run:
    """A run at work."""

    def __init__(
        self,
        options: TrainOptions,
        launch: Launch | None,
        processes: Processes,
        trainer: Trainer,
        batches: Batches,
        epoch: int,
        validation: Iterable[Batch] | None,
    ) -> None:
        """Takes what `carry_out` has got; the first process alone has a launch."""
        self._options, self._launch = options, launch
        self._processes, self._trainer = processes, trainer
        self._batches, self._epoch, self._validation = batches, epoch, validation
        self._meter = Meter()
        self._report: Report | None = None

    def restore(self) -> None:
        """Puts everything back to where it was at the last checkpoint, if there is one."""
        found = None
        if self._launch is not None:
            found = checkpoints.newest_whole(self._launch.run, partial(print, file=sys.stderr))
        # The first process alone holds a model and an optimizer as a whole.
        others = self._processes.share(found and found.without_parameters())
        checkpoint = found or others
        if checkpoint is None:
            return
        with checkpoints.fitting(checkpoints.folder_of(self._options.output, checkpoint.step)):
            self._trainer.restore(checkpoint)
            self._batches.load_state_dict(checkpoint.state["loader"])
            self._meter = Meter(checkpoint.state["tokens"], checkpoint.state["seconds"])

    def go(self) -> None:
        """Takes the steps that are left."""
        steps, done = self._options.steps, self._trainer.step
        if done >= steps:
            self._say(f"{self._options.output} is complete already: {done} steps")
            return
        self._describe()
        with contextlib.ExitStack() as stack:
            if self._launch is not None:
                report = Report(self._launch, done, steps, self._meter.tokens)
                self._report = stack.enter_context(report)
            self._take_steps()
        self._say(
            f"run {self._options.output}: {steps} steps, {self._meter.tokens:,} tokens, done in"
            f" {self._meter.seconds:.1f} s"
        )

    def _describe(self) -> None:
        options, processes = self._options, self._processes
        sequences = options.batch_size * options.accumulate * processes.ranks
        in_all = options.steps * sequences * options.length
        epochs = in_all / self._epoch
        precision = precision_name(options.precision, processes.device)
        self._say(
            f"model of {self._trainer.parameters:,} parameters in {precision} on"
            f" {processes.ranks} {processes.device.type};"
            f" {options.steps:,} steps of {sequences} x {options.length:,} tokens,"
            f" {epochs:.3g} epochs"
        )
        if options.validate_tokens is not None:
            self._say(f"validation on the first {options.validate_tokens:,} tokens or so")
        if options.warmup_steps >= options.steps:
            self._say(
                f"warning: all {options.steps:,} steps are warm-up (--warmup"
                f" {options.warmup_steps:,}), so that the learning rate never gets to its highest"
            )
        if self._trainer.step:
            self._say(f"going on after step {self._trainer.step:,}")

    def _take_steps(self) -> None:
        batches = iter(self._batches)
        on_cpu = self._processes.device.type == "cpu"
        while self._trainer.step < self._options.steps:
            outcome = self._trainer.take_step(list(islice(batches, self._options.accumulate)))
            self._meter.add(self._trainer.step, self._trainer.learning_rate, outcome)
            if self._due(1 if on_cpu else _STEPS_BETWEEN_READINGS):
                self._tell_steps()
            if self._validation is not None and self._due(self._options.validate_every):
                self._validate(self._validation)
            if self._due(self._options.checkpoint_every):
                self._save()

    def _due(self, every: int) -> bool:
        step = self._trainer.step
        return step % every == 0 or step == self._options.steps

    def _tell_steps(self) -> None:
        lines = self._meter.read()
        if self._report is not None:
            self._report.steps(lines)

    def _validate(self, batches: Iterable[Batch]) -> None:
        self._tell_steps()
        result = evaluate(self._trainer.objective, batches, self._processes)
        if self._report is not None:
            self._report.validation(
                {
                    "step": self._trainer.step,
                    "tokens": self._meter.tokens,
                    "seconds": self._meter.seconds,
                    "validation_loss": result.loss,
                    "validation_bits_per_byte": result.bits_per_byte,
                }
            )
        self._meter.restart()

    def _save(self) -> None:
        """Writes a checkpoint, after its metrics: those of later steps are dropped on resuming."""
        self._tell_steps()
        state = {
            "loader": self._batches.state_dict(),
            "tokens": self._meter.tokens,
            "seconds": self._meter.seconds,
        }
        checkpoint = self._trainer.checkpoint(state)
        if self._launch is not None and self._report is not None:
            self._report.publish()
            checkpoints.save(self._launch, checkpoint)
            checkpoints.prune(self._launch.run, self._options.keep)
        self._meter.restart()

    def _say(self, text: str) -> None:
        if self._processes.is_first:
            print(text)
