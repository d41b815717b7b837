"""tokens dataset of bytes, or counts of it -> a codebook"""

import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from corpusmill.commands.arguments import (
    add_folder,
    add_options,
    location,
    make_parser,
    parse_known,
    parsed,
)
from corpusmill.commands.model_options import ModelChoice, add_model_options
from corpusmill.compress import Codebook, FreezeOptions, freeze
from corpusmill.compress.byte_tokens import check_bytes
from corpusmill.compress.codebooks.freeze_checkpoint import FreezeCheckpoint
from corpusmill.compress.datasets.samples import sample_text
from corpusmill.corpus import storage
from corpusmill.corpus.datasets import describe_differences, read_manifest
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.progress import shown_stages
from corpusmill.pipelines.launching.options import RunOptions

# Text from everywhere in a dataset: all of it is held in memory.
_FIT_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class FreezeJob:
    """What `freeze` makes, of what.

    Attributes:
      model: the byte model, None for the allocation `used`.
      tokens: of a tokens dataset of bytes to fit on, None to fit on none.
      output: the codebook's path or URL.
      options: of the codebook.
    """

    model: ModelChoice | None
    tokens: str | None
    output: str
    options: FreezeOptions

    def __post_init__(self) -> None:
        if self.tokens is not None and self.options.allocation == "coder":
            raise UsageError(
                "--tokens is for --allocation used and optimal only; coder is given by the model"
                " alone"
            )
        if self.model is None and self.tokens is None:
            raise UsageError(
                "--allocation used is fitted on text: give --tokens, or for another allocation"
                " --byte-counts"
            )
        if self.model is not None and self.options.allocation == "used":
            raise UsageError(
                "--byte-counts and --byte-model are for --allocation optimal and coder only; used"
                " is made of --tokens alone"
            )
        if self.tokens is None and self.options.parse != FreezeOptions.parse:
            raise UsageError(
                f"--parse {self.options.parse} says how --tokens are cut, and there are none"
            )


@dataclasses.dataclass(frozen=True)
class FreezePlan:
    """A job whose inputs have been looked at.

    Attributes:
      job: what was asked for.
      made_of: everything that decides the codebook's strings; it stands in the codebook.
      text_bytes: how much text there is to fit on.
    """

    job: FreezeJob
    made_of: dict[str, Any]
    text_bytes: int

    @property
    def checkpoint(self) -> FreezeCheckpoint:
        """How far the job is, in a hidden folder beside the output."""
        folder, slash, name = self.job.output.rpartition("/")
        return FreezeCheckpoint(f"{folder}{slash}.{name}.incomplete", self.made_of)

    def describe(self) -> list[str]:
        options = self.job.options
        lines = [] if self.job.model is None else [f"model: {self.job.model.describe()}"]
        price = "" if options.phrase_price is None else f", phrase price {options.phrase_price}"
        lines.append(
            f"codebook of 2^{options.window_bits} = {1 << options.window_bits:,} strings,"
            f" allocation {options.allocation}, boundaries {options.boundaries}{price}"
        )
        if self.job.tokens is not None:
            amount = min(self.text_bytes, _FIT_BYTES) / 2**20
            lines.append(
                f"fitted on where its strings are used, {options.parse} parse, in"
                f" {amount:,.1f} MiB of text"
            )
        return lines

    def run(self) -> Codebook:
        """Makes the codebook, or what is missing of it, and writes it."""
        model = None if self.job.model is None else self.job.model.open()
        text = None
        if self.job.tokens is not None:
            manifest = read_manifest(self.job.tokens, "tokens")
            text = sample_text(self.job.tokens, manifest, _FIT_BYTES)
        if self.checkpoint.exists():
            print(f"going on with what is in {self.checkpoint.folder}", file=sys.stderr)
        with shown_stages("strings") as progress:
            book = freeze(model, self.job.options, self.made_of, text, progress, self.checkpoint)
        book.write(self.job.output)
        self.checkpoint.remove()
        return book


def make_plan(job: FreezeJob) -> FreezePlan:
    """Looks at the inputs.

    Raises:
      DatasetError: a dataset is missing, or not of bytes.
      UsageError: there is no saved model.
      DataError: it is damaged.
    """
    tokens = None if job.tokens is None else read_manifest(job.tokens, "tokens")
    made_of = {
        **dataclasses.asdict(job.options),
        **({} if job.model is None else job.model.identity()),
        "tokens": None if tokens is None else tokens.content_hash,
    }
    if tokens is None or job.tokens is None:
        return FreezePlan(job, made_of, 0)
    check_bytes(job.tokens, tokens)
    return FreezePlan(job, made_of, tokens.properties["tokens"])


def begin(plan: FreezePlan) -> bool:
    """Gets ready to write the output; False where it is complete already.

    Raises:
      UsageError: something else is there, whole or unfinished, or nothing can be written there,
        which of a bucket is only found out when the first step is kept.
      DataError: what an unfinished job has left there is damaged.
    """
    output = plan.job.output
    if not storage.exists(output):
        try:
            with storage.publish(output) as path:
                open(path, "wb").close()
                os.remove(path)
        except OSError as error:
            raise UsageError(f"cannot write to output {output}: {error}") from error
        # Whether it can be gone on with is known before any work.
        plan.checkpoint.exists()
        return True
    try:
        found = Codebook.open(output)
    except (DataError, UsageError) as error:
        raise UsageError(f"output {output} holds something else; name a new file") from error
    differences = describe_differences(found.made_of, plan.made_of)
    if differences:
        raise UsageError(
            f"output {output} was made with other options ({'; '.join(differences)});"
            " use the same ones, or name a new file"
        )
    # A run that was killed may have had no time for it.
    plan.checkpoint.remove()
    return False


def main(argv: Sequence[str]) -> None:
    """`corpusmill freeze`"""
    parser = make_parser(
        "freeze",
        "Makes a codebook, which encodes any bytes and decodes them, of text or of a byte model.",
        "corpusmill freeze --tokens byte-tokens --output english.codebook",
    )
    add = parser.add_argument
    add_folder(
        parser, "--tokens", "a tokens dataset of bytes, to fit the strings on", required=False
    )
    add_model_options(parser)
    add(
        "--output", required=True, type=location, metavar="FILE", help="path or URL of the codebook"
    )
    add_options(parser, FreezeOptions, allocation=None)
    add_options(parser, RunOptions, "dry_run")
    arguments, _ = parse_known(parser, argv)
    has_model = arguments.byte_model is not None or arguments.byte_counts is not None
    allocation = arguments.allocation or ("optimal" if has_model else "used")
    model = None
    if has_model or allocation != "used":
        model = ModelChoice(arguments.byte_model or "ngram", arguments.byte_counts)
    job = FreezeJob(
        model=model,
        tokens=arguments.tokens,
        output=arguments.output,
        options=parsed(FreezeOptions, arguments, allocation=allocation),
    )
    plan = make_plan(job)
    if arguments.dry_run:
        print("\n".join([*plan.describe(), f"would write the codebook {job.output}"]))
        return
    if not begin(plan):
        print(f"{job.output} is complete already; nothing to do")
        return
    print("\n".join(plan.describe()), file=sys.stderr)
    started = time.monotonic()
    book = plan.run()
    print(f"codebook {job.output}: done in {time.monotonic() - started:.1f} s")
    lengths = book.strings.lengths()
    for name, value in (
        ("strings", f"{book.vocab_size:,}"),
        ("mean bytes of a string", f"{lengths.mean():.2f}"),
        ("longest string", f"{lengths.max():,}"),
        ("id", book.content_hash),
    ):
        print(f"  {name:<28}{value:>16}")
