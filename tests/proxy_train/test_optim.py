"""Learning rates by parameter, clipping, masters, and the axis along which matrices are normalized."""

import pytest
import torch
from torch import Tensor, nn

from operators import registry
from operators.architecture import Architecture
from operators.model import HybridLM
from proxy_train.optim import (
    BETAS,
    EMBEDDING_RATE,
    Optimizer,
    language_optimizer,
    normalize_matrices,
    parameter_groups,
)

# By hand from the papers: the matrices of an operator that read the residual stream, and that write it.
SIDES = {
    "attention": ("q_proj k_proj v_proj", "o_proj"),
    "deltanet": ("q_proj k_proj v_proj b_proj", "o_proj"),
    "gated_deltanet": ("q_proj k_proj v_proj a_proj b_proj g_proj", "o_proj"),
    "gla": ("q_proj k_proj v_proj g_proj decay_down_proj", "o_proj"),
    "kda": ("q_proj k_proj v_proj b_proj decay_down_proj gate_down_proj", "o_proj"),
    "mamba": ("in_proj", "out_proj"),
    "mamba2": ("in_proj", "out_proj"),
    "mamba3": ("in_proj", "out_proj"),
    "relu2": ("up_proj", "down_proj"),
    "retnet": ("q_proj k_proj v_proj g_proj", "o_proj"),
    "rwkv7": ("r_proj k_proj v_proj decay_down_proj a_down_proj gate_down_proj", "o_proj"),
    "short_conv": ("in_proj", "out_proj"),
    "swiglu": ("gate_proj up_proj", "down_proj"),
}


def model_of(text: str = "a f", width: int = 32, **rest: object) -> HybridLM:
    architecture = Architecture.from_shorthand(
        text, width=width, vocabulary=272, genes={"attention": {"head_dim": 16}}, **rest
    )
    return HybridLM(architecture, dtype=torch.float32)


def optimizer_of(model: HybridLM, **changes: object) -> Optimizer:
    settings = {
        "learning_rate": 0.01,
        "weight_decay": 0.1,
        "gradient_clip": 1.0,
        "base_width": None,
        "normalized": False,
    }
    return language_optimizer(model, **{**settings, **changes})


