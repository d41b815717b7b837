"""The losses against dense ones in float64; their gradients against autograd and differences."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from corpusmill.trainer.batches import IGNORED
from corpusmill.trainer.losses import linear_cross_entropy, most_likely, sparse_cross_entropy

WIDTH, VOCABULARY = 5, 11


def dense_loss(hidden, weight, next_tokens, distributions, mix, z_loss, positions=None):
    """The objective by its definition; `distributions` are dense, [n, vocabulary]."""
    predicted = next_tokens != IGNORED
    logs = functional.log_softmax(hidden @ weight.T, -1)[predicted]
    log_partition = torch.logsumexp(hidden @ weight.T, -1)[predicted]
    soft = -(distributions[predicted] * logs).sum()
    hard = functional.nll_loss(logs, next_tokens[predicted], reduction="sum")
    z = z_loss * (log_partition**2).sum()
    divisor = max(1, int(predicted.sum())) if positions is None else positions
    return (mix * soft + (1 - mix) * hard + z) / divisor, hard / divisor, z / divisor


def dense(tokens, weights, offsets=None):
    """Sparse distributions as dense ones, an entry at a time."""
    if offsets is None:
        rows = [list(zip(*pair, strict=True)) for pair in zip(tokens, weights, strict=True)]
    else:
        entries = list(zip(tokens, weights, strict=True))
        rows = [entries[first:last] for first, last in itertools.pairwise(offsets)]
    result = torch.zeros(len(rows), VOCABULARY, dtype=torch.float64)
    for row, pairs in zip(result, rows, strict=True):
        for token, weight in pairs:
            row[int(token)] += float(weight)
    return result


def sample(positions, slots=3, seed=0, dtype=torch.float64):
    """Inputs with an ignored position, a token in two slots, an unused slot, sums that aren't 1."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(positions, WIDTH, generator=generator, dtype=dtype)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=dtype)
    next_tokens = torch.randint(0, VOCABULARY, (positions,), generator=generator)
    tokens = torch.randint(0, VOCABULARY, (positions, slots), generator=generator)
    weights = torch.rand(positions, slots, generator=generator, dtype=dtype)
    if slots > 1:
        weights[:, -1] = 0
    if positions > 1:
        next_tokens[1] = IGNORED
        tokens[0, :2] = next_tokens[0]
    return hidden, weight, next_tokens, tokens.int(), weights


