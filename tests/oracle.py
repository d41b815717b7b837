"""Slow, obvious answers that the fast code is compared with."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

Ngrams = dict[tuple[int, ...], Counter[int]]


def documents_of(tokens: Sequence[int], end_of_document: int) -> list[list[int]]:
    """Cuts a token sequence after every end-of-document token."""
    documents: list[list[int]] = [[]]
    for token in tokens:
        documents[-1].append(int(token))
        if token == end_of_document:
            documents.append([])
    return [document for document in documents if document]


def count_contexts(documents: Iterable[Sequence[int]], order: int) -> Ngrams:
    """context of `order` tokens -> next token -> how often; contexts don't cross documents."""
    counts: Ngrams = defaultdict(Counter)
    for document in documents:
        for position in range(order, len(document)):
            counts[tuple(document[position - order : position])][document[position]] += 1
    return dict(counts)


def flat(counts: Ngrams) -> dict[tuple[int, ...], int]:
    """(context, next token) -> how often."""
    return {
        (*context, token): count
        for context, nexts in counts.items()
        for token, count in nexts.items()
    }


def distribution(nexts: Counter[int], top_k: int) -> tuple[int, list[tuple[int, int]], int, int]:
    """total, the top-k (token, count) by count then id, tail count, distinct tokens in the tail."""
    ordered = sorted(nexts.items(), key=lambda entry: (-entry[1], entry[0]))
    head = ordered[:top_k]
    total = sum(nexts.values())
    return total, head, total - sum(count for _, count in head), len(ordered) - len(head)


def distributions(
    documents: Sequence[Sequence[int]], order: int, top_k: int, min_count: int
) -> dict[tuple[int, ...], tuple[int, list[tuple[int, int]], int, int]]:
    """Every context of `order` tokens seen `min_count` times or more, with its distribution."""
    return {
        context: distribution(nexts, top_k)
        for context, nexts in count_contexts(documents, order).items()
        if sum(nexts.values()) >= min_count
    }


def count_ngrams(documents: Iterable[Sequence[int]], order: int) -> Counter[tuple[int, ...]]:
    """(context of `order` tokens, next token) -> how often; as `flat(count_contexts())`, faster."""
    counts: Counter[tuple[int, ...]] = Counter()
    for document in documents:
        counts.update(zip(*(document[start:] for start in range(order + 1)), strict=False))
    return counts


def distributions_of(
    ngrams: Counter[tuple[int, ...]], top_k: int
) -> dict[tuple[int, ...], tuple[int, list[tuple[int, int]], int, int]]:
    """The distribution of every context of some counted n-grams."""
    nexts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for ngram, count in ngrams.items():
        nexts[ngram[:-1]][ngram[-1]] = count
    return {context: distribution(tokens, top_k) for context, tokens in nexts.items()}
