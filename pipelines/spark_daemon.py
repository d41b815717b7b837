"""PySpark's daemon, which forks the processes that run tasks, with what tasks need imported before.

Around each task, however short, such a process collects garbage and reads the directory of every
zip file again that something was imported from, PySpark's own. Left alone, that is most of the time
of a short task (benchmarks/results/2026-11-21-spark.md).
"""

import gc
import sys
import zipimport

from pyspark import daemon

import ngram_agg  # noqa: F401
import pipelines.spark  # noqa: F401


def forget_zip_files() -> None:
    """Until something more is imported."""
    for path, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, zipimport.zipimporter):
            del sys.path_importer_cache[path]


if __name__ == "__main__":
    # What is imported is no garbage, and needn't be gone through.
    gc.freeze()
    forget_zip_files()
    daemon.manager()