def ragged_sample(positions, seed=0):
    """The same with up to five entries a position, some with none."""
    hidden, weight, next_tokens, _, _ = sample(positions, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    counts = torch.randint(0, 6, (positions,), generator=generator)
    offsets = functional.pad(counts.cumsum(0), (1, 0))
    size = int(offsets[-1])
    tokens = torch.randint(0, VOCABULARY, (size,), generator=generator)
    weights = torch.rand(size, generator=generator, dtype=torch.float64)
    return hidden, weight, next_tokens, tokens, weights, offsets


def gradients(total, *inputs):
    return torch.autograd.grad(total, inputs)


@given(
    positions=st.integers(1, 9),
    slots=st.integers(1, 4),
    seed=st.integers(0, 99),
    mix=st.sampled_from([0.0, 0.3, 1.0]),
    z_loss=st.sampled_from([0.0, 0.01]),
    chunk=st.sampled_from([1, 2, 4, 100]),
    divisor=st.sampled_from([None, 7]),
)
@settings(deadline=None, max_examples=60)
def test_equals_the_dense_loss(positions, slots, seed, mix, z_loss, chunk, divisor):
    hidden, weight, next_tokens, tokens, weights = sample(positions, slots, seed)
    hidden.requires_grad_()
    weight.requires_grad_()
    loss = linear_cross_entropy(
        hidden,
        weight,
        next_tokens,
        tokens,
        weights,
        mix=mix,
        z_loss=z_loss,
        chunk=chunk,
        positions=divisor,
    )
    total, next_token, z = dense_loss(
        hidden, weight, next_tokens, dense(tokens, weights), mix, z_loss, divisor
    )
    torch.testing.assert_close(loss[:3], (total, next_token, z))
    assert loss.positions == (next_tokens != IGNORED).sum()
    torch.testing.assert_close(
        gradients(3 * loss.total, hidden, weight), gradients(3 * total, hidden, weight)
    )


@given(
    positions=st.integers(1, 9),
    seed=st.integers(0, 99),
    mix=st.sampled_from([0.0, 0.3, 1.0]),
    chunk=st.sampled_from([1, 2, 4, 100]),
)
@settings(deadline=None, max_examples=40)
def test_ragged_targets_equal_the_dense_loss(positions, seed, mix, chunk):
    hidden, weight, next_tokens, tokens, weights, offsets = ragged_sample(positions, seed)
    hidden.requires_grad_()
    weight.requires_grad_()
    loss = linear_cross_entropy(
        hidden,
        weight,
        next_tokens,
        tokens,
        weights,
        target_offsets=offsets,
        mix=mix,
        chunk=chunk,
    )
    distributions = dense(tokens, weights, offsets.tolist())
    total, next_token, z = dense_loss(hidden, weight, next_tokens, distributions, mix, 0.0)
    torch.testing.assert_close(loss[:3], (total, next_token, z))
    torch.testing.assert_close(
        gradients(loss.total, hidden, weight), gradients(total, hidden, weight)
    )


def test_gradient_equals_differences():
    hidden, weight, *targets = sample(5)

    def total(hidden, weight):
        return linear_cross_entropy(hidden, weight, *targets, mix=0.7, z_loss=0.05, chunk=2).total

    inputs = (hidden.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(total, inputs)


def test_gradient_of_ragged_targets_equals_differences():
    hidden, weight, next_tokens, tokens, weights, offsets = ragged_sample(5)

    def total(hidden, weight):
        return linear_cross_entropy(
            hidden, weight, next_tokens, tokens, weights, target_offsets=offsets, chunk=2
        ).total

    inputs = (hidden.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(total, inputs)


@pytest.mark.parametrize("frozen", ["hidden", "weight", "both"])
def test_only_what_needs_a_gradient_gets_one(frozen):
    hidden, weight, *targets = sample(4)
    hidden.requires_grad_(frozen == "weight")
    weight.requires_grad_(frozen == "hidden")
    total = linear_cross_entropy(hidden, weight, *targets).total
    assert total.requires_grad == (frozen != "both")
    if total.requires_grad:
        total.backward()
    assert (hidden.grad is None, weight.grad is None) == (frozen != "weight", frozen != "hidden")


def test_without_targets_it_is_plain_cross_entropy():
    hidden, weight, next_tokens, _, _ = sample(6, dtype=torch.float32)
    loss = linear_cross_entropy(hidden, weight, next_tokens)
    expected = functional.cross_entropy(hidden @ weight.T, next_tokens, ignore_index=IGNORED)
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.next_token, expected)


def test_tokens_without_weights_are_refused():
    hidden, weight, next_tokens, tokens, _ = sample(3)
    with pytest.raises(ValueError, match="belong together"):
        linear_cross_entropy(hidden, weight, next_tokens, tokens)


def test_inputs_stay_as_they_are_and_no_gradient_is_no_difference():
    inputs = sample(6)
    before = [each.clone() for each in inputs]
    needed = linear_cross_entropy(inputs[0].requires_grad_(), *inputs[1:], chunk=4)
    with torch.no_grad():
        evaluated = linear_cross_entropy(*inputs, chunk=4)
    assert not evaluated.total.requires_grad
    assert not needed.next_token.requires_grad
    assert needed.predicted is evaluated.predicted is None
    for left, right in zip(needed[:-1], evaluated[:-1], strict=True):
        assert torch.equal(left, right)
    for left, right in zip(inputs, before, strict=True):
        assert torch.equal(left, right)


def test_parts_of_a_batch_add_up_to_the_batch():
    hidden, weight, *targets = sample(7)
    weight.requires_grad_()
    whole = linear_cross_entropy(hidden, weight, *targets, mix=0.4, z_loss=0.01)
    parts = [
        linear_cross_entropy(
            hidden[part],
            weight,
            *(each[part] for each in targets),
            mix=0.4,
            z_loss=0.01,
            positions=whole.positions,
        )
        for part in (slice(0, 2), slice(2, 7))
    ]
    for name in ("total", "next_token", "z", "positions"):
        added = sum(getattr(part, name) for part in parts)
        torch.testing.assert_close(added, getattr(whole, name))
    torch.testing.assert_close(
        gradients(sum(part.total for part in parts), weight), gradients(whole.total, weight)
    )


def test_a_batch_without_predictions_costs_nothing():
    hidden, weight, next_tokens, tokens, weights = sample(4)
    hidden.requires_grad_()
    next_tokens.fill_(IGNORED)
    loss = linear_cross_entropy(hidden, weight, next_tokens, tokens, weights, z_loss=0.1)
    assert loss[:4] == (0, 0, 0, 0)
    assert not gradients(loss.total, hidden)[0].any()


@pytest.mark.parametrize("ragged", [False, True])
def test_an_empty_batch_costs_nothing(ragged):
    hidden, weight, next_tokens, tokens, weights = sample(4)
    hidden, weight = hidden[:0].clone().requires_grad_(), weight.requires_grad_()
    offsets = torch.zeros(1, dtype=torch.int64) if ragged else None
    tokens, weights = (each[:0].flatten() if ragged else each[:0] for each in (tokens, weights))
    for targets in ((tokens, weights), ()):
        loss = linear_cross_entropy(
            hidden, weight, next_tokens[:0], *targets, target_offsets=offsets if targets else None
        )
        assert loss[:4] == (0, 0, 0, 0)
        found = torch.autograd.grad(loss.total, (hidden, weight))
        assert [each.shape for each in found] == [hidden.shape, weight.shape]
        assert not found[1].any()
    assert most_likely(hidden, weight).shape == (0,)


@pytest.mark.parametrize("slots", [1, 3])
def test_positions_without_slots_have_no_targets(slots):
    hidden, weight, next_tokens, _, _ = sample(4)
    tokens, weights = torch.empty(4, 0, dtype=torch.int32), torch.empty(4, 0).double()
    loss = linear_cross_entropy(hidden, weight, next_tokens, tokens, weights, mix=0.0)
    assert loss[:4] == linear_cross_entropy(hidden, weight, next_tokens)[:4]


@pytest.mark.parametrize("wrong", [-1, -99, -101, VOCABULARY])
def test_ids_outside_the_vocabulary_are_refused(wrong):
    hidden, weight, next_tokens, tokens, weights = sample(4)
    bad = next_tokens.clone()
    bad[-1] = wrong
    with pytest.raises(ValueError, match=f"next tokens other than -100 .* 0 and 10: {wrong} is"):
        linear_cross_entropy(hidden, weight, bad)
    bad = tokens.clone()
    bad[-1, -1] = wrong
    with pytest.raises(ValueError, match=f"target tokens are not all between 0 and 10: {wrong} is"):
        linear_cross_entropy(hidden, weight, next_tokens, bad, weights)
    with pytest.raises(ValueError, match=f"target tokens .*: {wrong} is"):
        sparse_cross_entropy(hidden @ weight.T, bad, weights)


@pytest.mark.parametrize("mix", [0.0, 0.6, 1.0])
def test_masked_entries_of_the_vocabulary_matter_only_where_they_weigh(mix):
    """As if the vocabulary ended before them: losses and gradients."""
    hidden, weight, next_tokens, tokens, weights = sample(6, slots=4)
    hidden = hidden.abs() + 0.1
    left = VOCABULARY - 2
    next_tokens[next_tokens >= left] = 3
    tokens %= left
    tokens[:, -1] = left  # of weight 0
    masked = weight.clone()
    masked[left:] = -math.inf
    plain = tokens.clone()
    plain[:, -1] = 0
    results = []
    for matrix, targets in ((masked, tokens), (weight[:left], plain)):
        given = hidden.clone().requires_grad_()
        loss = linear_cross_entropy(given, matrix, next_tokens, targets, weights, mix=mix)
        results.append((loss, *loss[:3]))
        assert torch.isfinite(loss.total)
    assert torch.allclose(torch.stack(results[0][1:]), torch.stack(results[1][1:]))
    logits = (hidden @ weight.T).index_fill(1, torch.arange(left, VOCABULARY), -math.inf)
    logits.requires_grad_()
    found = sparse_cross_entropy(logits, tokens, weights)
    expected = sparse_cross_entropy(logits[:, :left], plain, weights)
    assert torch.allclose(found, expected)
    [gradient] = torch.autograd.grad(found.sum(), logits)
    assert torch.isfinite(gradient).all()
    assert not gradient[:, left:].any()


def test_a_masked_next_token_does_not_matter_where_only_targets_count():
    hidden, weight, next_tokens, tokens, weights = sample(4)
    hidden = hidden.abs() + 0.1
    weight[VOCABULARY - 1] = -math.inf
    next_tokens[0] = VOCABULARY - 1
    tokens %= VOCABULARY - 1
    loss = linear_cross_entropy(hidden, weight, next_tokens, tokens, weights, mix=1.0)
    assert torch.isfinite(loss.total)
    assert loss.next_token == math.inf
    tokens[0, 0], weights[0, 0] = VOCABULARY - 1, 1
    next_tokens[0] = 0
    loss = linear_cross_entropy(hidden, weight, next_tokens, tokens, weights, mix=0.0)
    assert torch.isfinite(loss.total)


def test_more_logits_in_a_chunk_than_the_cpu_takes_at_a_time():
    generator = torch.Generator().manual_seed(0)
    vocabulary = 2**18
    hidden = torch.randn(9, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocabulary, 2, generator=generator, dtype=torch.float64)
    next_tokens = torch.randint(0, vocabulary, (9,), generator=generator)
    # Some in every row, so that each has to be found in its own block.
    offsets = torch.arange(0, 28, 3)
    tokens = torch.randint(0, vocabulary, (27,), generator=generator)
    weights = torch.rand(27, generator=generator, dtype=torch.float64)
    found, expected = (
        linear_cross_entropy(
            hidden, weight, next_tokens, tokens, weights, target_offsets=offsets, chunk=chunk
        ).total
        for chunk in (9, 1)
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, hidden), gradients(expected, hidden))


def test_large_logits_do_not_overflow():
    hidden = torch.tensor([[1000.0], [-1000.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [2.0], [-1.0]])
    loss = linear_cross_entropy(hidden, weight, torch.tensor([0, 2]))
    # Logits are (1000, 2000, -1000) and (-1000, -2000, 1000).
    assert loss.total == 500
    loss.total.backward()
    torch.testing.assert_close(hidden.grad, torch.tensor([[0.5], [0.0]]))


def test_a_hidden_state_that_is_no_number_shows():
    hidden, weight, *targets = sample(4)
    hidden[2] = math.nan
    assert linear_cross_entropy(hidden, weight, *targets).total.isnan()


def test_autocast_multiplies_in_bfloat16_and_adds_in_float32():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(300, 32, generator=generator, requires_grad=True)
    weight = torch.randn(50, 32, generator=generator).div_(6).requires_grad_()
    next_tokens = torch.randint(0, 50, (300,), generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, next_tokens, chunk=16)
    expected = linear_cross_entropy(hidden, weight, next_tokens)
    assert loss.total.dtype == torch.float32
    # Some difference, or it wasn't bfloat16; but no more than that has: 8 bits.
    assert loss.total != expected.total
    torch.testing.assert_close(loss.total, expected.total, rtol=2**-8, atol=0)
    found, exact = (gradients(each.total, hidden, weight) for each in (loss, expected))
    for left, right in zip(found, exact, strict=True):
        assert left.dtype == torch.float32
        assert (left - right).norm() < 2**-6 * right.norm()


def test_memory_is_that_of_a_chunk_of_logits():
    positions, vocabulary, chunk = 4096, 1000, 64
    hidden = torch.zeros(positions, 8, requires_grad=True)
    weight = torch.zeros(vocabulary, 8, requires_grad=True)
    next_tokens = torch.zeros(positions, dtype=torch.int64)
    with torch.profiler.profile(profile_memory=True) as profile:
        linear_cross_entropy(hidden, weight, next_tokens, chunk=chunk).total.backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest <= 2 * 4 * chunk * vocabulary


@given(slots=st.integers(1, 4), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_sparse_cross_entropy_equals_the_dense_one(slots, seed):
    _, _, _, tokens, weights = sample(6, slots, seed)
    generator = torch.Generator().manual_seed(seed)
    shape = (6, VOCABULARY)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    found = sparse_cross_entropy(
        logits.unflatten(0, (2, 3)), tokens.unflatten(0, (2, 3)), weights.unflatten(0, (2, 3))
    )
    expected = -(dense(tokens, weights) * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(found, expected.unflatten(0, (2, 3)))
    torch.testing.assert_close(gradients(found.sum(), logits), gradients(expected.sum(), logits))


def test_sparse_cross_entropy_of_half_precision_is_float32():
    logits = torch.zeros(1, 4, dtype=torch.bfloat16)
    found = sparse_cross_entropy(logits, torch.tensor([[2]]), torch.tensor([[1.0]]))
    torch.testing.assert_close(found, torch.tensor([math.log(4)]))


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_the_most_likely_tokens_are_those_of_the_greatest_logits(chunk):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, WIDTH, generator=generator)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator)
    expected = [int((weight @ each).argmax()) for each in hidden]
    assert most_likely(hidden, weight, chunk).tolist() == expected
