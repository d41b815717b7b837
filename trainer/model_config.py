"""The shape of a model, in numbers or by name."""

from dataclasses import dataclass

from corpusmill.corpus.errors import UsageError

# Width, heads, layers, head size, MLP width; named after the parameters without embeddings.
SIZES = {
    "500k": (128, 2, 2, 64, 512),
    "3m": (256, 4, 3, 64, 1024),
    "25m": (512, 8, 6, 64, 2048),
    "113m": (768, 12, 12, 64, 3072),
    "403m": (1024, 16, 24, 64, 4096),
    "2b": (2048, 32, 24, 64, 8192),
}


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a transformer; `dataclasses.asdict` of it is JSON.

    Attributes:
      vocabulary_size: tokens that there are.
      width: of the hidden states.
      heads: attention heads in a layer.
      layers: how many.
      head_size: of queries, keys and values; even.
      mlp_width: of the SwiGLU's inner states.
      document_start: the token before each document, if no token is to see those before it; None
        where all are seen.

    Raises:
      UsageError: there is no such shape.
    """

    vocabulary_size: int
    width: int
    heads: int
    layers: int
    head_size: int
    mlp_width: int
    document_start: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "document_start" and value < 1:
                raise UsageError(f"{name} {value} of a model: it has to be at least 1")
        if self.head_size % 2:
            raise UsageError(f"head_size {self.head_size} of a model: it has to be even")

    @classmethod
    def of(
        cls,
        size: str,
        vocabulary_size: int,
        *,
        width: int | None = None,
        heads: int | None = None,
        layers: int | None = None,
        mlp_width: int | None = None,
    ) -> "ModelConfig":
        """One of the `SIZES`, or one like it with other numbers; heads share its width.

        Raises:
          UsageError: there is no such size, or no such shape.
        """
        if size not in SIZES:
            raise UsageError(f"model {size!r}: there are {', '.join(SIZES)}")
        usual = cls(vocabulary_size, *SIZES[size])
        width, heads = width or usual.width, heads or usual.heads
        if width % (2 * heads):
            raise UsageError(f"--width {width} can't be divided among {heads} --heads, evenly each")
        return cls(
            vocabulary_size,
            width,
            heads,
            layers or usual.layers,
            width // heads,
            mlp_width or usual.mlp_width,
        )
