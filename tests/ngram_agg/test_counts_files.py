import numpy as np

from corpusmill.corpus import storage
from corpusmill.ngram_agg.counts_files import read_spilled, spill_runs
from corpusmill.ngram_agg.counts_runs import CountsRun
from corpusmill.ngram_agg.packing import Packing
from tests.corpus.counted import ROOT, counted


def test_of_a_remote_spilled_run_only_the_batches_asked_for_are_read(tmp_path):
    packing = Packing(3, 32000, 2)
    rows = 1_000_000
    low = np.arange(rows, dtype=np.uint64) * np.uint64(8_000_000)
    run = CountsRun(packing, np.zeros(rows, packing.high_dtype), low, np.ones(rows, np.uint64))
    spill_runs(str(tmp_path / "run.arrow"), packing, [run])
    url = f"{ROOT}/run.arrow"
    storage.copy(str(tmp_path / "run.arrow"), url)
    lower, upper = run.key(500_000), run.key(501_000)
    with counted() as requests:
        (part,) = read_spilled(url, packing, lower, upper)
    assert np.array_equal(part.low, low[500_000:501_000])
    # Its size, the place of the footer, the footer, the index, and a batch of 131,072 n-grams.
    assert [kind for kind, _, _ in requests] == ["HEAD", *["GET"] * 4]
    assert sum(size for _, _, size in requests) < 131_072 * 17 + 4096
