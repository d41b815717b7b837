"""`corpusmill train`: a model from a tokens dataset, and targets; a killed run goes on."""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol

from corpus.arguments import integer, make_parser, parse_known
from corpus.datasets import read_manifest
from corpus.errors import UsageError
from ngram_agg.target_options import (
    TARGET_ARGUMENTS,
    TargetOptions,
    add_target_arguments,
    target_options,
)
from trainer import checkpoints
from trainer.data import Batch, DataOptions, Loader, TokenDataset, model_vocabulary
from trainer.distributed import DEVICES, PARALLEL, Processes, joined
from trainer.evaluate import DATASETS, evaluate, evaluation_loader
from trainer.metrics import Meter, Report
from trainer.models import SIZES, ModelConfig
from trainer.objective import PRECISIONS, matrix_type
from trainer.optim import OPTIMIZERS, SCHEDULES
from trainer.runs import RunConfig, claim
from trainer.training import MIX_SCHEDULES, OBJECTIVES, Trainer, TrainOptions

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
        model = ModelConfig.of(options.model, model_vocabulary(tokenizer))
        config = _config(options, model, loader, validation, processes)
        epoch = sum(file.tokens for file in loader.dataset.manifest.data_files)
        carry_out(options, config, processes, loader, epoch, validation)


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
) -> None:
    """Begins a run, or goes on with it from its last checkpoint.

    Args:
      options: how it trains.
      config: what decides its result; it goes on only with the same.
      processes: those that train together.
      batches: this process's share of what is learnt.
      epoch: tokens that the data has.
      validation: this process's share of what to evaluate on.

    Raises:
      UsageError: the output holds something else.
      CorpusmillError: the loss or the gradient is no number any more.
    """
    checkpoint = None
    if processes.is_first:
        claim(options.output, config)
        checkpoint = checkpoints.newest_whole(options.output, partial(print, file=sys.stderr))
    checkpoint = processes.share(checkpoint)
    trainer = Trainer(options, ModelConfig(**config.model), processes)
    run = _Run(options, processes, trainer, batches, epoch, validation)
    if checkpoint is not None:
        run.restore(checkpoint)
    run.go()


def _training_loader(options: TrainOptions, processes: Processes) -> Loader:
    data = DataOptions(options.batch_size, options.length, options.seed)
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


def _validation_loader(
    options: TrainOptions, tokenizer: Mapping[str, Any], processes: Processes
) -> Loader | None:
    if options.validate is None:
        return None
    data = DataOptions(options.batch_size, options.length, shuffle=False)
    return evaluation_loader(options.validate, tokenizer, data, processes, options.workers)


def _config(
    options: TrainOptions,
    model: ModelConfig,
    loader: Loader,
    validation: Loader | None,
    processes: Processes,
) -> RunConfig:
    manifests = {
        "tokens": loader.dataset.manifest,
        "targets": loader.dataset.targets_manifest,
        "counts": loader.dataset.counts_manifest,
        "validate": None if validation is None else validation.dataset.manifest,
    }
    return RunConfig(
        options=options.decisive(processes),
        model=dataclasses.asdict(model),
        tokenizer=loader.dataset.manifest.tokenizer,
        data={name: each.content_hash if each else None for name, each in manifests.items()},
        places={name: getattr(options, name) for name in manifests},
    )


