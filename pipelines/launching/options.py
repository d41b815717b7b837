"""How a job runs, and the pipeline that Beam is given for it."""

import dataclasses
from typing import TYPE_CHECKING

from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.options import option
from corpusmill.pipelines.launching import dataflow, engines

# Beam takes most of a second to import: functions do it when it is needed.
if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

# Its default would be Prism, wherever that can be downloaded.
BEAMS_OWN_RUNNER = "FnApiRunner"


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a job runs; none of it changes the data that it writes.

    Attributes:
      beam_arguments: options that Beam understands.
    """

    workers: int = option("processes, of jobs that run here", 1)
    dry_run: bool = option("print what would be done, and do nothing", False)
    beam_arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"--workers {self.workers} is not at least 1")
        if self.workers > 1 and not self.is_here:
            raise UsageError(
                f"--workers is for jobs without Beam only; give {self.runner} its own options"
            )
        if self.runner == dataflow.RUNNER:
            dataflow.check_options(self.beam_options)

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine, without Beam."""
        return not self.beam_arguments

    @property
    def runner(self) -> str | None:
        """Of Beam's; None without Beam."""
        if self.is_here:
            return None
        from apache_beam.options.pipeline_options import StandardOptions

        return StandardOptions(list(self.beam_arguments)).runner or BEAMS_OWN_RUNNER

    @property
    def is_on_engine(self) -> bool:
        return self.runner in engines.RUNNERS

    @property
    def beam_options(self) -> "PipelineOptions":
        from apache_beam.options.pipeline_options import PipelineOptions

        return PipelineOptions(list(self.beam_arguments))

    def new_pipeline(self) -> "beam.Pipeline":
        """An empty pipeline; without a runner among the options Beam runs it in this process.

        Raises:
          UsageError: Beam refuses the options.
        """
        import apache_beam as beam

        options = self.beam_options
        if self.is_on_engine:
            engines.set_defaults(options)
        runner = self.runner or BEAMS_OWN_RUNNER
        try:
            return beam.Pipeline(runner=runner, options=options)
        except ValueError as error:
            raise UsageError(" ".join(str(error).split())) from error
