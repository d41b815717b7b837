"""Trained models from the folders of their runs."""

from typing import NamedTuple

from corpusmill.corpus.training_runs import RunConfig, read_config
from corpusmill.trainer import checkpoints
from corpusmill.trainer.model_config import ModelConfig
from corpusmill.trainer.models import Transformer


class Trained(NamedTuple):
    """A trained model.

    Attributes:
      run: folder of its run.
      checkpoint: folder of the checkpoint that its parameters are from.
      config: of the run.
      model: in float32, on the CPU.
    """

    run: str
    checkpoint: str
    config: RunConfig
    model: Transformer


def open_model(place: str) -> Trained:
    """The model of a run (of its last checkpoint) or of a checkpoint, by path or URL.

    Raises:
      UsageError: it is neither, or a run without a checkpoint.
      DataError: it is damaged.
    """
    run, checkpoint = checkpoints.find(place)
    config = read_config(run)
    parameters = checkpoints.load_model(checkpoint)
    with checkpoints.fitting(checkpoint):
        model = Transformer(ModelConfig(**config.model))
        model.load_state_dict(parameters)
    return Trained(run, checkpoint, config, model)
