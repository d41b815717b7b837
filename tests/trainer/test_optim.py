"""Schedules at points computed by hand; what decays; that optimizers take steps."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.corpus.errors import UsageError
from corpusmill.trainer.model_config import ModelConfig
from corpusmill.trainer.models import Transformer
from corpusmill.trainer.optim import make_optimizer, make_schedule
from corpusmill.trainer.options import OPTIMIZERS, SCHEDULES

SMALL = ModelConfig(vocabulary_size=64, width=8, heads=1, layers=1, head_size=8, mlp_width=8)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_rises_linearly_to_the_last_step_of_the_warmup(name):
    schedule = make_schedule(name, 0.8, warmup=4, steps=100)
    assert [schedule(step) for step in (1, 2, 3, 4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])


@pytest.mark.parametrize(
    ("name", "step", "expected"),
    [
        ("rsqrt", 16, 0.4),
        ("rsqrt", 100, 0.16),
        ("rsqrt", 10_000, 0.016),
        ("cosine", 104, 0.08),
        ("cosine", 54, (0.8 + 0.08) / 2),
        ("cosine", 29, 0.08 + 0.72 * (1 + math.sqrt(0.5)) / 2),
        ("cosine", 200, 0.08),
        ("constant", 5, 0.8),
        ("constant", 10_000, 0.8),
    ],
)
def test_after_the_warmup(name, step, expected):
    assert make_schedule(name, 0.8, warmup=4, steps=104)(step) == pytest.approx(expected)


def test_without_warmup_the_first_step_has_the_highest_rate():
    for name in ("rsqrt", "constant"):
        assert make_schedule(name, 0.8, warmup=0, steps=10)(1) == 0.8
    assert make_schedule("cosine", 0.8, warmup=0, steps=10)(1) == pytest.approx(0.8, rel=0.03)


@given(
    name=st.sampled_from(list(SCHEDULES)),
    warmup=st.integers(0, 30),
    steps=st.integers(1, 30),
    step=st.integers(1, 60),
)
def test_the_rate_is_positive_and_never_above_the_highest(name, warmup, steps, step):
    schedule = make_schedule(name, 0.5, warmup, steps)
    assert 0 < schedule(step) <= 0.5
    if step >= max(warmup, 1):
        assert schedule(step + 1) <= schedule(step)


def test_an_unknown_schedule_names_those_there_are():
    with pytest.raises(UsageError, match="schedule 'linear': there are rsqrt, cosine, constant"):
        make_schedule("linear", 0.1, 0, 10)


def test_an_unknown_optimizer_names_those_there_are():
    with pytest.raises(UsageError, match="optimizer 'sgd': there are adamw, adafactor"):
        make_optimizer("sgd", Transformer(SMALL), 0.1)


def test_matrices_decay_but_norms_and_embeddings_do_not():
    model = Transformer(SMALL)
    optimizer = make_optimizer("adamw", model, 0.1)
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    for each in model.parameters():
        each.grad = torch.zeros_like(each)
    optimizer.step()
    shrunk = {name for name, each in model.named_parameters() if (each < before[name]).any()}
    assert shrunk == {name for name in before if "norm" not in name and "embedding" not in name}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_and_betas_are_those_that_are_given(name):
    def settings(*more):
        optimizer = make_optimizer(name, Transformer(SMALL), 0.1, *more)
        return [(group["weight_decay"], group.get("betas")) for group in optimizer.param_groups]

    usual = {"adamw": (0.1, (0.9, 0.95)), "adafactor": (0.0, None)}[name]
    assert settings() == [usual, (0.0, usual[1])]
    assert [decay for decay, _ in settings(0.3)] == [0.3, 0.0]
    if name == "adamw":
        assert settings(None, (0.8, 0.99)) == [(0.1, (0.8, 0.99)), (0.0, (0.8, 0.99))]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_has_all_parameters_once_and_lessens_a_loss(name):
    torch.manual_seed(0)
    model = Transformer(SMALL)
    optimizer = make_optimizer(name, model, 0.01)
    owned = [each for group in optimizer.param_groups for each in group["params"]]
    assert sorted(map(id, owned)) == sorted(map(id, model.parameters()))
    tokens = torch.arange(8)[None]
    losses = []
    for _ in range(10):
        loss = (model(tokens) - 1).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
