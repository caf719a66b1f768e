"""Small models of transformers' classes with random weights, and the same models as architectures."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from operators import Architecture, HybridLM
from tests.helpers.without_kernels import plain_definitions

transformers = pytest.importorskip("transformers")

WIDTH, VOCABULARY, HIDDEN, EPS = 48, 61, 80, 1e-5


# More than one chunk of the recurrences, and odd.
TOKENS = 71


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
    """A Llama whose positions are stretched.

    With 16 tokens of original context some pairs of a head are kept, some mixed and some divided.
    """
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
        # transformers clamps steps to at least this value, but not when it decodes. The definition of the
        # model has no smallest step, so the value is too small to matter.
        time_step_min=1e-9,
        tie_word_embeddings=False,
        **COMMON,
    )
    feedforward = {"operator": "relu2", "shape": {"hidden": HIDDEN}}
    layers = [MAMBA2, feedforward, MAMBA2, attention(head_dim=12), feedforward]
    return config, architecture(layers, rope=None, tied_embeddings=False)


def olmo_hybrid(*, rope: bool, negative_eigenvalues: bool, tied: bool) -> Case:
    # A theta of None is how this configuration spells "no rotation". Without rope_parameters it takes a
    # default theta.
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
    """Gives every parameter other values than its initial ones and every other parameter's.

    So a test notices a parameter that is missing or swapped.
    """
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
    """Returns logits by position, from prefills of the lengths `pieces` and steps for the rest."""
    state, read, found = model.allocate_state(tokens.shape[0], tokens.shape[1]), 0, {}
    for length in pieces:
        found[read + length - 1] = model.prefill(tokens[:, read : read + length], state)
        read += length
    for t in range(read, tokens.shape[1]):
        found[t] = model.step(tokens[:, t], state)
    return found


def arcee() -> Case:
    config = transformers.ArceeConfig(
        num_hidden_layers=2, head_dim=16, tie_word_embeddings=False, **TRANSFORMER
    )
    layers = [attention(head_dim=16), {"operator": "relu2", "shape": {"hidden": HIDDEN}}] * 2
    return config, architecture(layers, tied_embeddings=False)


def granite4(tied: bool) -> Case:
    """Granite 4 as published, with multipliers."""
    config, ours = granitemoehybrid(rope=tied)
    config.embedding_multiplier, config.residual_multiplier = 12, 0.246
    config.attention_multiplier, config.logits_scaling = 0.125, 0.2  # small, so that the logits are large
    return config, ours


def granitemoehybrid(rope: bool) -> Case:
    config = transformers.GraniteMoeHybridConfig(
        layer_types=["linear_attention", "full_attention"],
        num_hidden_layers=2,
        num_local_experts=0,
        shared_intermediate_size=HIDDEN,
        position_embedding_type="rope" if rope else None,
        attention_multiplier=12**-0.5,
        mamba_n_heads=6,
        mamba_d_head=16,
        mamba_d_state=20,
        mamba_n_groups=2,
        mamba_chunk_size=32,
        tie_word_embeddings=rope,
        **TRANSFORMER,
    )
    layers = [MAMBA2, FEEDFORWARD, attention(head_dim=12), FEEDFORWARD]
    return config, architecture(layers, rope={} if rope else None, tied_embeddings=rope)


def lfm2() -> Case:
    config = transformers.Lfm2Config(
        layer_types=["conv", "full_attention"],
        num_hidden_layers=2,
        conv_L_cache=3,
        block_multiple_of=8,  # int(2 / 3 · 120) is 80, a multiple of 8
        norm_eps=EPS,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        tie_word_embeddings=False,
        **{
            key: value
            for key, value in TRANSFORMER.items()
            if key not in ("rms_norm_eps", "intermediate_size")
        },
        intermediate_size=120,
    )
    convolution = {"operator": "short_conv", "shape": {"channels": WIDTH, "conv": 3}}
    layers = [convolution, FEEDFORWARD, attention(head_dim=12, qk_norm="head"), FEEDFORWARD]
    return config, architecture(layers, rope={"theta": 5000.0}, tied_embeddings=False)


def kimi_linear() -> Case:
    """Kimi Linear without latent attention and experts, which are no operators of ours."""
    config = transformers.KimiLinearConfig(
        layer_types=["linear_attention"],
        mlp_layer_types=["dense"],
        num_hidden_layers=1,  # as the class takes long
        linear_num_heads=4,
        linear_head_dim=10,
        tie_word_embeddings=False,
        **TRANSFORMER,
    )
    kda = {"operator": "kda", "shape": {"heads": 4, "key_dim": 10, "value_dim": 10, "conv": 4}}
    return config, architecture([kda, FEEDFORWARD], tied_embeddings=False, rope=None)


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
    "arcee": arcee,
    "granitemoehybrid": lambda: granitemoehybrid(rope=False),
    "granitemoehybrid-rope-tied": lambda: granitemoehybrid(rope=True),
    "granite4": lambda: granite4(tied=False),
    "granite4-tied": lambda: granite4(tied=True),
    "lfm2": lfm2,
    "kimi_linear": kimi_linear,
    "olmo_hybrid": lambda: olmo_hybrid(rope=False, negative_eigenvalues=False, tied=False),
    "olmo_hybrid-rope-tied": lambda: olmo_hybrid(rope=True, negative_eigenvalues=True, tied=True),
}


def published_model(config: Any) -> Any:
    """Returns the model that transformers makes of a configuration, with random weights."""
    with plain_definitions():
        theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    randomize(theirs)
    return theirs


@torch.no_grad()
def check_logits(theirs: Any, model: HybridLM) -> None:
    """Checks the logits of the whole sequence at once, and of two prefills followed by steps."""
    tokens = torch.randint(VOCABULARY, (2, TOKENS))
    expected = theirs(tokens, use_cache=False).logits
    assert expected.std() > 0.3, "logits too small for the tolerance to mean anything"
    torch.testing.assert_close(model(tokens), expected, rtol=0, atol=1e-4)
    for position, logits in decoded(model, tokens, (37, 27)).items():
        torch.testing.assert_close(logits, expected[:, position], rtol=0, atol=1e-4)


# Each family with the one of CASES that has most of its keys.
FAMILIES = {
    "llama": "llama-stretched",
    "qwen2": "qwen2",
    "qwen3": "qwen3-sliding",
    "mamba2": "mamba2",
    "nemotron_h": "nemotron_h",
    "olmo_hybrid": "olmo_hybrid-rope-tied",
    "arcee": "arcee",
    "granitemoehybrid": "granitemoehybrid-rope-tied",
    "lfm2": "lfm2",
    "kimi_linear": "kimi_linear",
}
