"""PyTorch: streaming loader, losses, models, training and evaluation. No Beam.

from corpusmill.trainer import DataOptions, Loader, TokenDataset, linear_cross_entropy

dataset = TokenDataset("data/tokens", DataOptions(batch_size=8, length=512), "data/targets")
for batch in Loader(dataset, workers=1):
    ...  # batch.tokens, batch.next_tokens, batch.target_tokens, batch.target_weights
"""

from typing import TYPE_CHECKING

from corpusmill.corpus.lazy import imported_when_asked

if TYPE_CHECKING:
    from corpusmill.ngram_agg.given_targets import write_targets
    from corpusmill.trainer.batches import Batch
    from corpusmill.trainer.data import Loader, TokenDataset
    from corpusmill.trainer.distillation import model_distributions, sample_distribution
    from corpusmill.trainer.losses import linear_cross_entropy, sparse_cross_entropy
    from corpusmill.trainer.order import DataOptions

# Imported when asked for: the commands' help doesn't wait for torch.
__getattr__ = imported_when_asked(
    __name__,
    {
        "corpusmill.ngram_agg.given_targets": ("write_targets",),
        "corpusmill.trainer.batches": ("Batch",),
        "corpusmill.trainer.data": ("Loader", "TokenDataset"),
        "corpusmill.trainer.order": ("DataOptions",),
        "corpusmill.trainer.distillation": ("model_distributions", "sample_distribution"),
        "corpusmill.trainer.losses": ("linear_cross_entropy", "sparse_cross_entropy"),
    },
)

__all__ = [
    "Batch",
    "DataOptions",
    "Loader",
    "TokenDataset",
    "linear_cross_entropy",
    "model_distributions",
    "sample_distribution",
    "sparse_cross_entropy",
    "write_targets",
]
