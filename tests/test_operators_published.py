"""Our architectures against the published definitions in `transformers`: the same weights give the same logits."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from operators import Architecture, HybridLM

transformers = pytest.importorskip("transformers")

WIDTH, VOCABULARY, HIDDEN, EPS = 48, 61, 80, 1e-5
TOKENS = 71  # more than one chunk of the recurrences, and odd
Names = dict[str, str]
FEEDFORWARD: dict[str, Any] = {"operator": "swiglu", "shape": {"hidden": HIDDEN}}
COMMON = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
TRANSFORMER = {"intermediate_size": HIDDEN, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": EPS} | COMMON
SWIGLU = ("gate_proj.weight", "up_proj.weight", "down_proj.weight")
ATTENTION = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight")
QK_NORM = ("q_norm.weight", "k_norm.weight")


def attention(*, head_dim: int, qk_norm: str = "none", **fields: Any) -> dict[str, Any]:
    shape = {"heads": 4, "kv_heads": 2, "head_dim": head_dim, "qk_norm": qk_norm}
    return {"operator": "attention", "shape": shape, **fields}


def architecture(layers: list[dict[str, Any]], **fields: Any) -> Architecture:
    return Architecture.parse({"width": WIDTH, "vocabulary": VOCABULARY, "layers": layers, "norm_eps": EPS, **fields})


def part(ours: int, theirs: str, names: Iterable[str], norm: str) -> Names:
    """Names of one of our layers: its operator's parameters under `theirs`, its normalization as `norm`."""
    return {f"layers.{ours}.norm.weight": norm, **{f"layers.{ours}.operator.{name}": f"{theirs}.{name}" for name in names}}


def mamba2_part(ours: int, layer: str) -> Names:
    names = ("in_proj.weight", "A_log", "dt_bias", "D", "norm.weight", "out_proj.weight")
    conv = {f"layers.{ours}.operator.conv.{name}": f"{layer}.mixer.conv1d.{name}" for name in ("weight", "bias")}
    return part(ours, f"{layer}.mixer", names, f"{layer}.norm.weight") | conv


def outside(embedding: str, norm: str) -> Names:
    return {"embedding.weight": embedding, "norm.weight": norm, "head.weight": "lm_head.weight"}


def transformer_names(blocks: int, mixer: tuple[str, ...]) -> Names:
    names = outside("model.embed_tokens.weight", "model.norm.weight")
    for block in range(blocks):
        layer = f"model.layers.{block}"
        names |= part(2 * block, f"{layer}.self_attn", mixer, f"{layer}.input_layernorm.weight")
        names |= part(2 * block + 1, f"{layer}.mlp", SWIGLU, f"{layer}.post_attention_layernorm.weight")
    return names


def llama(tied: bool) -> tuple[Any, Architecture, Names]:
    rope = {"rope_type": "default", "rope_theta": 5000.0}
    config = transformers.LlamaConfig(num_hidden_layers=2, rope_parameters=rope, tie_word_embeddings=tied, **TRANSFORMER)
    layers = [attention(head_dim=12), FEEDFORWARD] * 2
    names = transformer_names(2, ATTENTION)
    if tied:
        del names["head.weight"]
    return config, architecture(layers, rope={"theta": 5000.0}, tied_embeddings=tied), names


def qwen3() -> tuple[Any, Architecture, Names]:
    config = transformers.Qwen3Config(num_hidden_layers=2, head_dim=16, tie_word_embeddings=False, **TRANSFORMER)
    layers = [attention(head_dim=16, qk_norm="head"), FEEDFORWARD] * 2
    return config, architecture(layers, tied_embeddings=False), transformer_names(2, ATTENTION + QK_NORM)


def mamba2() -> tuple[Any, Architecture, Names]:
    sizes = {"num_heads": 6, "head_dim": 16, "state_size": 20, "n_groups": 2, "expand": 2, "conv_kernel": 4, "chunk_size": 32}
    config = transformers.Mamba2Config(num_hidden_layers=2, layer_norm_epsilon=EPS, tie_word_embeddings=False, **sizes, **COMMON)
    layers = [{"operator": "mamba2", "shape": {"heads": 6, "head_dim": 16, "state": 20, "groups": 2, "conv": 4}}] * 2
    names = outside("backbone.embeddings.weight", "backbone.norm_f.weight")
    names |= mamba2_part(0, "backbone.layers.0") | mamba2_part(1, "backbone.layers.1")
    return config, architecture(layers, tied_embeddings=False), names


