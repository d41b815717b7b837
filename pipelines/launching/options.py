"""How a job runs, and the pipeline that Beam is given for it."""

import dataclasses
import shlex
import sys
from typing import TYPE_CHECKING

from corpusmill.corpus.errors import UsageError
from corpusmill.pipelines.launching import dataflow, engines

# Beam takes most of a second to import: functions do it when it is needed.
if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

LOCAL_RUNNER = "FnApiRunner"


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a job runs; none of it changes the data that it writes.

    Attributes:
      workers: local processes; ignored on other runners than the local one.
      dry_run: say what would be done, and do nothing.
      beam_arguments: options that Beam understands.
    """

    workers: int = 1
    dry_run: bool = False
    beam_arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"--workers {self.workers} is not at least 1")
        if self.workers > 1 and not self.is_local:
            raise UsageError(
                f"--workers is for the local runner only; give {self.runner} its own options"
            )
        if self.runner == dataflow.RUNNER:
            dataflow.check_options(self.beam_options)

    @property
    def runner(self) -> str:
        if not self.beam_arguments:
            return LOCAL_RUNNER
        from apache_beam.options.pipeline_options import StandardOptions

        return StandardOptions(list(self.beam_arguments)).runner or LOCAL_RUNNER

    @property
    def is_local(self) -> bool:
        return self.runner == LOCAL_RUNNER

    @property
    def is_on_engine(self) -> bool:
        return self.runner in engines.RUNNERS

    @property
    def beam_options(self) -> "PipelineOptions":
        from apache_beam.options.pipeline_options import PipelineOptions

        return PipelineOptions(list(self.beam_arguments))

    def new_pipeline(self) -> "beam.Pipeline":
        """An empty pipeline; without a runner among the options it runs in this process.

        Raises:
          UsageError: Beam refuses the options.
        """
        import apache_beam as beam
        from apache_beam.options.pipeline_options import DirectOptions
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner
        from apache_beam.transforms.environments import SubprocessSDKEnvironment

        options = self.beam_options
        if self.is_on_engine:
            engines.set_defaults(options)
        if not self.is_local:
            try:
                return beam.Pipeline(options=options)
            except ValueError as error:
                raise UsageError(" ".join(str(error).split())) from error
        options.view_as(DirectOptions).direct_num_workers = self.workers
        environment = None
        if self.workers > 1:
            # Beam hands it to a shell, which must not stand between us and the worker. Ctrl-C at a
            # terminal reaches all processes; workers end when this one does.
            python = shlex.quote(sys.executable)
            command = f"trap '' INT; exec {python} -m corpusmill.pipelines.launching.worker"
            environment = SubprocessSDKEnvironment.from_command_string(command)
        return beam.Pipeline(runner=FnApiRunner(environment), options=options)
