"""A decoder-only transformer: RMSNorm before each sublayer, rotary positions, SwiGLU."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from corpusmill.trainer.model_config import ModelConfig

# GPUs multiply matrices of such sizes faster.
_VOCABULARY_MULTIPLE = 64
ROTARY_BASE = 10_000.0


class Past:
    """Keys and values of a layer, of shape [batch, heads, read, head size]."""

    def __init__(self) -> None:
        self._read: tuple[Tensor, Tensor] | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds those of the next tokens; returns all."""
        if self._read is not None:
            keys = torch.cat([self._read[0], keys], 2)
            values = torch.cat([self._read[1], values], 2)
        self._read = keys, values
        return keys, values


class Cache:
    """What a model keeps of the tokens that it has read, to go on without reading them again.

    Attributes:
      tokens: those read, int64 of shape [batch, read].
      layers: keys and values of each layer.
    """

    def __init__(self, config: ModelConfig, batch: int, device: torch.device) -> None:
        """An empty one, for so many sequences at once."""
        self.tokens = torch.empty(batch, 0, dtype=torch.int64, device=device)
        self.layers = [Past() for _ in range(config.layers)]


class Transformer(nn.Module):
    """Turns tokens into hidden states; those times `output_weight` are the next tokens' logits.

    The output weight is the embedding itself. It has rows for a vocabulary rounded up to a
    multiple of 64; those beyond `vocabulary_size` are never a target, so that their probability
    soon vanishes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        rows = math.ceil(config.vocabulary_size / _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE
        self.embedding = nn.Embedding(rows, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width)
        self._initialize()

    def _initialize(self) -> None:
        """Logits and every sublayer's output begin with a variance of about 1 or less.

        The embedding, too, is scaled as an output weight. If it were larger where it enters, each
        token would begin by predicting itself.
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                std = parameter.shape[1] ** -0.5
                # The layers' outputs add up in the residual stream.
                if name.endswith(("attention.output.weight", "mlp.output.weight")):
                    std /= math.sqrt(2 * self.config.layers)
                nn.init.normal_(parameter, std=std)

    @property
    def flops_per_token(self) -> int:
        """Floating point operations of a forward pass: two for each parameter of a matrix product.

        The embedding counts as the matrix of the logits. What attention does with the tokens before
        is left out, as usual.
        """
        return 2 * sum(parameter.numel() for parameter in self.parameters())

    @property
    def output_weight(self) -> Tensor:
        """Floating point of shape [rows of the embedding, width]."""
        return self.embedding.weight

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """Computes hidden states, each from the tokens up to its own.

        Args:
          tokens: integers of shape [batch, length].
          cache: of the tokens before them; takes up these, too.

        Returns:
          Floating point of shape [batch, length, width].
        """
        hidden = self.embedding(tokens)
        length, read = tokens.shape[1], tokens
        if cache is not None:
            read = cache.tokens = torch.cat([cache.tokens, tokens], 1)
        rotation = _rotation(read.shape[1], self.config.head_size, tokens.device)[-length:]
        seen = _seen(read, length, self.config.document_start)
        pasts = [None] * len(self.blocks) if cache is None else cache.layers
        for block, past in zip(self.blocks, pasts, strict=True):
            hidden = block(hidden, rotation, seen, past)
        return self.norm(hidden)


class Block(nn.Module):
    """A layer: attention and an MLP, each added to its input."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.width)
        self.mlp = SwiGLU(config)

    def forward(
        self,
        hidden: Tensor,
        rotation: Tensor,
        seen: Tensor | None = None,
        past: Past | None = None,
    ) -> Tensor:
        hidden = hidden + self.attention(self.attention_norm(hidden), rotation, seen, past)
        return hidden + self.mlp(self.mlp_norm(hidden))


class Attention(nn.Module):
    """Causal attention with several heads and rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_size
        self.head_size = config.head_size
        self.query = nn.Linear(config.width, inner, bias=False)
        self.key = nn.Linear(config.width, inner, bias=False)
        self.value = nn.Linear(config.width, inner, bias=False)
        self.output = nn.Linear(inner, config.width, bias=False)

    def forward(
        self,
        hidden: Tensor,
        rotation: Tensor,
        seen: Tensor | None = None,
        past: Past | None = None,
    ) -> Tensor:
        """Mixes values.

        Args:
          hidden: floating point of shape [batch, length, width].
          rotation: `_rotation` of the places.
          seen: which keys each query sees, bool, broadcast to [batch, heads, length, keys]; those
            up to its own by default.
          past: keys and values of the tokens before; takes up these, too.

        Returns:
          Floating point of shape [batch, length, width].
        """
        query = _rotate(self._heads(self.query(hidden)), rotation).transpose(1, 2)
        key = _rotate(self._heads(self.key(hidden)), rotation).transpose(1, 2)
        value = self._heads(self.value(hidden)).transpose(1, 2)
        if past is not None:
            key, value = past.extend(key, value)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, is_causal=seen is None
        )
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _heads(self, projected: Tensor) -> Tensor:
        """[batch, length, inner] as [batch, length, heads, head size]."""
        return projected.unflatten(-1, (-1, self.head_size))


class SwiGLU(nn.Module):
    """A gated MLP (Shazeer 2020, "GLU variants improve transformer")."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.mlp_width, bias=False)
        self.inner = nn.Linear(config.width, config.mlp_width, bias=False)
        self.output = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.output(functional.silu(self.gate(hidden)) * self.inner(hidden))


def _seen(read: Tensor, length: int, document_start: int | None) -> Tensor | None:
    """Which of the tokens read each of the last `length` sees.

    Rotary positions are distances, so those of a document needn't begin anew at its start.

    Args:
      read: integers of shape [batch, read].
      length: how many of them are asked for.
      document_start: the token before a document, before which nothing is seen; None without such.

    Returns:
      Bool of shape [length, read] or [batch, 1, length, read]; None where all of them see
      everything up to themselves.
    """
    count = read.shape[1]
    if document_start is None and length == count:
        return None
    causal = torch.ones(length, count, dtype=torch.bool, device=read.device).tril(count - length)
    if document_start is None:
        return causal
    documents = (read == document_start).cumsum(1)
    alike = documents[:, -length:, None] == documents[:, None]
    return (causal & alike)[:, None]


def _rotation(length: int, head_size: int, device: torch.device) -> Tensor:
    """Complex numbers of modulus 1, of shape [length, 1, head_size / 2]."""
    exponents = torch.arange(0, head_size, 2, device=device) / head_size
    angles = torch.outer(torch.arange(length, device=device), ROTARY_BASE**-exponents)
    return torch.polar(torch.ones_like(angles), angles)[:, None]


def _rotate(heads: Tensor, rotation: Tensor) -> Tensor:
    """Turns each pair of numbers, of shape [batch, length, heads, head size], by its angle."""
    pairs = torch.view_as_complex(heads.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(heads.dtype)