def give_gradients(model: HybridLM, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return {name: parameter.grad.float().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("tied", [True, False])
def test_matrices_alone_decay_and_tables_learn_faster(tied: bool) -> None:
    mixers = [name for name in registry.names() if registry.get(name).kind == "mixer"]
    model = model_of(" f ".join(mixers) + " f", width=64, tied_embeddings=tied, meta_tokens=4)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, learning_rate=0.01, weight_decay=0.1)
    matrices, tables, rest = ([names[parameter] for parameter in group["params"]] for group in groups)
    assert [group["weight_decay"] for group in groups] == [0.1, 0, 0]
    assert [group["peak"] for group in groups] == [0.01, 0.01 * EMBEDDING_RATE, 0.01]
    assert sorted(matrices + tables + rest) == sorted(names.values())
    assert tables == ["embedding.weight", "meta"] + ([] if tied else ["head.weight"])
    assert all(model.get_parameter(name).ndim == 2 and "proj" in name for name in matrices)
    assert {name for name in names.values() if name.endswith("proj.weight")} == set(matrices)
    assert "norm.weight" in rest


def test_rates_of_another_width() -> None:
    groups = parameter_groups(model_of(width=64), learning_rate=0.01, weight_decay=0.1, base_width=16)
    assert [group["peak"] for group in groups] == [0.0025, 0.005 * EMBEDDING_RATE, 0.01]
    assert groups[0]["weight_decay"] * groups[0]["peak"] == pytest.approx(0.1 * 0.01)


def test_tables_of_a_normalized_head_are_larger_and_learn_as_much_faster() -> None:
    plain, normalized = (
        model_of(width=64, normalized_head=value, meta_tokens=50, tied_embeddings=False)
        for value in (False, True)
    )
    tables = (normalized.embedding.weight, normalized.meta, normalized.head.weight)
    for table, other in zip(tables, (plain.embedding.weight, plain.meta, plain.head.weight), strict=True):
        assert (table.std() / other.std()).item() == pytest.approx(8, rel=0.1)
    rates = [
        parameter_groups(model, learning_rate=0.01, weight_decay=0.1)[1]["peak"]
        for model in (plain, normalized)
    ]
    assert rates[1] / rates[0] == pytest.approx(8)


def test_decay_shrinks_matrices_alone() -> None:
    model = model_of()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = optimizer_of(model, learning_rate=0.5, weight_decay=0.2)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.set_rate(0.5)
    optimizer.step()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name] * (0.95 if "proj" in name else 1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_steps_by_the_definition_of_adam(dtype: torch.dtype) -> None:
    """Clipping to norm 1, then Adam with decoupled decay, in float64. The second step needs the state."""
    model = model_of("a f").to(dtype)
    expected = {name: parameter.detach().double() for name, parameter in model.named_parameters()}
    moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in expected.items()}
    optimizer = optimizer_of(model)
    for step in (1, 2):
        gradients = give_gradients(model, seed=step)
        norm = torch.sqrt(sum(gradient.double().square().sum() for gradient in gradients.values()))
        optimizer.set_rate(1.0)
        optimizer.collect(first=True)
        optimizer.step()
        for name, value in expected.items():
            matrix, gradient = "proj" in name, gradients[name].double() / norm
            rate = 0.01 * (EMBEDDING_RATE if name == "embedding.weight" else 1)
            mean, square = moments[name]
            mean.lerp_(gradient, 1 - BETAS[0])
            square.lerp_(gradient.square(), 1 - BETAS[1])
            value.mul_(1 - rate * 0.1 if matrix else 1.0)
            value -= (
                rate * (mean / (1 - BETAS[0] ** step)) / ((square / (1 - BETAS[1] ** step)).sqrt() + 1e-8)
            )
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            optimizer.masters[parameter].double(), expected[name], rtol=1e-4, atol=1e-5
        )
        assert torch.equal(parameter, optimizer.masters[parameter].to(dtype))


def test_updates_too_small_for_bfloat16_add_up() -> None:
    model = model_of("f").to(torch.bfloat16)
    weight, before = model.norm.weight, model.norm.weight.detach().clone()
    optimizer = optimizer_of(model, learning_rate=1e-3)
    for step in range(20):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.set_rate(1.0)
        optimizer.collect(first=True)
        optimizer.step()
        if step == 0:
            assert torch.equal(weight, before)  # 1 - 0.001 rounds to 1
    torch.testing.assert_close(weight, torch.full_like(weight, 0.98))


def test_gradients_of_parts_are_added_in_float32() -> None:
    model = model_of("f").to(torch.bfloat16)
    optimizer = optimizer_of(model)
    for number in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1.0 if number == 0 else 2**-9)
        optimizer.collect(first=number == 0)
        assert all(parameter.grad is None for parameter in model.parameters())
    for parameter, master in optimizer.masters.items():
        assert torch.equal(master.grad, torch.full_like(master, 1 + 2**-8)), (
            parameter.shape
        )  # in bfloat16 it would still be 1


def test_rows_and_columns_become_unit_ones_to_the_last_bit_and_zeros_stay() -> None:
    model = model_of("a f", width=64)
    attention = model.layers[0].operator
    with torch.no_grad():
        attention.q_proj.weight[3] = 0
    reads, writes = attention.q_proj.weight.detach().clone(), attention.o_proj.weight.detach().clone()
    with torch.no_grad():
        normalize_matrices(model, {parameter: parameter for parameter in model.parameters()})
    assert torch.equal(attention.q_proj.weight, nn.functional.normalize(reads, dim=1))
    assert torch.equal(attention.o_proj.weight, nn.functional.normalize(writes, dim=0))


