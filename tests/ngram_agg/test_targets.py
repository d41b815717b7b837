"""Compact targets against an oracle of dictionaries and fractions, draw by draw."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.ngram_agg.counts_runs import count_ngrams
from corpusmill.ngram_agg.full_tables import (
    backward_contexts,
    backward_run,
    build_table,
    forward_contexts,
    full_distributions,
)
from corpusmill.ngram_agg.heads import NO_CONTEXT, NO_HEAD, WEIGHT_UNITS
from corpusmill.ngram_agg.merging import merge_runs
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.positions import (
    Place,
    find_documents,
    find_positions,
    hash_strings,
    start_of_file,
)
from corpusmill.ngram_agg.saved_columns import save_columns
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.ngram_agg.target_slots import Slots
from corpusmill.ngram_agg.targets import (
    make_target_table,
    make_targets,
    open_target_table,
    save_target_table,
)
from tests.oracle import count_contexts

WORD = (1 << 64) - 1
END = 0


def mix(word):
    word = (word + 0x9E3779B97F4A7C15) & WORD
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB & WORD
    return word ^ word >> 31


def apportion(shares):
    """Integers in proportion to shares, `WEIGHT_UNITS` in all, by largest remainders."""
    total = sum(shares)
    exact = [Fraction(share) * WEIGHT_UNITS / total for share in shares]
    units = [int(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (units[i] - exact[i], i))
    for i in by_remainder[: WEIGHT_UNITS - sum(units)]:
        units[i] += 1
    return units


def with_tail(slots, tail, tail_weight, options, word):
    """Adds draws from `tail`, a list of (token, count) by token."""
    slots += [(0, 0)] * (options.head - len(slots))
    for draw in range(options.tail_draws):
        weight = tail_weight // options.tail_draws + (draw < tail_weight % options.tail_draws)
        point = mix(word + draw & WORD) * sum(count for _, count in tail) >> 64
        cumulative = itertools.accumulate(count for _, count in tail)
        drawn = next(i for i, count in enumerate(cumulative) if point < count)
        slots.append((tail[drawn][0], weight) if weight else (0, 0))
    return slots


def target_of(nexts, observed, options, word):
    """The slots of one target, as (token, weight)."""
    one_hot = [(observed, WEIGHT_UNITS)]
    if nexts is None:
        return one_hot
    ranked = sorted(nexts.items(), key=lambda item: (-item[1], item[0]))
    head, tail = ranked[: options.head], sorted(ranked[options.head :])
    counts = [count for _, count in head]
    if options.scheme == "split" and observed not in dict(head):
        return one_hot
    if options.scheme == "retain":
        counts.append(sum(count for _, count in tail))
    units = apportion(counts)
    slots = [
        (token if weight else 0, weight) for (token, _), weight in zip(head, units, strict=False)
    ]
    if options.scheme == "retain" and units[-1]:
        return with_tail(slots, tail, units[-1], options, word)
    return slots


def counts_of(documents, packing, parts=1):
    """Counts of a corpus that was counted in parts."""
    tokens = [np.array(document, packing.token_dtype) for document in documents]
    return merge_runs(
        [
            count_ngrams(
                np.concatenate(tokens[part::parts] or [np.empty(0, packing.token_dtype)]),
                max_order=packing.max_order,
                vocabulary_size=packing.vocabulary_size,
                end_of_document=packing.end_of_document,
            )
            for part in range(parts)
        ]
    )


def forward(counts, packing, options, parts):
    """All contexts of counts that come in parts, as one table is made of them."""
    cuts = [len(counts) * part // parts for part in range(parts + 1)]
    blocks = (counts[first:last] for first, last in itertools.pairwise(cuts))
    return forward_contexts(packing, blocks, options.orders, options.min_count)


def backward(counts, packing, options, parts):
    """The same by way of backward runs, as one of several tables is made of them."""
    cuts = [len(counts) * part // parts for part in range(parts + 1)]
    pieces = [
        backward_run(counts[first:last], options.orders, options.min_count)
        for first, last in itertools.pairwise(cuts)
    ]
    whole = merge_runs(pieces)
    middle = len(whole) // 2
    return backward_contexts(packing, [whole[:middle], whole[middle:]], options.min_count)


def table_of(documents, packing, options, parts=1, contexts=forward):
    counts = counts_of(documents, packing, parts)
    return make_target_table(packing, options, contexts(counts, packing, options, parts))


def positions_of(documents, packing, seed=0):
    tokens = np.concatenate([np.array(document, packing.token_dtype) for document in documents])
    ends = np.cumsum([len(document) for document in documents])
    hashes = np.array([mix(number) for number in range(len(documents))], np.uint64)
    place = start_of_file(packing)
    found = find_documents(packing, tokens, ends, hashes, place, seed)
    return find_positions(packing, tokens, found, place)


def expected_targets(documents, options, max_order, document_hashes=None, every=1):
    contexts = [count_contexts(documents, order) for order in range(max_order + 1)]
    seen = 0
    for number, document in enumerate(documents):
        document_hash = document_hashes[number] if document_hashes else mix(number)
        base = mix(document_hash ^ options.seed)
        for position in range(-seen % every, len(document), every):
            observed = document[position]
            kept = (
                (order, contexts[order][context])
                for order in reversed(options.orders)
                if order <= position
                and sum(
                    contexts[order][
                        context := tuple(document[position - order : position])
                    ].values()
                )
                >= options.min_count
            )
            order, nexts = next(kept, (NO_CONTEXT, None))
            yield order, target_of(nexts, observed, options, mix(base + position & WORD))
        seen += len(document)


def check(documents, vocabulary, options, max_order, parts=1, contexts=forward):
    packing = Packing(max_order + 1, vocabulary, END)
    table = table_of(documents, packing, options, parts, contexts)
    targets = make_targets(table, positions_of(documents, packing, options.seed))
    all_tokens, all_weights = targets.dense(options.head, options.tail_draws)
    assert (all_weights.sum(axis=1, dtype=np.int64) == WEIGHT_UNITS).all()
    rows = zip(table.heads.orders[targets.head], all_tokens, all_weights, strict=True)
    expected = expected_targets(documents, options, max_order)
    for (order, tokens, weights), (right_order, slots) in zip(rows, expected, strict=True):
        slots += [(0, 0)] * (options.slots - len(slots))
        assert order == right_order
        assert list(zip(tokens.tolist(), weights.tolist(), strict=True)) == slots


documents_strategy = st.lists(
    st.lists(st.integers(1, 5), max_size=30).map(lambda tokens: [*tokens, END]),
    min_size=1,
    max_size=8,
)


@st.composite
def options_strategy(draw, max_order):
    scheme = draw(st.sampled_from(["retain", "split", "renormalize"]))
    shortest = draw(st.integers(0, max_order))
    return TargetOptions(
        scheme=scheme,
        estimator=draw(st.sampled_from(["longest", "fixed"])),
        head=draw(st.integers(0 if scheme == "retain" else 1, 4)),
        tail_draws=draw(st.integers(1, 3)) if scheme == "retain" else 0,
        min_order=shortest,
        max_order=draw(st.integers(shortest, max_order)),
        min_count=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 1 << 40)),
    )


@given(
    st.data(),
    documents_strategy,
    st.integers(0, 4),
    st.sampled_from([6, 50_257, 1 << 20]),
    st.sampled_from([forward, backward]),
)
def test_targets_are_those_of_the_oracle(data, documents, max_order, vocabulary, contexts):
    options = data.draw(options_strategy(max_order))
    parts = data.draw(st.integers(1, 3))
    check(documents, vocabulary, options, max_order, parts, contexts)


def zipf_documents(seed, size=8_000, vocabulary=300, documents=20):
    generator = np.random.default_rng(seed)
    words = 1 + (generator.zipf(1.3, size) % (vocabulary - 1))
    return [[*part.tolist(), END] for part in np.array_split(words, documents)]


@pytest.mark.parametrize("scheme", ["retain", "split", "renormalize"])
def test_targets_of_contexts_with_many_next_tokens(scheme):
    options = TargetOptions(
        scheme=scheme, head=8, tail_draws=2 * (scheme == "retain"), max_order=2, min_order=0
    )
    check(zipf_documents(1), 300, options, 2)


def mean_target(table, context, positions, vocabulary):
    """The mean over `positions` draws of the target behind one context."""
    documents = [[*context, 1, END]] * positions
    targets = make_targets(table, positions_of(documents, table.packing))
    tokens, weights = targets.dense(table.options.head, table.options.tail_draws)
    rows = slice(len(context), None, len(context) + 2)
    mean = np.zeros(vocabulary)
    np.add.at(mean, tokens[rows], weights[rows])
    return mean / WEIGHT_UNITS / positions


def test_the_mean_over_draws_is_the_distribution():
    documents = zipf_documents(3, 5000, 60)
    options = TargetOptions(head=2, min_order=0, max_order=1)
    packing = Packing(2, 60, END)
    table = table_of(documents, packing, options)
    draws = 40_000
    mean = mean_target(table, [3], draws, 60)
    nexts = count_contexts(documents, 1)[3,]
    expected = np.array([nexts[token] for token in range(60)]) / sum(nexts.values())
    # Each token's weight is a tail mass below 1 in a share p of the draws: 6 standard deviations.
    bound = 6 * np.sqrt(expected / draws) + 2 / WEIGHT_UNITS
    assert (np.abs(mean - expected) < bound).all()


def variances(shares, head, draws):
    """Those of docs/targets.md for one-hot, retain and split."""
    inside, outside = shares[:head], shares[head:]
    mass, tail = inside.sum(), outside.sum()
    squares, rest = (inside**2).sum(), (outside**2).sum()
    return (
        1 - (shares**2).sum(),
        (tail**2 - rest) / draws,
        squares * (1 / mass - 1) + tail - rest,
    )


@pytest.mark.parametrize("draws", [1, 3])
def test_variances_are_those_of_the_closed_form(draws):
    """Of targets behind one context of a Zipf distribution, over all its occurrences."""
    counts = (10_000 / np.arange(1, 257)).astype(int)
    packing = Packing(2, 300, END)
    documents = [[299, 1 + token, END] for token in np.repeat(np.arange(256), counts).tolist()]
    shares = counts / counts.sum()
    one_hot, retain, split = variances(shares, 8, draws)
    assert split > retain
    if draws == 1:
        assert [round(value, 2) for value in (one_hot, retain, split)] == [0.96, 0.31, 0.6]
    for scheme, expected in (("retain", retain), ("split", split)):
        options = TargetOptions(
            scheme=scheme, tail_draws=draws * (scheme == "retain"), max_order=1, head=8
        )
        table = table_of(documents, packing, options)
        targets = make_targets(table, positions_of(documents, packing))
        tokens, weights = targets.dense(options.head, options.tail_draws)
        tokens, weights = tokens[1::3], weights[1::3] / WEIGHT_UNITS
        whole = np.concatenate([[0.0], shares, np.zeros(43)])
        # |y - p|^2 = |y|^2 - 2 y.p + |p|^2, and a token may be drawn twice.
        same = tokens[:, :, None] == tokens[:, None, :]
        lengths = (same * weights[:, :, None] * weights[:, None, :]).sum((1, 2))
        products = (weights * whole[tokens]).sum(1)
        found = (lengths - 2 * products + (whole**2).sum()).mean()
        assert abs(found / expected - 1) < 0.01


def test_documents_may_come_in_pieces():
    documents = zipf_documents(4, 1000, 20, 4)
    packing = Packing(4, 20, END)
    whole = positions_of(documents, packing, seed=7)
    tokens, ends = whole.tokens, np.cumsum([len(document) for document in documents])
    hashes = np.array([mix(number) for number in range(len(documents))], np.uint64)
    for cut in (1, 2, 250, 251, 252, 600):
        document = int(np.searchsorted(ends, cut, side="right"))
        begin = int(ends[document - 1]) if document else 0
        rows = [
            (slice(0, cut), [*ends[:document], cut], hashes[: document + 1], 0, 0),
            (
                slice(cut, None),
                ends[document:] - cut,
                hashes[document:],
                cut - begin,
                max(begin, cut - 3),
            ),
        ]
        for part, row_ends, row_hashes, first, before in rows:
            start = part.start
            row_ends = np.array([end for end in row_ends if end > 0])
            place = Place(first, tokens[before:start])
            documents_here = find_documents(
                packing,
                tokens[part],
                row_ends,
                row_hashes[-len(row_ends) :] if start else row_hashes[: len(row_ends)],
                place,
                7,
            )
            found = find_positions(packing, tokens[part], documents_here, place)
            for name in ("high", "low", "lengths", "hashes", "tokens"):
                assert (getattr(found, name) == getattr(whole, name)[part]).all(), (cut, name)


def test_full_distributions():
    documents = zipf_documents(5, 2000, 30)
    options = TargetOptions(min_order=1, max_order=2)
    packing = Packing(3, 30, END)
    counts = counts_of(documents, packing)
    table = build_table(packing, forward(counts, packing, options, 3))
    assert (table.columns["low"][1:] > table.columns["low"][:-1]).all()
    positions = positions_of(documents, packing)
    keys = positions.high, positions.low, positions.lengths
    rows = table.index.longest(*keys, options.orders)
    offsets, tokens, probabilities = full_distributions(table, rows, positions.tokens)
    contexts = [count_contexts(documents, order) for order in range(3)]
    flat = [(document, position) for document in documents for position in range(len(document))]
    for i, (document, position) in enumerate(flat):
        nexts = next(
            (
                found
                for order in (2, 1)
                if order <= position
                for found in [contexts[order][tuple(document[position - order : position])]]
                if sum(found.values()) >= 2
            ),
            {document[position]: 1},
        )
        rows = slice(offsets[i], offsets[i + 1])
        assert tokens[rows].tolist() == sorted(nexts)
        total = sum(nexts.values())
        wanted = [np.float32(nexts[token] / total) for token in sorted(nexts)]
        assert probabilities[rows].tolist() == wanted


def test_a_saved_table_is_the_same(tmp_path):
    documents = zipf_documents(6, 500, 30)
    options = TargetOptions(max_order=2)
    packing = Packing(3, 30, END)
    table = table_of(documents, packing, options)
    save_target_table(str(tmp_path / "table"), table)
    again = open_target_table(str(tmp_path / "table"), packing, options)
    positions = positions_of(documents, packing)
    first, second = make_targets(table, positions), make_targets(again, positions)
    assert (first.head == second.head).all()
    assert (first.drawn == second.drawn).all()
    for one, two in zip(first.dense(16, 4), second.dense(16, 4), strict=True):
        assert (one == two).all()


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("slots", 3, 1 << 20),
        ("low", 5, 99),
        ("head_offsets", 4, 1 << 40),
        ("head_tokens", 2, 30),
        ("head_weights", 1, 65535),
        ("head_orders", -1, 9),
        ("head_draws", 0, 200),
        ("tail_offsets", -1, 1 << 40),
        ("tail_tokens", 0, 30),
        ("tail_guides", 0, 5000),
    ],
)
def test_a_saved_table_that_lies_is_refused(name, place, value, tmp_path):
    documents = zipf_documents(6, 5000, 30)
    options = TargetOptions(head=2, max_order=2)
    packing = Packing(3, 30, END)
    columns = table_of(documents, packing, options).columns()
    changed = columns[name].copy()
    changed[place] = value
    save_columns(str(tmp_path), columns | {name: changed})
    with pytest.raises(DataError, match=r"the columns in .* are damaged") as raised:
        open_target_table(str(tmp_path), packing, options)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(("head", "draws"), [(0, 1), (1, 2), (2, 3), (5, 1)])
def test_slots_are_those_of_the_dense_form(head, draws):
    """In sequences that are taken in any order, the last one filled up."""
    documents = zipf_documents(7, 900, 40, 9)
    packing = Packing(3, 40, END)
    options = TargetOptions(head=head, tail_draws=draws, max_order=2)
    table = table_of(documents, packing, options)
    targets = make_targets(table, positions_of(documents, packing)).compact()
    length = 11
    sequences = -(-len(targets) // length)
    heads = np.full(sequences * length, NO_HEAD)
    heads[: len(targets)] = targets.head
    starts = np.cumsum([0, *targets.heads.draws[targets.head]])[: len(targets) : length]
    order = np.random.default_rng(0).permutation(sequences)
    tokens = np.zeros((sequences, length, head + draws), np.int32)
    weights = np.zeros(tokens.shape, np.float32)
    Slots(targets.heads, head).fill(
        heads.reshape(sequences, length)[order],
        targets.drawn,
        starts[order],
        order,
        tokens,
        weights,
    )
    right_tokens, right_weights = targets.dense(head, draws)
    flat_tokens, flat_weights = tokens.reshape(-1, head + draws), weights.reshape(-1, head + draws)
    assert (flat_tokens[: len(targets)] == right_tokens).all()
    unit = np.float32(1 / WEIGHT_UNITS)
    assert (flat_weights[: len(targets)] == right_weights.astype(np.float32) * unit).all()
    assert not flat_tokens[len(targets) :].any()
    assert not flat_weights[len(targets) :].any()


def test_compact_targets_have_no_heads_but_their_own():
    documents = zipf_documents(8, 900, 40, 9)
    packing = Packing(3, 40, END)
    table = table_of(documents, packing, TargetOptions(max_order=2))
    targets = make_targets(table, positions_of(documents, packing))
    part = next(targets.split([200]))
    compact = part.compact()
    assert len(compact.heads) == len(np.unique(part.head)) < len(table.heads)
    for one, two in zip(part.dense(16, 4), compact.dense(16, 4), strict=True):
        assert (one == two).all()


def test_hashes_of_strings_differ():
    strings = ["", "a", "b", "aa", "\0", "\0\0", "12345678", "123456780", "0" * 8, "0" * 16]
    data = np.frombuffer("".join(strings).encode(), np.uint8)
    offsets = np.cumsum([0, *map(len, strings)]).astype(np.int32)
    hashes = hash_strings(offsets, data)
    assert len(set(hashes.tolist())) == len(strings)
    assert hash_strings(offsets[1:], data)[0] == hashes[1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scheme": "keep"}, "scheme 'keep' is none of retain, split, renormalize"),
        ({"estimator": "best"}, "estimator 'best' is none of longest, fixed"),
        ({"head": -1}, "head -1 is not between 0 and 256"),
        ({"head": 300}, "head 300 is not between 0 and 256"),
        ({"tail_draws": 0}, "tail-draws 0 is not between 1 and 256"),
        ({"scheme": "split"}, "tail-draws 4 with the scheme split"),
        ({"scheme": "renormalize", "head": 0, "tail_draws": 0}, "head 0 is not between 1"),
        ({"min_order": 4}, "min-order 4 is not between 0 and max-order 3"),
        ({"min_order": -1}, "min-order -1 is not"),
        ({"min_count": 0}, "min-count 0 is not between 1 and"),
    ],
)
def test_bad_options(wrong, message):
    with pytest.raises(UsageError, match=message):
        TargetOptions(**wrong)
