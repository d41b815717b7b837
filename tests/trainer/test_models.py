"""The transformer: its sizes, that it's causal, that positions matter, that it learns."""

import dataclasses
import itertools
import json
import math

import pytest
import torch
from torch.nn import functional

from corpusmill.corpus.errors import UsageError
from corpusmill.trainer.losses import linear_cross_entropy
from corpusmill.trainer.model_config import SIZES, ModelConfig
from corpusmill.trainer.models import Cache, Transformer

SMALL = ModelConfig(vocabulary_size=100, width=16, heads=2, layers=2, head_size=8, mlp_width=32)


def small_model():
    torch.manual_seed(0)
    return Transformer(SMALL)


@pytest.mark.parametrize(
    ("size", "millions"),
    [("500k", 0.5), ("3m", 3), ("25m", 25), ("113m", 113), ("403m", 403), ("2b", 1611)],
)
def test_a_size_has_the_parameters_of_its_name(size, millions):
    with torch.device("meta"):
        model = Transformer(ModelConfig.of(size, 1000))
    count = sum(each.numel() for each in model.parameters()) - model.embedding.weight.numel()
    assert count / 1e6 == pytest.approx(millions, rel=0.05)


def test_every_size_is_tested():
    assert list(SIZES) == ["500k", "3m", "25m", "113m", "403m", "2b"]


def test_an_unknown_size_names_those_there_are():
    with pytest.raises(UsageError, match="model '4m': there are 500k, 3m, 25m, 113m, 403m, 2b"):
        ModelConfig.of("4m", 1000)


@pytest.mark.parametrize("changed", [{"layers": 0}, {"vocabulary_size": 0}, {"head_size": 7}])
def test_an_impossible_shape_is_refused(changed):
    with pytest.raises(UsageError, match=f"{next(iter(changed))} "):
        dataclasses.replace(SMALL, **changed)


def test_flops_are_those_of_the_matrices():
    model = small_model()
    layer = 4 * SMALL.width * SMALL.heads * SMALL.head_size + 3 * SMALL.width * SMALL.mlp_width
    logits = 128 * SMALL.width
    norms = (2 * SMALL.layers + 1) * SMALL.width
    assert model.flops_per_token == 2 * (SMALL.layers * layer + logits + norms)


def test_config_survives_json():
    assert ModelConfig(**json.loads(json.dumps(dataclasses.asdict(SMALL)))) == SMALL


def test_shapes():
    model = small_model()
    assert model(torch.zeros(3, 7, dtype=torch.int64)).shape == (3, 7, SMALL.width)
    assert model.output_weight.shape == (128, SMALL.width)
    assert "output_weight" not in model.state_dict()


def test_a_hidden_state_depends_on_all_tokens_before_it_and_none_after():
    model = small_model().double()
    torch.manual_seed(1)
    tokens = torch.randint(0, 100, (1, 9))
    before = model(tokens)
    for changed in range(9):
        others = tokens.clone()
        others[0, changed] = (others[0, changed] + 1) % 100
        difference = (model(others) - before).abs().amax(-1)[0]
        assert not difference[:changed].any()
        assert (difference[changed:] > 0).all()


def test_sequences_of_a_batch_are_independent():
    model = small_model().double()
    tokens = torch.randint(0, 100, (3, 9), generator=torch.Generator().manual_seed(1))
    together = model(tokens)
    alone = torch.cat([model(each) for each in tokens.split(1)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"width": 102}, "--width 102 can't be divided among 2 --heads"),
        ({"heads": 3}, "--width 128 can't be divided among 3 --heads"),
        ({"width": 6, "heads": 2}, "--width 6 can't be divided"),
    ],
)
def test_numbers_that_make_no_shape_are_refused(changed, message):
    with pytest.raises(UsageError, match=message):
        ModelConfig.of("500k", 1000, **changed)


def test_numbers_stand_for_those_of_the_size():
    found = ModelConfig.of("500k", 1000, width=96, heads=6, layers=1, mlp_width=50)
    assert found == ModelConfig(1000, width=96, heads=6, layers=1, head_size=16, mlp_width=50)
    assert ModelConfig.of("500k", 9, layers=7) == dataclasses.replace(
        ModelConfig.of("500k", 9), layers=7
    )


@pytest.mark.parametrize("starts", [(0, 4, 5), (2,), (), (0, 8)])
def test_masked_documents_are_as_if_each_stood_alone(starts):
    """What stands before the first start belongs to a document that began before."""
    start = 7
    torch.manual_seed(0)
    model = Transformer(dataclasses.replace(SMALL, document_start=start)).double()
    tokens = torch.randint(8, 100, (1, 9), generator=torch.Generator().manual_seed(1))
    tokens[0, list(starts)] = start
    bounds = sorted({0, *starts, 9})
    alone = [model(tokens[:, first:last]) for first, last in itertools.pairwise(bounds)]
    # The rotation is in float32.
    torch.testing.assert_close(model(tokens), torch.cat(alone, 1), rtol=1e-5, atol=1e-6)
    cache = Cache(SMALL, 1, torch.device("cpu"))
    steps = [model(part, cache) for part in tokens.split(2, 1)]
    torch.testing.assert_close(torch.cat(steps, 1), model(tokens), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [(1,) * 9, (4, 1, 1, 3), (9,)])
