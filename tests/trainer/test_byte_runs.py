from itertools import islice

import numpy as np
import pytest
import torch

from corpusmill.compress.byte_models.transformer_state import START
from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.trainer.batches import IGNORED
from corpusmill.trainer.byte_runs import ByteRunOptions, ByteRuns
from corpusmill.trainer.options import STARTS

DOCUMENTS = [b"abcdefghijklmnopqrstuvwxyz", b"", b"0", b"ABCDE"]
TEXT = ByteStrings.of(DOCUMENTS)


def runs(starts="anywhere", length=8, batch_size=4, seed=1, **share):
    return ByteRuns(TEXT, ByteRunOptions(starts, length, batch_size, seed), **share)


def learnt(batch):
    """The bytes of each run."""
    return [bytes(row[row != IGNORED].tolist()) for row in batch.next_tokens]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True) if a is not None)


@pytest.mark.parametrize(("starts", "step"), [("anywhere", 1), ("documents", 4)])
def test_runs_are_all_those_that_start_where_they_may(starts, step):
    """As often as there are bytes that lead to them."""
    expected = {}
    for document in DOCUMENTS:
        for place in range(len(document)):
            first = place - place % step
            run = document[first : first + 8]
            expected[run] = expected.get(run, 0) + 1
    found = {}
    for batch in islice(runs(starts, batch_size=320), 20):
        for run in learnt(batch):
            found[run] = found.get(run, 0) + 1
    assert found.keys() == expected.keys()
    for run, count in expected.items():
        assert found[run] / 6400 == pytest.approx(count / 32, rel=0.4)


@pytest.mark.parametrize("starts", STARTS)
def test_each_byte_is_predicted_from_the_start_token_and_those_before(starts):
    for batch in islice(runs(starts), 50):
        assert batch.tokens.dtype == batch.next_tokens.dtype == torch.int64
        assert batch.tokens.shape == batch.next_tokens.shape == (4, 8)
        for tokens, run, size in zip(batch.tokens, learnt(batch), batch.bytes, strict=True):
            assert tokens[: len(run)].tolist() == [START, *run[:-1]]
            assert len(run) == size


def test_batches_follow_from_seed_and_number():
    first, again = (list(islice(runs(), 6)) for _ in range(2))
    assert all(map(same, first, again))
    assert not same(first[0], first[1])
    assert not same(first[0], next(iter(runs(seed=2))))


def test_a_state_goes_on_with_any_number_of_ranks():
    expected = list(islice(runs(), 11))
    began = runs()
    list(islice(began, 4))
    shares = [runs(rank=rank, ranks=3) for rank in range(3)]
    for rank, share in enumerate(shares):
        share.load_state_dict(began.state_dict())
        found = list(islice(share, 2))
        assert all(map(same, found, expected[4 + rank : 10 : 3]))
    one = runs()
    one.load_state_dict(shares[0].state_dict())
    assert same(next(iter(one)), expected[10])


def test_so_many_batches_come_each_time():
    validation = runs(batches=3)
    first, again = list(validation), list(validation)
    assert len(first) == 3
    assert all(map(same, first, again))
    assert [len(list(runs(batches=3, rank=rank, ranks=2))) for rank in range(2)] == [2, 1]


def test_where_there_is_an_end_all_ranks_come_to_it_and_passes_after_a_resumed_one_are_whole():
    whole = list(runs(batches=4))
    for rank in range(3):
        share = runs(batches=4, rank=rank, ranks=3)
        list(share)
        assert share.state_dict() == {"batch": 4}
    validation = runs(batches=4)
    validation.load_state_dict({"batch": 3})
    assert [len(list(validation)) for _ in range(3)] == [1, 4, 4]
    validation.load_state_dict({"batch": 2})
    assert all(map(same, validation, whole[2:]))


def test_a_part_of_the_text_is_only_that_part():
    part = ByteStrings(TEXT.data, TEXT.offsets[2:])
    found = {
        run
        for batch in islice(ByteRuns(part, ByteRunOptions("anywhere", 8, 9, 0)), 30)
        for run in learnt(batch)
    }
    assert found == {b"0", b"ABCDE", b"BCDE", b"CDE", b"DE", b"E"}


def test_what_makes_no_runs_is_refused():
    with pytest.raises(UsageError, match="--length 7 is not an even number"):
        ByteRunOptions("anywhere", 7, 4, 0)
    with pytest.raises(UsageError, match="there are anywhere, documents"):
        ByteRunOptions("nowhere", 8, 4, 0)
    empty = ByteStrings(np.empty(0, np.uint8), np.zeros(3, np.int64))
    with pytest.raises(DataError, match="no text"):
        ByteRuns(empty, ByteRunOptions("anywhere", 8, 4, 0))
