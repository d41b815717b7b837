"""Steps beside a dense oracle, the same steps cut otherwise, and steps after a checkpoint."""

import copy
import math
import re

import pytest
import torch
from torch import nn

from corpusmill.corpus.errors import UsageError
from corpusmill.trainer import checkpoints
from corpusmill.trainer.batches import IGNORED, Batch
from corpusmill.trainer.distributed import Processes
from corpusmill.trainer.model_config import ModelConfig
from corpusmill.trainer.objective import matrix_type
from corpusmill.trainer.options import TrainOptions
from corpusmill.trainer.runs import take_over
from corpusmill.trainer.training import Trainer
from tests.trainer.samples import VOCABULARY

CPU = Processes(torch.device("cpu"))
LENGTH = 8
SLOTS = 3


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def options(**changed):
    usual = {"objective": "compact", "targets": "targets", "batch_size": 4, "length": LENGTH}
    return TrainOptions("tokens", "run", **{"steps": 10, "warmup": 2} | usual | changed)


def trainer(**changed):
    return Trainer(options(**changed), ModelConfig.of("3m", VOCABULARY), CPU)


def batch(seed, sequences=4, ignored=3):
    """Random predictions and targets; `ignored` places at the end of the last sequence are none."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCABULARY, (sequences, LENGTH + 1), generator=generator)
    next_tokens = tokens[:, 1:].clone()
    weights = torch.rand(sequences, LENGTH, SLOTS, generator=generator)
    weights /= weights.sum(-1, keepdim=True)
    if ignored:
        next_tokens[-1, -ignored:] = IGNORED
        weights[-1, -ignored:] = 0
    return Batch(
        tokens[:, :-1],
        next_tokens,
        torch.randint(VOCABULARY, weights.shape, generator=generator, dtype=torch.int32),
        weights,
        torch.zeros(sequences, dtype=torch.int64),
    )


def parameters(trained):
    return list(trained.checkpoint({}).model.items())


def step_and_gradients(trained, batches):
    """A step's outcome and the gradients that the optimizer got."""
    seen = {}

    def look(*_):
        named = trained.objective.model.named_parameters()
        seen.update((name, each.grad.clone()) for name, each in named)

    hook = trained.optimizer.register_step_pre_hook(look)
    outcome = trained.take_step(batches)
    hook.remove()
    return outcome, seen


def assert_close(gradients, others):
    """As far as sums in another order allow, measured at each parameter's largest number."""
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        error = (gradient - others[name]).abs().max()
        assert error <= 1e-5 * others[name].abs().max(), name


def assert_equal(trained, other):
    for (name, one), (_, two) in zip(parameters(trained), parameters(other), strict=True):
        assert torch.equal(one, two), name


def dense_losses(model, batch, mix, z_loss):
    """Loss and next-token loss of a batch by full distributions over the vocabulary."""
    there = batch.next_tokens != IGNORED
    logits = (model(batch.tokens) @ model.output_weight.T)[there]
    target = torch.zeros_like(logits)
    target.scatter_add_(1, batch.target_tokens[there].long(), batch.target_weights[there])
    observed = nn.functional.one_hot(batch.next_tokens[there], logits.shape[1])
    logs = logits.log_softmax(-1)
    next_token = -(observed * logs).sum(-1).mean()
    z = logits.logsumexp(-1).square().mean()
    soft = -(target * logs).sum(-1).mean()
    return mix * soft + (1 - mix) * next_token + z_loss * z, next_token


def test_a_step_beside_dense_distributions():
    ours = trainer(mix=0.7, z_loss=0.01, clip=0.5)
    model = copy.deepcopy(ours.objective.model)
    loss, next_token = dense_losses(model, batch(1), mix=0.7, z_loss=0.01)
    loss.backward()
    expected = {name: each.grad for name, each in model.named_parameters()}
    norm = math.sqrt(sum(float(each.double().square().sum()) for each in expected.values()))
    outcome, gradients = step_and_gradients(ours, [batch(1)])
    assert outcome.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    assert outcome.next_token_loss.item() == pytest.approx(next_token.item(), rel=1e-5)
    assert outcome.gradient_norm.item() == pytest.approx(norm, rel=1e-4)
    assert outcome.predictions.item() == 4 * LENGTH - 3
    assert norm > 0.5
    assert_close(gradients, {name: each * 0.5 / norm for name, each in expected.items()})


def test_micro_batches_of_any_size_make_the_same_step():
    """Also where some have fewer predictions than others."""
    parts = [batch(seed, sequences=4 - seed, ignored=seed * 2) for seed in range(4)][:3]
    columns = list(zip(*parts, strict=True))[:5]
    whole = Batch(*map(torch.cat, columns))
    first, gradients = step_and_gradients(trainer(), parts)
    second, expected = step_and_gradients(trainer(), [whole])
    torch.testing.assert_close(torch.stack(first[:3]), torch.stack(second[:3]))
    assert first.predictions == second.predictions
    assert_close(gradients, expected)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_after_a_checkpoint_everything_is_as_before(optimizer, tmp_path):
    chosen = {"optimizer": optimizer, "mix_schedule": "linear-to-zero", "schedule": "cosine"}
    first = trainer(**chosen)
    for seed in range(3):
        first.take_step([batch(seed)])
    folder = checkpoints.save(take_over(str(tmp_path)), first.checkpoint({"note": 1}))
    drawn = torch.rand(3)
    later = [first.take_step([batch(seed)]) for seed in range(3, 6)]
    second = trainer(**chosen, seed=9)
    checkpoint = checkpoints.load(folder)
    second.restore(checkpoint)
    assert checkpoint.state == {"note": 1}
    assert second.step == 3
    assert torch.equal(torch.rand(3), drawn)
    assert [second.take_step([batch(seed)]) for seed in range(3, 6)] == later
    assert_equal(first, second)


