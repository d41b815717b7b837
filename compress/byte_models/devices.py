"""What computes a byte model: this processor, or a device of PyTorch."""

from corpusmill.compress.byte_models.byte_model import ByteModel
from corpusmill.compress.byte_models.transformer import TransformerModel
from corpusmill.corpus.errors import UsageError

DEVICES = ("cpu", "cuda")


def on_device(model: ByteModel, device: str) -> ByteModel:
    """The same model, computed by a device.

    Args:
      model: only a transformer runs elsewhere than on the `cpu`.
      device: `cpu`, or as PyTorch names it.

    Raises:
      UsageError: there is no PyTorch, no such device, or the model doesn't run there.
      CorpusmillError: the device doesn't compute what it should.
    """
    if device == "cpu":
        return model
    if not isinstance(model, TransformerModel):
        raise UsageError(f"--device {device} is for transformer byte models only, not {model.kind}")
    try:
        from corpusmill.compress.byte_models.torch_transformer import TorchTransformer
    except ImportError as error:
        raise UsageError(f"--device {device} needs PyTorch: install corpusmill[train]") from error
    return TorchTransformer(model, device)