class _Run:
    """A run at work."""

    def __init__(
        self,
        options: TrainOptions,
        processes: Processes,
        trainer: Trainer,
        batches: Batches,
        epoch: int,
        validation: Iterable[Batch] | None,
    ) -> None:
        self._options, self._processes, self._trainer = options, processes, trainer
        self._batches, self._epoch, self._validation = batches, epoch, validation
        self._meter = Meter()
        self._report: Report | None = None

    def restore(self, folder: str) -> None:
        """Puts everything back to where it was at a checkpoint."""
        checkpoint = checkpoints.load(folder)
        with checkpoints.fitting(folder):
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
            if self._processes.is_first:
                report = Report(self._options.output, done, steps, self._meter.tokens)
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
        precision = str(matrix_type(options.precision, processes.device)).removeprefix("torch.")
        self._say(
            f"model {options.model} in {precision} on {processes.ranks} {processes.device.type};"
            f" {options.steps:,} steps of {sequences} x {options.length:,} tokens,"
            f" {epochs:.3g} epochs"
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
        if self._report is not None:
            self._report.publish()
            checkpoints.save(self._options.output, checkpoint)
            checkpoints.prune(self._options.output, self._options.keep)
        self._meter.restart()

    def _say(self, text: str) -> None:
        if self._processes.is_first:
            print(text)


def main(argv: Sequence[str]) -> None:
    """`corpusmill train`"""
    parser = make_parser(
        "train",
        "Trains a language model on tokens, or on compressed text. Run again, it goes on from the"
        " last checkpoint. Several processes:"
        " torchrun --nproc-per-node 2 -m pipelines.cli train ...",
        "corpusmill train --tokens tokens --output run --model 3m --steps 1000",
    )
    set_defaults(parser, TrainOptions)
    _add_data_arguments(parser.add_argument_group("data"))
    learning = parser.add_argument_group("what is learnt, and how")
    _add_objective_arguments(learning)
    add_learning_arguments(learning)
    running = parser.add_argument_group("running; may change when a run goes on")
    add_run_arguments(running)
    running.add_argument(
        "--workers", type=integer, metavar="N", help="processes that read data; 0: this one"
    )
    made_of = parser.add_argument_group("targets that are computed from --counts, as by enrich")
    add_target_arguments(made_of)
    arguments = parse_known(parser, argv)[0]
    arguments.target = _target_options(parser, arguments)
    train(TrainOptions(**vars(arguments)))


def _target_options(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace
) -> TargetOptions | None:
    """Takes the options of targets out of the arguments; None where no targets are computed."""
    is_computed = arguments.objective == "compact" and arguments.counts is not None
    longest = TargetOptions.max_order
    if is_computed:
        longest = read_manifest(arguments.counts, "counts").properties["max_order"]
    given = [
        name for name in TARGET_ARGUMENTS if getattr(arguments, name) != parser.get_default(name)
    ]
    options = target_options(arguments, longest)
    if given and not is_computed:
        raise UsageError(
            f"--{given[0].replace('_', '-')} is for targets that are computed: --objective compact"
            " with --counts"
        )
    return options if is_computed else None


def set_defaults(parser: argparse.ArgumentParser, options: type[Any]) -> None:
    """Gives options the defaults of the fields of a dataclass."""
    fields = dataclasses.fields(options)
    parser.set_defaults(
        **{each.name: each.default for each in fields if each.default is not dataclasses.MISSING}
    )


def _add_data_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--tokens", required=True, metavar="DIR", help=DATASETS)
    add("--targets", metavar="DIR", help="folder or URL of the targets made from it by enrich")
    add(
        "--counts",
        metavar="DIR",
        help="folder or URL of counts: compact targets are computed from them, or all-ngrams",
    )
    add("--validate", metavar="DIR", help="folder or URL of such a dataset to evaluate on")
    add("--output", required=True, metavar="DIR", help="folder or URL of the run")
    add("--length", type=integer, metavar="N", help="tokens of a sequence")


def _add_objective_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--objective",
        choices=OBJECTIVES,
        help="compact: --targets or --counts; all-ngrams: --counts",
    )
    add("--mix", type=float, metavar="SHARE", help="of the targets in the loss, 0 to 1")
    add("--mix-schedule", choices=MIX_SCHEDULES, help="of that share over the run")


def add_learning_arguments(group: argparse._ArgumentGroup) -> None:
    """Options of `TrainOptions` that say how any model learns."""
    add = group.add_argument
    add("--model", choices=SIZES, help="parameters without the embedding")
    add("--batch-size", type=integer, metavar="N", help="sequences in a micro-batch")
    add("--accumulate", type=integer, metavar="N", help="micro-batches of each process in a step")
    add("--seed", type=integer, metavar="N", help="of the first parameters and the data's order")
    add("--steps", type=integer, required=True, metavar="N", help="optimizer steps in all")
    add("--optimizer", choices=OPTIMIZERS, help="what turns gradients into steps")
    add("--learning-rate", type=float, metavar="RATE", help="the highest one")
    add("--schedule", choices=SCHEDULES, help="of the learning rate after the warm-up")
    add("--warmup", type=integer, metavar="N", help="steps in which the learning rate rises")
    add("--z-loss", type=float, metavar="WEIGHT", help="of the squared log partition function")
    add("--clip", type=float, metavar="NORM", help="longest gradient; 0: no limit")
    add("--precision", choices=PRECISIONS, help="of matrices; auto: bfloat16 on GPUs that can")


def add_run_arguments(group: argparse._ArgumentGroup) -> None:
    """Options of `TrainOptions` that decide nothing but how a run goes."""
    add = group.add_argument
    add("--validate-every", type=integer, metavar="N", help="steps between two evaluations")
    add("--checkpoint-every", type=integer, metavar="N", help="steps between two checkpoints")
    add("--keep", type=integer, metavar="N", help="checkpoints that are kept")
    add("--device", choices=DEVICES, help="auto: a GPU, if there is one")
    add("--parallel", choices=PARALLEL, help="how processes of torchrun share the work")