def test_a_checkpoint_alone_changes_nothing():
    saved, other = trainer(), trainer()
    for seed in range(2):
        saved.take_step([batch(seed)])
        saved.checkpoint({})
        other.take_step([batch(seed)])
    assert_equal(saved, other)


def test_the_seed_decides_the_first_parameters():
    torch.manual_seed(3)
    first = trainer(seed=5)
    assert_equal(first, trainer(seed=5))
    names = [name for name, tensor in parameters(first) if tensor.ndim > 1]
    other = dict(parameters(trainer(seed=6)))
    assert not any(torch.equal(dict(parameters(first))[name], other[name]) for name in names)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_learns_what_it_sees_again_and_again(precision):
    pupil = trainer(learning_rate=3e-3, precision=precision)
    losses = [pupil.take_step([batch(1)]).next_token_loss.item() for _ in range(30)]
    targets = trainer(learning_rate=3e-3, mix=0.0)
    only_next = [targets.take_step([batch(1)]).next_token_loss.item() for _ in range(30)]
    assert only_next[-1] < only_next[0] / 3
    # The targets have nothing to do with the next tokens here.
    assert losses[-1] > only_next[-1]


def test_precision_changes_the_matrices_only():
    half = trainer(precision="bfloat16")
    outcome = half.take_step([batch(1)])
    assert {tensor.dtype for _, tensor in parameters(half)} == {torch.float32}
    exact = trainer(precision="float32").take_step([batch(1)])
    assert outcome.loss.item() == pytest.approx(exact.loss.item(), rel=1e-2)
    assert outcome.loss.item() != exact.loss.item()
    assert matrix_type("auto", CPU.device) == torch.float32


def test_the_mix_of_each_step():
    fading = options(mix=0.8, mix_schedule="linear-to-zero", steps=4)
    assert [fading.mix_at(step) for step in range(1, 5)] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert {options(mix=0.8).mix_at(step) for step in range(1, 5)} == {0.8}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 0}, "--steps 0 is not a number of at least 1"),
        ({"learning_rate": -1.0}, "--learning-rate -1.0 is not a number of at least 0"),
        ({"z_loss": math.nan}, "--z-loss nan is not"),
        ({"clip": math.inf}, "--clip inf is not"),
        ({"lanes": 0}, "--lanes 0 is not a number of at least 1"),
        ({"accumulate": 1 << 25}, "--accumulate 33554432 is more than 16,777,216, the most"),
        ({"mix": 1.01}, "--mix 1.01 is not a share from 0 to 1"),
        ({"optimizer": "adam"}, "--optimizer 'adam': there are adamw, adafactor"),
        ({"workers": -1}, "--loader-workers -1 is not a number of at least 0"),
        ({"size": "1m"}, "--size '1m': there are 500k, 3m, "),
        ({"targets": None}, "--objective compact needs --targets"),
        ({"objective": "next-token"}, "--targets is for --objective compact"),
        ({"start": "run", "layers": 2}, "--layers doesn't go with --from"),
        ({"optimizer": "adafactor", "betas": (0.9, 0.9)}, "--betas are of --optimizer adamw"),
        ({"betas": (0.9, 1.0)}, "--betas 0.9 1.0: each is from 0, below 1"),
        ({"weight_decay": -0.1}, "--weight-decay -0.1 is not a number of at least 0"),
        ({"validate_tokens": 5}, "--validate-tokens is for --validate DIR"),
        ({"parallel": "fsdp", "optimizer": "adafactor"}, "doesn't work with --parallel fsdp"),
    ],
)
def test_bad_options(changed, message):
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        options(**changed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"warmup": None, "steps": 60}, 6),
        ({"warmup": None, "steps": 9}, 0),
        ({"warmup": None, "steps": 50_000}, 1000),
        ({"warmup": 70, "steps": 60}, 70),
    ],
)
def test_the_warmup_follows_from_the_steps(changed, expected):
    assert options(**changed).warmup_steps == expected
    assert options(**changed).decisive(1, "float32")["warmup"] == expected


def test_what_decides_a_run():
    four, two = (options(accumulate=count) for count in (4, 2))
    assert four.decisive(1, "float32") == two.decisive(2, "float32")
    assert four.decisive(1, "float32") != four.decisive(1, "bfloat16")
    assert options(steps=10).decisive(1, "float32") == options(steps=20).decisive(1, "float32")
    for schedule in ({"schedule": "cosine"}, {"mix_schedule": "linear-to-zero"}):
        chosen = [options(steps=steps, **schedule).decisive(1, "float32") for steps in (10, 20)]
        assert chosen[0] != chosen[1]