def nemotron_h() -> tuple[Any, Architecture, Names]:
    kinds = ["linear_attention", "mlp", "linear_attention", "full_attention", "mlp"]
    config = transformers.NemotronHConfig(
        layers_block_type=kinds,
        intermediate_size=HIDDEN,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        mamba_num_heads=6,
        mamba_head_dim=16,
        ssm_state_size=20,
        n_groups=2,
        conv_kernel=4,
        chunk_size=32,
        layer_norm_epsilon=EPS,
        # transformers takes this for the smallest step, but not when it decodes; the definition has no smallest step.
        time_step_min=1e-9,
        tie_word_embeddings=False,
        **COMMON,
    )
    mamba = {"operator": "mamba2", "shape": {"heads": 6, "head_dim": 16, "state": 20, "groups": 2, "conv": 4}}
    feedforward = {"operator": "relu2", "shape": {"hidden": HIDDEN}}
    inside = {"mlp": ("up_proj.weight", "down_proj.weight"), "full_attention": ATTENTION}
    names = outside("model.embeddings.weight", "model.norm_f.weight")
    for number, kind in enumerate(kinds):
        layer = f"model.layers.{number}"
        if kind == "linear_attention":
            names |= mamba2_part(number, layer)
        else:
            names |= part(number, f"{layer}.mixer", inside[kind], f"{layer}.norm.weight")
    layers = [mamba, feedforward, mamba, attention(head_dim=12), feedforward]
    return config, architecture(layers, rope=None, tied_embeddings=False), names


def olmo_hybrid(rope: bool, negative_eigenvalues: bool) -> tuple[Any, Architecture, Names]:
    # A theta of None is how this configuration spells "no rotation"; without rope_parameters it takes a default theta.
    theta = {"rope_type": "default", "rope_theta": 10_000.0 if rope else None}
    config = transformers.OlmoHybridConfig(
        layer_types=["linear_attention", "full_attention"],
        num_hidden_layers=2,
        linear_num_key_heads=4,
        linear_num_value_heads=4,
        linear_key_head_dim=10,
        linear_value_head_dim=18,
        linear_conv_kernel_dim=4,
        linear_allow_neg_eigval=negative_eigenvalues,
        rope_parameters=theta,
        tie_word_embeddings=False,
        **(TRANSFORMER | {"rms_norm_eps": 1e-6}),
    )
    shape = {"heads": 4, "key_dim": 10, "value_dim": 18, "conv": 4, "negative_eigenvalues": negative_eigenvalues}
    layers = [
        {"operator": "gated_deltanet", "shape": shape},
        FEEDFORWARD,
        attention(head_dim=12, qk_norm="full", norm_position="after"),
        {**FEEDFORWARD, "norm_position": "after"},
    ]
    names = outside("model.embed_tokens.weight", "model.norm.weight")
    linear, full = "model.layers.0", "model.layers.1"
    projections = (*ATTENTION, "a_proj.weight", "b_proj.weight", "g_proj.weight", "A_log", "dt_bias", "o_norm.weight")
    names |= part(0, f"{linear}.linear_attn", projections, f"{linear}.input_layernorm.weight")
    names |= {"layers.0.operator.conv.weight": f"{linear}.linear_attn.conv1d.weight"}
    names |= part(1, f"{linear}.mlp", SWIGLU, f"{linear}.post_attention_layernorm.weight")
    names |= part(2, f"{full}.self_attn", ATTENTION + QK_NORM, f"{full}.post_attention_layernorm.weight")
    names |= part(3, f"{full}.mlp", SWIGLU, f"{full}.post_feedforward_layernorm.weight")
    fields: dict[str, Any] = {"norm_eps": 1e-6, "tied_embeddings": False, "rope": {} if rope else None}
    return config, architecture(layers, **fields), names


