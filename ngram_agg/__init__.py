"""N-gram counting and next-token distributions on numpy arrays and Parquet; no Beam needed.

import numpy as np
from corpusmill.ngram_agg import count_ngrams, merge_runs, open_distributions

run = count_ngrams(tokens, max_order=3, vocabulary_size=50257, end_of_document=50256)
both = merge_runs([run, other])
trigrams = both.order(2)                  # (context of 2 tokens, next token) with counts

dataset = open_distributions("gs://bucket/wiki-distributions")
dataset.longest_match([464, 1578])        # one context, with backoff
table = dataset.load(order=2)             # or load(2, cache="/tmp/tables"): memory-mapped
rows = table.find(contexts)               # a million contexts at once: [n, 2] -> [n]
"""

from typing import TYPE_CHECKING

from corpusmill.corpus.lazy import imported_when_asked

if TYPE_CHECKING:
    from corpusmill.ngram_agg.counts_runs import CountsRun, count_ngrams
    from corpusmill.ngram_agg.distributions import (
        DistributionOptions,
        DistributionRows,
        scan_distributions,
    )
    from corpusmill.ngram_agg.merging import merge_runs, merge_streams
    from corpusmill.ngram_agg.packing import Packing
    from corpusmill.ngram_agg.tables import (
        Distribution,
        Distributions,
        DistributionTable,
        open_distributions,
    )

# Imported when asked for: options, which a command's help needs, don't wait for numba.
__getattr__ = imported_when_asked(
    __name__,
    {
        "corpusmill.ngram_agg.distributions": (
            "DistributionOptions",
            "DistributionRows",
            "scan_distributions",
        ),
        "corpusmill.ngram_agg.merging": ("merge_runs", "merge_streams"),
        "corpusmill.ngram_agg.packing": ("Packing",),
        "corpusmill.ngram_agg.counts_runs": ("CountsRun", "count_ngrams"),
        "corpusmill.ngram_agg.tables": (
            "Distribution",
            "DistributionTable",
            "Distributions",
            "open_distributions",
        ),
    },
)

__all__ = [
    "CountsRun",
    "Distribution",
    "DistributionOptions",
    "DistributionRows",
    "DistributionTable",
    "Distributions",
    "Packing",
    "count_ngrams",
    "merge_runs",
    "merge_streams",
    "open_distributions",
    "scan_distributions",
]
