"""Models that `transformers` saves give the same logits when they are imported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from operators import Architecture, HybridLM
from operators.published import describe, fitted
from operators.published.safetensors_folder import SafetensorsFolder
from tests.helpers.without_kernels import plain_definitions

transformers = pytest.importorskip("transformers")

WIDTH, VOCABULARY, HIDDEN, EPS = 48, 61, 80, 1e-5
TOKENS = 71  # more than one chunk of the recurrences, and odd
FEEDFORWARD: dict[str, Any] = {"operator": "swiglu", "shape": {"hidden": HIDDEN}}
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
TRANSFORMER = {
    "intermediate_size": HIDDEN,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": EPS,
} | COMMON
MAMBA2: dict[str, Any] = {
    "operator": "mamba2",
    "shape": {"heads": 6, "head_dim": 16, "state": 20, "groups": 2, "conv": 4},
}
Case = tuple[Any, Architecture]


def attention(*, norm_position: str = "before", **shape: Any) -> dict[str, Any]:
    return {
        "operator": "attention",
        "shape": {"heads": 4, "kv_heads": 2, **shape},
        "norm_position": norm_position,
    }


def architecture(layers: list[dict[str, Any]], **fields: Any) -> Architecture:
    return Architecture.parse(
        {"width": WIDTH, "vocabulary": VOCABULARY, "layers": layers, "norm_eps": EPS, **fields}
    )


def llama(tied: bool) -> Case:
    rope = {"rope_type": "default", "rope_theta": 5000.0}
    config = transformers.LlamaConfig(
        num_hidden_layers=2, rope_parameters=rope, tie_word_embeddings=tied, **TRANSFORMER
    )
    layers = [attention(head_dim=12), FEEDFORWARD] * 2
    return config, architecture(layers, rope={"theta": 5000.0}, tied_embeddings=tied)


def llama3() -> Case:
    """Stretched positions: with an original context of 16, pairs of a head are kept, mixed and divided."""
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    rope = {"rope_type": "llama3", "rope_theta": 100.0, **scaling}
    config = transformers.LlamaConfig(
        num_hidden_layers=1, rope_parameters=rope, tie_word_embeddings=True, **TRANSFORMER
    )
    ours = {
        "theta": 100.0,
        "scaling": {"kind": "llama3", "factor": 8.0, "low": 1.0, "high": 4.0, "original_context": 16},
    }
    return config, architecture([attention(head_dim=12), FEEDFORWARD], rope=ours)


def qwen2(tied: bool) -> Case:
    config = transformers.Qwen2Config(num_hidden_layers=2, tie_word_embeddings=tied, **TRANSFORMER)
    layers = [attention(head_dim=12, qkv_bias=True), FEEDFORWARD] * 2
    return config, architecture(layers, tied_embeddings=tied)


def qwen3(tied: bool) -> Case:
    config = transformers.Qwen3Config(
        num_hidden_layers=2, head_dim=16, tie_word_embeddings=tied, **TRANSFORMER
    )
    layers = [attention(head_dim=16, qk_norm="head"), FEEDFORWARD] * 2
    return config, architecture(layers, tied_embeddings=tied)


def qwen3_sliding() -> Case:
    window = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}
    config = transformers.Qwen3Config(
        num_hidden_layers=2, head_dim=16, tie_word_embeddings=True, **window, **TRANSFORMER
    )
    full, sliding = (attention(head_dim=16, qk_norm="head", window=window) for window in (None, 9))
    return config, architecture([full, FEEDFORWARD, sliding, FEEDFORWARD])


def mamba2(tied: bool) -> Case:
    sizes = {
        "num_heads": 6,
        "head_dim": 16,
        "state_size": 20,
        "n_groups": 2,
        "expand": 2,
        "conv_kernel": 4,
        "chunk_size": 32,
    }
    config = transformers.Mamba2Config(
        num_hidden_layers=2, layer_norm_epsilon=EPS, tie_word_embeddings=tied, **sizes, **COMMON
    )
    return config, architecture([MAMBA2] * 2, tied_embeddings=tied, rope=None)


def nemotron_h() -> Case:
    config = transformers.NemotronHConfig(
        layers_block_type=["linear_attention", "mlp", "linear_attention", "full_attention", "mlp"],
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
        # transformers takes this for the smallest step, except when it decodes; the definition has none.
        time_step_min=1e-9,
        tie_word_embeddings=False,
        **COMMON,
    )
    feedforward = {"operator": "relu2", "shape": {"hidden": HIDDEN}}
    layers = [MAMBA2, feedforward, MAMBA2, attention(head_dim=12), feedforward]
    return config, architecture(layers, rope=None, tied_embeddings=False)


def olmo_hybrid(*, rope: bool, negative_eigenvalues: bool, tied: bool) -> Case:
    # In this configuration a theta of None means no rotation; without rope_parameters it has a default.
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
        tie_word_embeddings=tied,
        **(TRANSFORMER | {"rms_norm_eps": 1e-6}),
    )
    shape = {
        "heads": 4,
        "key_dim": 10,
        "value_dim": 18,
        "conv": 4,
        "negative_eigenvalues": negative_eigenvalues,
    }
    layers = [
        {"operator": "gated_deltanet", "shape": shape},
        FEEDFORWARD,
        attention(head_dim=12, qk_norm="full", norm_position="after"),
        {**FEEDFORWARD, "norm_position": "after"},
    ]
    return config, architecture(layers, norm_eps=1e-6, tied_embeddings=tied, rope={} if rope else None)


def randomize(model: nn.Module) -> None:
    """Makes all parameters different, also from their first values: a missing or swapped one shows."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            elif name.endswith("dt_bias"):
                parameter.uniform_(-4, -1)
            else:
                parameter.uniform_(0.5, 1.5)