def randomize(model: nn.Module) -> None:
    """Every parameter differs from every other and from its initial value, so that a missing or swapped one shows."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            elif name.endswith("dt_bias"):
                parameter.uniform_(-4, -1)
            else:
                parameter.uniform_(0.5, 1.5)


def copy_weights(ours: nn.Module, theirs: nn.Module, names: Names) -> None:
    own, published = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert set(own) == set(names)
    assert sorted(names.values()) == sorted(published)
    with torch.no_grad():
        for name, parameter in own.items():
            source = published[names[name]]
            assert source.squeeze().shape == parameter.shape
            parameter.copy_(source.view_as(parameter))


def decoded(model: HybridLM, tokens: Tensor, pieces: tuple[int, ...]) -> dict[int, Tensor]:
    """Logits by position, from prefills of those lengths and steps for what is left."""
    state, read, found = model.allocate_state(tokens.shape[0], tokens.shape[1]), 0, {}
    for length in pieces:
        found[read + length - 1] = model.prefill(tokens[:, read : read + length], state)
        read += length
    for t in range(read, tokens.shape[1]):
        found[t] = model.step(tokens[:, t], state)
    return found


CASES = {
    "llama": lambda: llama(tied=False),
    "llama-tied": lambda: llama(tied=True),
    "qwen3": qwen3,
    "mamba2": mamba2,
    "nemotron_h": nemotron_h,
    "olmo_hybrid-rope": lambda: olmo_hybrid(rope=True, negative_eigenvalues=True),
    "olmo_hybrid": lambda: olmo_hybrid(rope=False, negative_eigenvalues=False),
}


@torch.no_grad()
def check_logits(config: Any, ours: Architecture, names: Names) -> None:
    """The whole sequence at once, and prefilled in two pieces and stepped through."""
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    randomize(theirs)
    model = HybridLM(ours)
    copy_weights(model, theirs, names)
    tokens = torch.randint(VOCABULARY, (2, TOKENS))
    expected = theirs(tokens, use_cache=False).logits
    assert expected.std() > 0.3, "logits too small for the tolerance to mean anything"
    torch.testing.assert_close(model(tokens), expected, rtol=0, atol=1e-4)
    for position, logits in decoded(model, tokens, (37, 27)).items():
        torch.testing.assert_close(logits, expected[:, position], rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_the_published_definition(case: str) -> None:
    check_logits(*CASES[case]())


@torch.no_grad()
def by_definition(module: Any, x: Tensor, kind: str) -> Tensor:
    """DeltaNet or GLA, which transformers does not have, for x [T, W] one token and one head after another in float64."""
    weight = {name: value.double() for name, value in module.named_parameters()}
    shape = module.shape

    def heads(y: Tensor) -> Tensor:
        return y.reshape(len(x), shape.heads, -1)

    out = torch.zeros(len(x), shape.heads, weight["o_norm.weight"].numel(), dtype=torch.float64)
    projected = [x @ weight[f"{name}.weight"].T for name in ("q_proj", "k_proj", "v_proj")]
    if kind == "deltanet":
        mixed, taps = torch.cat(projected, -1), weight["conv.weight"]
        convolved = torch.zeros_like(mixed)
        for t in range(len(x)):
            for back in range(min(t + 1, shape.conv)):
                convolved[t] += taps[:, shape.conv - 1 - back] * mixed[t - back]
        q, k, v = (heads(y) for y in (convolved * convolved.sigmoid()).chunk(3, -1))
        beta = (x @ weight["b_proj.weight"].T).sigmoid()
    else:
        q, k, v = (heads(y) for y in projected)
        low_rank = x @ weight["decay_down_proj.weight"].T @ weight["decay_up_proj.weight"].T + weight["decay_up_proj.bias"]
        alpha = heads(low_rank.sigmoid() ** (1 / 16))
    for head in range(shape.heads):
        state = torch.zeros(k.shape[-1], v.shape[-1], dtype=torch.float64)
        for t in range(len(x)):
            q_t, k_t, v_t = q[t, head], k[t, head], v[t, head]
            if kind == "deltanet":
                q_t, k_t = q_t / (q_t.square().sum() + 1e-6).sqrt(), k_t / (k_t.square().sum() + 1e-6).sqrt()
                state = state - beta[t, head] * torch.outer(k_t, k_t @ state - v_t)
            else:
                state = alpha[t, head][:, None] * state + torch.outer(k_t, v_t)
            out[t, head] = state.T @ q_t / len(q_t) ** 0.5
    out = (out / (out.square().mean(-1, keepdim=True) + EPS).sqrt() * weight["o_norm.weight"]).flatten(1)
    if kind == "gla":
        gate = x @ weight["g_proj.weight"].T
        out = out * gate * gate.sigmoid()
    y: Tensor = out @ weight["o_proj.weight"].T
    return y


@pytest.mark.parametrize("kind", ["deltanet", "gla"])
@torch.no_grad()
def test_the_module_equals_its_definition(kind: str) -> None:
    shape = {"deltanet": {"heads": 3, "head_dim": 12}, "gla": {"heads": 3, "key_dim": 8, "value_dim": 14}}[kind]
    module: Any = HybridLM(architecture([{"operator": kind, "shape": shape}]), backend="reference").layers[0].operator
    randomize(module)
    x = torch.randn(TOKENS, WIDTH)
    expected = by_definition(module, x.double(), kind)
    assert expected.std() > 0.3
    torch.testing.assert_close(module(x[None])[0].double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("width", "heads", "layers", "millions"),
    [
        (2048, 16, "d f m f a f m f d f m f a f m f d f m f d f m f", 965.4),
        (3072, 24, "d f m f a f m f d f m f a f m f d f m f a f m f d f m f d f m f d f m f", 2750.0),
    ],
)
def test_nemotron_flash_has_its_number_of_parameters(width: int, heads: int, layers: str, millions: float) -> None:
    genes = {"attention": {"head_dim": 128, "group": 4}, "deltanet": {"head_dim": 128}}
    described = Architecture.from_shorthand(layers, width=width, vocabulary=131_072, genes=genes, meta_tokens=256)
    shapes: dict[str, Any] = {layer.operator: layer.shape for layer in described.layers}
    assert (shapes["attention"].heads, shapes["attention"].kv_heads, shapes["deltanet"].heads) == (heads, heads // 4, heads)
    with torch.device("meta"):
        model = HybridLM(described, backend="reference", device="meta")
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
