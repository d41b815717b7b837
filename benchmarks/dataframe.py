"""What follows each context, as one would write it with Spark's DataFrames: `benchmarks.spark`.

Prints how many contexts there are.
"""

import argparse
import functools
import sys
from collections.abc import Sequence

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as f


def ngrams(documents: DataFrame, order: int) -> DataFrame:
    """(context, next) for each position that has so many tokens before it."""
    each = f.expr(
        f"transform(sequence({order}, size(tokens) - 1),"
        f" i -> struct(slice(tokens, i - {order} + 1, {order}) AS context, tokens[i] AS next))"
    )
    long_enough = documents.where(f.size("tokens") > order)
    return long_enough.select(f.explode(each).alias("ngram")).select("ngram.*")


def most_frequent(pairs: DataFrame, top_k: int) -> DataFrame:
    """The most frequent next tokens of each context, with its total."""
    context = Window.partitionBy("context")
    counts = pairs.groupBy("context", "next").count()
    ranked = counts.withColumns(
        {
            "total": f.sum("count").over(context),
            "rank": f.row_number().over(context.orderBy(f.desc("count"), "next")),
        }
    )
    return ranked.where(ranked["rank"] <= top_k)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dataframe", description=__doc__)
    parser.add_argument("tokens", help="folder of a tokens dataset")
    parser.add_argument("output")
    parser.add_argument("--max-order", type=int, required=True)
    parser.add_argument("--top-k", type=int, required=True)
    arguments = parser.parse_args(argv)
    session = SparkSession.builder.getOrCreate()
    documents = session.read.parquet(f"{arguments.tokens}/part-*.parquet").select("tokens")
    orders = range(1, arguments.max_order + 1)
    pairs = functools.reduce(DataFrame.unionAll, [ngrams(documents, order) for order in orders])
    most_frequent(pairs, arguments.top_k).write.parquet(arguments.output)
    print(session.read.parquet(arguments.output).where("rank = 1").count())


if __name__ == "__main__":
    main(sys.argv[1:])