def decoded(model: HybridLM, tokens: Tensor, pieces: tuple[int, ...]) -> dict[int, Tensor]:
    """Logits by position, from prefills of these lengths and steps for the rest."""
    state, read, logits = model.allocate_state(tokens.shape[0], tokens.shape[1]), 0, {}
    for length in pieces:
        logits[read + length - 1] = model.prefill(tokens[:, read : read + length], state)
        read += length
    for t in range(read, tokens.shape[1]):
        logits[t] = model.step(tokens[:, t], state)
    return logits


CASES: dict[str, Callable[[], Case]] = {
    "llama": lambda: llama(tied=False),
    "llama-tied": lambda: llama(tied=True),
    "llama-stretched": llama3,
    "qwen2": lambda: qwen2(tied=False),
    "qwen2-tied": lambda: qwen2(tied=True),
    "qwen3": lambda: qwen3(tied=False),
    "qwen3-tied": lambda: qwen3(tied=True),
    "qwen3-sliding": qwen3_sliding,
    "mamba2": lambda: mamba2(tied=False),
    "mamba2-tied": lambda: mamba2(tied=True),
    "nemotron_h": nemotron_h,
    "olmo_hybrid": lambda: olmo_hybrid(rope=False, negative_eigenvalues=False, tied=False),
    "olmo_hybrid-rope-tied": lambda: olmo_hybrid(rope=True, negative_eigenvalues=True, tied=True),
}


def published_model(config: Any) -> Any:
    """The model that transformers makes of a configuration, with random weights."""
    with plain_definitions():
        theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    randomize(theirs)
    return theirs


@torch.no_grad()
def check_logits(theirs: Any, model: HybridLM) -> None:
    """The whole sequence at once, and prefilled in two pieces and stepped through."""
    tokens = torch.randint(VOCABULARY, (2, TOKENS))
    expected = theirs(tokens, use_cache=False).logits
    assert expected.std() > 0.3, "logits too small for the tolerance to mean anything"
    torch.testing.assert_close(model(tokens), expected, rtol=0, atol=1e-4)
    for position, logits in decoded(model, tokens, (37, 27)).items():
        torch.testing.assert_close(logits, expected[:, position], rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_a_saved_model_is_the_architecture_and_has_the_logits(case: str, tmp_path: Path) -> None:
    config, ours = CASES[case]()
    theirs = published_model(config)
    theirs.save_pretrained(tmp_path)
    folder = SafetensorsFolder(tmp_path)
    published = describe(folder.config)
    assert published.architecture == ours
    model = HybridLM(ours)
    model.load_state_dict(fitted(published, folder, where=tmp_path))
    check_logits(theirs, model)


@torch.no_grad()
def by_definition(module: Any, x: Tensor, kind: str) -> Tensor:
    """DeltaNet or GLA for x [T, W] by definition, in float64; transformers does not have them."""
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
        low_rank = (
            x @ weight["decay_down_proj.weight"].T @ weight["decay_up_proj.weight"].T
            + weight["decay_up_proj.bias"]
        )
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
    shape = {"deltanet": {"heads": 3, "head_dim": 12}, "gla": {"heads": 3, "key_dim": 8, "value_dim": 14}}[
        kind
    ]
    module: Any = (
        HybridLM(architecture([{"operator": kind, "shape": shape}]), backend="reference").layers[0].operator
    )
    randomize(module)
    x = torch.randn(TOKENS, WIDTH)
    expected = by_definition(module, x.double(), kind)
    assert expected.std() > 0.3
    torch.testing.assert_close(module(x[None])[0].double(), expected, rtol=0, atol=1e-4)
