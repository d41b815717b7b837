"""Targets written from ids and probabilities, beside exact fractions; and what is refused."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.ngram_agg.given_targets import targets_of, write_targets
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.targets_files import TargetsReader
from tests.trainer import samples

HEAD, DRAWS = 3, 2
PACKING = Packing.of(samples.TOKENIZER, 1)
FILES = samples.random_files(3, [(40, 7), (12,)])
COUNT = sum(len(row["tokens"]) for file in FILES for group in file for row in group)


def random_parts(seed, count):
    """Ids, and probabilities of the first ones, in which some are 0 and some leave nothing."""
    generator = np.random.default_rng(seed)
    ids = np.stack(
        [generator.choice(samples.VOCABULARY, HEAD + DRAWS, False) for _ in range(count)]
    )
    shares = generator.dirichlet([0.3] * (HEAD + 1), count).astype(np.float32)
    shares[generator.random(shares.shape) < 0.1] = 0
    shares[shares.sum(1) == 0] = 1
    shares /= shares.sum(1, keepdims=True)
    return ids, shares[:, :HEAD]


def by_definition(shares):
    """Units of 1/65535: rounded down, and up where the most was lost."""
    exact = [Fraction(float(share)) for share in shares]
    exact.append(max(Fraction(0), 1 - sum(exact)))
    exact = [65535 * share / sum(exact) for share in exact]
    units = [int(share) for share in exact]
    lost = sorted(range(len(exact)), key=lambda i: (units[i] - exact[i], i))
    for i in lost[: 65535 - sum(units)]:
        units[i] += 1
    return units


@given(seed=st.integers(0, 1000))
def test_weights_are_the_probabilities_to_the_unit(seed):
    ids, shares = random_parts(seed, 5)
    tokens, weights = targets_of(ids, shares, PACKING).dense(HEAD, DRAWS)
    assert (weights.sum(1) == 65535).all()
    for position in range(5):
        *head, rest = by_definition(shares[position])
        expected = dict.fromkeys(ids[position].tolist(), 0)
        for token, units in zip(ids[position].tolist(), head, strict=False):
            expected[token] += units
        for number, token in enumerate(ids[position, HEAD:].tolist()):
            expected[token] += rest // DRAWS + (number < rest % DRAWS)
        found = dict.fromkeys(expected, 0)
        for token, weight in zip(
            tokens[position].tolist(), weights[position].tolist(), strict=True
        ):
            if weight:
                found[token] += weight
        # Floats may fall on the other side of a tie.
        assert all(abs(found[token] - expected[token]) <= 1 for token in expected)


@pytest.fixture
def tokens(tmp_path):
    return samples.write_tokens(tmp_path / "tokens", FILES)


@pytest.mark.parametrize("cuts", [[], [1, 2, 30], [11, 11, 47]])
def test_what_is_written_is_what_is_read(tokens, tmp_path, cuts):
    ids, shares = random_parts(1, COUNT)
    parts = zip(np.split(ids, cuts), np.split(shares, cuts), strict=True)
    output = str(tmp_path / "targets")
    options = {"head": HEAD, "tail_draws": DRAWS, "made_of": {"by": "test"}}
    manifest = write_targets(tokens, output, parts, **options)
    reader = TargetsReader(output, read_manifest(output, "targets"))
    found = [
        targets.dense(HEAD, DRAWS) for name in reader.names for _, targets in reader.read_file(name)
    ]
    expected = targets_of(ids, shares, PACKING).dense(HEAD, DRAWS)
    for column in (0, 1):
        assert np.array_equal(np.concatenate([part[column] for part in found]), expected[column])
    # What is complete is left alone, whatever comes; as something else it is refused.
    assert write_targets(tokens, output, [], **options).content_hash == manifest.content_hash
    with pytest.raises(UsageError, match="made_of"):
        write_targets(tokens, output, [], **options | {"made_of": {"by": "another"}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids, shares: (ids[1:], shares[1:]), "fewer positions than tokens"),
        (lambda ids, shares: (np.tile(ids, (2, 1)), np.tile(shares, (2, 1))), "more positions"),
        (lambda ids, shares: (ids[:, 1:], shares), "are needed"),
        (lambda ids, shares: (ids + samples.VOCABULARY, shares), "ids from"),
        (lambda ids, shares: (ids, shares - 1), "below 0"),
        (lambda ids, shares: (ids, shares * np.nan), "below 0"),
        (lambda ids, shares: (ids, shares + 1), "more than 1"),
    ],
)
def test_what_is_no_distribution_is_refused(tokens, tmp_path, change, message):
    part = change(*random_parts(1, COUNT))
    output = tmp_path / "targets"
    with pytest.raises(DataError, match=message):
        write_targets(tokens, str(output), [part], head=HEAD, tail_draws=DRAWS, made_of={})
    assert not (output / "manifest.json").exists()