@pytest.mark.parametrize("name", registry.names())
def test_the_axes_of_every_operator_by_hand(name: str) -> None:
    assert name in SIDES, f"{name}: write its matrices into SIDES, by hand"
    text = f"{name} f" if registry.get(name).kind == "mixer" else f"a {name}"
    model = model_of(text, width=64)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    with torch.no_grad():
        normalize_matrices(model, {parameter: parameter for parameter in model.parameters()})
    layer = model.layers[0 if registry.get(name).kind == "mixer" else 1].operator
    reads, writes = (side.split() for side in SIDES[name])
    for label, part in layer.named_modules():
        if not isinstance(part, nn.Linear):
            continue
        old, new = before[next(key for key, p in model.named_parameters() if p is part.weight)], part.weight
        if label in reads:
            assert part.in_features == 64
            expected = torch.stack([row / row.square().sum().sqrt() for row in old])
        elif label in writes:
            assert part.out_features == 64
            expected = torch.stack([column / column.square().sum().sqrt() for column in old.T]).T
        else:
            expected = old
        torch.testing.assert_close(new, expected, msg=lambda text, label=label: f"{label}: {text}")
    matrices = {
        parameter
        for _, part in model.named_modules()
        if isinstance(part, nn.Linear)
        for parameter in [part.weight]
    }
    for key, parameter in model.named_parameters():
        if parameter not in matrices:
            assert torch.equal(parameter, before[key]), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matrices_stay_normalized_and_do_not_decay(dtype: torch.dtype) -> None:
    model = model_of("a f", normalized_head=True).to(dtype)
    optimizer = optimizer_of(model, normalized=True, weight_decay=0.5)
    for step in range(3):
        q, down = model.layers[0].operator.q_proj.weight, model.layers[1].operator.down_proj.weight
        for weight, along in ((q, 1), (down, 0)):
            lengths = optimizer.masters[weight].norm(dim=along)
            torch.testing.assert_close(lengths, torch.ones_like(lengths))
            assert torch.equal(weight, optimizer.masters[weight].to(dtype))
        before = q.detach().clone()
        give_gradients(model, seed=step)
        optimizer.set_rate(1.0)
        optimizer.collect(first=True)
        optimizer.step()
        assert not torch.equal(q, before)
    assert all(group["weight_decay"] == 0 for group in optimizer._adamw.groups)


def test_restored_tensors_are_those_that_were_saved() -> None:
    """Also where the training that restores them has not made a step yet."""
    model = model_of("a f").to(torch.bfloat16)
    optimizer = optimizer_of(model)

    def advance(model: HybridLM, optimizer: Optimizer) -> None:
        give_gradients(model)
        optimizer.set_rate(1.0)
        optimizer.collect(first=True)
        optimizer.step()

    advance(model, optimizer)
    saved = {name: tensor.clone() for name, tensor in optimizer.tensors().items()}
    places = [tensor.data_ptr() for tensor in optimizer.tensors().values()]
    advance(model, optimizer)
    expected = {name: tensor.clone() for name, tensor in optimizer.tensors().items()}
    other = model_of("a f").to(torch.bfloat16)
    for again, its in ((model, optimizer), (other, optimizer_of(other))):
        its.restore(saved)
        advance(again, its)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in its.tensors().items())
    assert [tensor.data_ptr() for tensor in optimizer.tensors().values()] == places


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_leaves_parameters_without_a_gradient_alone(dtype: torch.dtype) -> None:
    """Also those that had one in the step before: neither their weights nor their averages change."""
    model = model_of("a f").to(dtype)
    optimizer = optimizer_of(model, weight_decay=0.5)
    resting = model.layers[0].operator.q_proj.weight
    for rests in (False, True):
        give_gradients(model)
        if rests:
            resting.grad = None
        optimizer.set_rate(1.0)
        optimizer.collect(first=True)
        before = {name: tensor.clone() for name, tensor in optimizer.tensors().items()}
        optimizer.step()
        changed = {
            name for name, tensor in optimizer.tensors().items() if not torch.equal(tensor, before[name])
        }
        assert any("q_proj" in name for name in changed) != rests
        assert any("down_proj" in name for name in changed)
