"""More of our architectures, against `transformers` or else against the authors' definitions."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from operators import Architecture, HybridLM
from operators.base.errors import ArchitectureError
from operators.parameter_shapes import Undrawn
from operators.published import Published, fitted
from operators.published.tensor_names import ATTENTION, SWIGLU, Names, layer_names, outside_names
from tests.helpers.published_models import (
    COMMON,
    EPS,
    FEEDFORWARD,
    HIDDEN,
    TOKENS,
    WIDTH,
    architecture,
    attention,
    check_logits,
    published_model,
    randomize,
)

transformers = pytest.importorskip("transformers")

Weights = dict[str, Tensor]


def mamba() -> tuple[Any, Architecture, Names]:
    sizes = {"state_size": 10, "expand": 2, "conv_kernel": 4, "time_step_rank": 5}
    config = transformers.MambaConfig(
        num_hidden_layers=2, layer_norm_epsilon=EPS, tie_word_embeddings=False, **sizes, **COMMON
    )
    layers = [{"operator": "mamba", "shape": {"inner": 2 * WIDTH, "state": 10, "dt_rank": 5, "conv": 4}}] * 2
    names = outside_names("backbone.embeddings.weight", "backbone.norm_f.weight")
    inside = (
        "in_proj.weight",
        "x_proj.weight",
        "dt_proj.weight",
        "dt_proj.bias",
        "A_log",
        "D",
        "out_proj.weight",
    )
    for number in range(2):
        layer = f"backbone.layers.{number}"
        names |= layer_names(number, f"{layer}.mixer", inside, f"{layer}.norm.weight")
        names |= {
            f"layers.{number}.operator.conv.{name}": (f"{layer}.mixer.conv1d.{name}",)
            for name in ("weight", "bias")
        }
    return config, architecture(layers, tied_embeddings=False), names


def lfm2() -> tuple[Any, Architecture, Names]:
    config = transformers.Lfm2Config(
        layer_types=["conv", "full_attention"],
        num_hidden_layers=2,
        conv_L_cache=3,
        intermediate_size=HIDDEN,
        block_auto_adjust_ff_dim=False,
        num_attention_heads=4,
        num_key_value_heads=2,
        norm_eps=EPS,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        tie_word_embeddings=False,
        **COMMON,
    )
    convolution = {"operator": "short_conv", "shape": {"channels": WIDTH, "conv": 3}}
    layers = [convolution, FEEDFORWARD, attention(head_dim=12, qk_norm="head"), FEEDFORWARD]
    names = outside_names("model.embed_tokens.weight", "model.embedding_norm.weight")
    first, second = "model.layers.0", "model.layers.1"
    inside = ("in_proj.weight", "conv.weight", "out_proj.weight")
    names |= layer_names(0, f"{first}.conv", inside, f"{first}.operator_norm.weight")
    names |= layer_names(2, f"{second}.self_attn", ATTENTION[:3], f"{second}.operator_norm.weight")
    renamed = {"o_proj": "out_proj", "q_norm": "q_layernorm", "k_norm": "k_layernorm"}
    names |= {
        f"layers.2.operator.{ours}.weight": (f"{second}.self_attn.{theirs}.weight",)
        for ours, theirs in renamed.items()
    }
    for ours, layer in ((1, first), (3, second)):
        names[f"layers.{ours}.norm.weight"] = (f"{layer}.ffn_norm.weight",)
        for matrix, theirs in zip(SWIGLU, ("w1", "w3", "w2"), strict=True):
            names[f"layers.{ours}.operator.{matrix}"] = (f"{layer}.feed_forward.{theirs}.weight",)
    return config, architecture(layers, rope={"theta": 5000.0}, tied_embeddings=False), names


CASES = {"mamba": mamba, "lfm2": lfm2}


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_the_published_definition(case: str) -> None:
    config, ours, names = CASES[case]()
    theirs, model = published_model(config), HybridLM(ours)
    model.load_state_dict(fitted(Published(ours, names), theirs.state_dict(), where=case))
    check_logits(theirs, model)


def heads_of(y: Tensor, heads: int) -> Tensor:
    return y.reshape(*y.shape[:-1], heads, -1)


def rms(y: Tensor, weight: Tensor) -> Tensor:
    return y / (y.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


def silu(y: Tensor) -> Tensor:
    return y * y.sigmoid()


def retnet(weight: Weights, x: Tensor) -> Tensor:
    """Retention as one sum over all pairs of tokens, without a state."""
    q, k, v = (heads_of(x @ weight[f"{name}_proj.weight"].T, 3) for name in "qkv")
    half = q.shape[-1] // 2
    angle = torch.arange(len(x))[:, None, None] / 10_000 ** (torch.arange(half, dtype=torch.float64) / half)
    q, k = (
        torch.complex(y[..., :half], y[..., half:]) * torch.polar(torch.ones_like(angle), angle)
        for y in (q, k)
    )
    age = torch.arange(len(x))[:, None] - torch.arange(len(x))
    decay = torch.stack([((1 - 2.0 ** (-5 - head)) ** age.double()).tril() for head in range(3)])
    scores = torch.einsum("thk,shk->hts", q, k.conj()).real * decay / (2 * half) ** 0.5
    out = rms(torch.einsum("hts,shv->thv", scores, v), weight["o_norm.weight"]).flatten(1)
    return (out * silu(x @ weight["g_proj.weight"].T)) @ weight["o_proj.weight"].T


def rwkv7(weight: Weights, x: Tensor) -> Tensor:
    before = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
    x_r, x_w, x_k, x_v, x_a, x_g = (x + share * (before - x) for share in weight["mix"])

    def through(name: str, y: Tensor, between: Callable[[Tensor], Tensor]) -> Tensor:
        return between(y @ weight[f"{name}_down_proj.weight"].T) @ weight[f"{name}_up_proj.weight"].T

    r, k, v = (
        x_r @ weight["r_proj.weight"].T,
        x_k @ weight["k_proj.weight"].T,
        x_v @ weight["v_proj.weight"].T,
    )
    decay = torch.exp(
        -torch.exp(torch.tensor(-0.5))
        * (through("decay", x_w, torch.tanh) + weight["decay_up_proj.bias"]).sigmoid()
    )
    rate = (through("a", x_a, lambda y: y) + weight["a_up_proj.bias"]).sigmoid()
    gate = through("gate", x_g, torch.sigmoid)
    removed = heads_of(k * weight["k_k"], 3)
    removed = removed / removed.norm(dim=-1, keepdim=True)
    k = k * (1 + (rate - 1) * weight["k_a"])
    r, k, v, decay, rate = (heads_of(y, 3) for y in (r, k, v, decay, rate))
    out = torch.zeros_like(v)
    for head in range(3):
        state = torch.zeros(v.shape[-1], k.shape[-1], dtype=torch.float64)  # as published, values by keys
        for t in range(len(x)):
            kk = removed[t, head]
            state = (
                state * decay[t, head]
                - torch.outer(state @ kk, kk * rate[t, head])
                + torch.outer(v[t, head], k[t, head])
            )
            out[t, head] = state @ r[t, head]
    centred = out - out.mean(-1, keepdim=True)
    normal = (centred / (centred.square().mean(-1, keepdim=True) + 1e-5 * out.shape[-1]).sqrt()).flatten(1)
    bonus = ((r * k * weight["r_k"]).sum(-1, keepdim=True) * v).flatten(1)
    return ((normal * weight["o_norm.weight"] + weight["o_norm.bias"] + bonus) * gate) @ weight[
        "o_proj.weight"
    ].T


def mamba3(weight: Weights, x: Tensor) -> Tensor:
    heads, head_dim, size, turning = 4, 12, 10, 2
    widths = [heads * head_dim, heads * head_dim, 2 * size, 2 * size, heads, heads, heads, turning]
    z, v, b, c, dt, a, trap, theta = (x @ weight["in_proj.weight"].T).split(widths, -1)
    b, c = (rms(heads_of(y, 2), weight[f"{name}_norm.weight"]) for name, y in (("B", b), ("C", c)))
    dt = torch.log1p((dt + weight["dt_bias"]).exp())
    decay, trap, v = torch.exp(-torch.log1p(a.exp()) * dt), trap.sigmoid(), heads_of(v, heads)
    out = torch.zeros_like(v)
    for head in range(heads):
        state, angle = (
            torch.zeros(head_dim, size, dtype=torch.float64),
            torch.zeros(turning, dtype=torch.float64),
        )
        written = torch.zeros_like(state)
        for t in range(len(x)):
            angle = angle + theta[t].tanh() * torch.pi * dt[t, head]
            turn = torch.eye(size, dtype=torch.float64)
            for pair in range(turning):
                cos, sin, at = angle[pair].cos(), angle[pair].sin(), 2 * pair
                turn[at, at], turn[at, at + 1], turn[at + 1, at], turn[at + 1, at + 1] = cos, -sin, sin, cos
            key, query = (
                turn @ (b[t, head // 2] + weight["B_bias"][head]),
                turn @ (c[t, head // 2] + weight["C_bias"][head]),
            )
            state = decay[t, head] * (state + dt[t, head] * (1 - trap[t, head]) * written)
            written = torch.outer(v[t, head], key)
            state = state + dt[t, head] * trap[t, head] * written
            out[t, head] = state @ query + weight["D"][head] * v[t, head]
    return (out.flatten(1) * silu(z)) @ weight["out_proj.weight"].T


DEFINITIONS: dict[str, tuple[Callable[[Weights, Tensor], Tensor], dict[str, int]]] = {
    "retnet": (retnet, {"heads": 3, "key_dim": 10, "value_dim": 14}),
    "rwkv7": (
        rwkv7,
        {"width": WIDTH, "heads": 3, "head_dim": 12, "decay_rank": 32, "a_rank": 32, "gate_rank": 64},
    ),
    "mamba3": (mamba3, {"heads": 4, "head_dim": 12, "state": 10, "angles": 2, "groups": 2}),
}


@pytest.mark.parametrize("kind", DEFINITIONS)
@torch.no_grad()
def test_the_module_equals_its_definition(kind: str) -> None:
    definition, shape = DEFINITIONS[kind]
    module: Any = (
        HybridLM(architecture([{"operator": kind, "shape": shape}]), backend="reference").layers[0].operator
    )
    randomize(module)
    x = torch.randn(TOKENS, WIDTH)
    expected = definition({name: value.double() for name, value in module.named_parameters()}, x.double())
    assert expected.std() > 0.3
    torch.testing.assert_close(module(x[None])[0].double(), expected, rtol=0, atol=1e-4)


def test_a_shape_of_another_width_is_refused() -> None:
    shape = {"width": 2 * WIDTH, "heads": 3, "head_dim": 12, "decay_rank": 32, "a_rank": 32, "gate_rank": 64}
    with pytest.raises(
        ArchitectureError,
        match=f"rwkv7: expected a shape of the architecture's width {WIDTH}, got one of width {2 * WIDTH}",
    ):
        HybridLM(architecture([{"operator": "rwkv7", "shape": shape}]))


LFM2_GENES = {"attention": {"head_dim": 64, "group": 4, "qk_norm": "head"}, "swiglu": {"ratio": 4.0}}


@pytest.mark.parametrize(
    ("layers", "width", "vocabulary", "genes", "parameters"),
    [
        ("s " * 24, 768, 50_280, {}, 129_135_360),  # state-spaces/mamba-130m
        (
            "c f c f a f " * 3 + "c f a f " * 3 + "c f",
            2048,
            65_536,
            LFM2_GENES,
            1_170_340_608,
        ),  # LiquidAI/LFM2-1.2B
    ],
)
def test_published_models_have_their_number_of_parameters(
    layers: str, width: int, vocabulary: int, genes: Any, parameters: int
) -> None:
    described = Architecture.from_shorthand(layers, width=width, vocabulary=vocabulary, genes=genes)
    with torch.device("meta"), Undrawn():
        model = HybridLM(described, backend="reference", device="meta")
    assert sum(p.numel() for p in model.parameters()) == parameters