def test_with_a_cache_nothing_is_read_twice_and_nothing_changes(sizes):
    model = small_model().double()
    tokens = torch.randint(0, 100, (2, 9), generator=torch.Generator().manual_seed(1))
    cache = Cache(SMALL, 2, torch.device("cpu"))
    found = [model(part, cache) for part in tokens.split(sizes, 1)]
    torch.testing.assert_close(torch.cat(found, 1), model(tokens))
    assert torch.equal(cache.tokens, tokens)


def test_attention_sees_distances_only():
    model = small_model().double()
    attention = model.blocks[0].attention
    hidden = torch.randn(1, 6, SMALL.width, dtype=torch.float64)
    rotations = [rotation_by_definition(range(first, first + 6)) for first in (0, 50)]
    outputs = [attention(hidden, rotation) for rotation in rotations]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)
    still = attention(hidden, torch.ones_like(rotations[0]))
    assert (outputs[0] - still).abs().max() > 1e-2


def rotation_by_definition(positions):
    half = SMALL.head_size // 2
    angles = [[i / 10_000 ** (2 * j / SMALL.head_size) for j in range(half)] for i in positions]
    angles = torch.tensor(angles, dtype=torch.float64)
    return torch.complex(angles.cos(), angles.sin())[:, None]


def test_equals_a_transformer_written_out():
    """The same function position by position and head by head, by the papers' formulas."""
    model = small_model().double()
    tokens = [5, 3, 99, 3, 0]
    hidden = [model.embedding.weight[token] for token in tokens]
    rotation = rotation_by_definition(range(len(tokens)))[:, 0]
    for block in model.blocks:
        normed = [norm(each, block.attention_norm) for each in hidden]
        attended = attention(normed, block.attention, rotation)
        hidden = [each + more for each, more in zip(hidden, attended, strict=True)]
        mlp = block.mlp
        for i, each in enumerate(hidden):
            x = norm(each, block.mlp_norm)
            gate = mlp.gate.weight @ x
            hidden[i] = each + mlp.output.weight @ (
                gate * torch.sigmoid(gate) * (mlp.inner.weight @ x)
            )
    expected = torch.stack([norm(each, model.norm) for each in hidden])
    # The rotation is in float32.
    torch.testing.assert_close(model(torch.tensor([tokens]))[0], expected, rtol=1e-4, atol=1e-5)


def norm(vector, module):
    return vector / torch.sqrt((vector**2).mean() + torch.finfo(vector.dtype).eps) * module.weight


def attention(vectors, module, rotation):
    outputs = []
    for i, vector in enumerate(vectors):
        mixed = []
        for head in range(SMALL.heads):
            rows = slice(head * SMALL.head_size, (head + 1) * SMALL.head_size)
            query = turned(module.query.weight[rows] @ vector, rotation[i])
            seen = vectors[: i + 1]
            keys = [
                turned(module.key.weight[rows] @ each, rotation[j]) for j, each in enumerate(seen)
            ]
            values = [module.value.weight[rows] @ each for each in seen]
            scores = torch.stack([query @ key for key in keys]) / math.sqrt(SMALL.head_size)
            mixed.append(functional.softmax(scores, 0) @ torch.stack(values))
        outputs.append(module.output.weight @ torch.cat(mixed))
    return outputs


def turned(vector, rotation):
    """Pairs of neighbours as complex numbers, times their rotations."""
    product = torch.complex(vector[0::2], vector[1::2]) * rotation
    return torch.stack([product.real, product.imag], 1).flatten()


def test_the_first_loss_is_about_that_of_guessing():
    torch.manual_seed(0)
    model = Transformer(ModelConfig.of("3m", 960))
    tokens = torch.randint(0, 960, (4, 65))
    hidden = model(tokens[:, :-1]).flatten(0, 1)
    loss = linear_cross_entropy(hidden, model.output_weight, tokens[:, 1:].flatten())
    assert loss.total.item() == pytest.approx(math.log(960), abs=1)


def test_it_learns_a_sequence_by_heart():
    model = small_model()
    tokens = torch.randint(0, 100, (2, 13), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        hidden = model(tokens[:, :-1]).flatten(0, 1)
        loss = linear_cross_entropy(hidden, model.output_weight, tokens[:, 1:].flatten()).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_under_autocast_it_computes_nearly_the_same():
    model = small_model()
    tokens = torch.randint(0, 100, (2, 13), generator=torch.Generator().manual_seed(1))
    exact = model(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(tokens)
    assert not torch.equal(rounded.float(), exact)
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=0.1)
