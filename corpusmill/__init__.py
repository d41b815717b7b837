"""Mills raw text corpora into data that language models learn from faster.

from corpusmill import Codebook, count_ngrams, open_distributions

run = count_ngrams(tokens, max_order=3, vocabulary_size=50257, end_of_document=50256)
rows = open_distributions("gs://bucket/wiki-distributions").longest_match([464, 1578])
ids = Codebook.open("gs://bucket/english.codebook").encode(b"any bytes")

The packages inside have the rest. Importing this one imports neither Beam nor torch.
"""

import os
from typing import TYPE_CHECKING

# In a checkout that nothing has installed the packages stand beside this folder.
if not os.path.isdir(os.path.join(__path__[0], "corpus")):
    __path__.append(os.path.dirname(__path__[0]))

from corpusmill.corpus.lazy import imported_when_asked
from corpusmill.corpus.version import __version__

if TYPE_CHECKING:
    from corpusmill.compress import Codebook, CodebookTokenizer, freeze
    from corpusmill.ngram_agg import count_ngrams, open_distributions
    from corpusmill.trainer import Loader, TokenDataset, write_targets

__getattr__ = imported_when_asked(
    __name__,
    {
        "corpusmill.compress": ("Codebook", "CodebookTokenizer", "freeze"),
        "corpusmill.ngram_agg": ("count_ngrams", "open_distributions"),
        "corpusmill.trainer": ("Loader", "TokenDataset", "write_targets"),
    },
)

__all__ = [
    "Codebook",
    "CodebookTokenizer",
    "Loader",
    "TokenDataset",
    "__version__",
    "count_ngrams",
    "freeze",
    "open_distributions",
    "write_targets",
]
