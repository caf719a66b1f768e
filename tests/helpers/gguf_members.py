"""Small architectures of every kind of GGUF model, with random weights."""

from typing import Any

from operators import Architecture, HybridLM
from tests.helpers.published_models import FEEDFORWARD, HIDDEN, MAMBA2, architecture, attention, randomize

RELU2: dict[str, Any] = {"operator": "relu2", "shape": {"hidden": HIDDEN}}
DELTANET: dict[str, Any] = {
    "operator": "gated_deltanet",
    "shape": {"heads": 3, "key_dim": 16, "value_dim": 16, "conv": 4},
}
SHORT_CONV: dict[str, Any] = {"operator": "short_conv", "shape": {"channels": 48, "conv": 3}}
ATTENTION, NORMED = attention(head_dim=12), attention(head_dim=12, qk_norm="head")
BIASED, WIDE = attention(head_dim=12, qkv_bias=True), attention(head_dim=16, qkv_bias=True)
F, R, M, A, N, D, C = FEEDFORWARD, RELU2, MAMBA2, ATTENTION, NORMED, DELTANET, SHORT_CONV
RWKV7: dict[str, Any] = {
    "operator": "rwkv7",
    "shape": {
        "width": 128,
        "heads": 2,
        "head_dim": 64,
        "decay_rank": 32,
        "a_rank": 64,
        "gate_rank": 96,
    },
}
KDA: dict[str, Any] = {
    "operator": "kda",
    "shape": {"heads": 3, "key_dim": 16, "value_dim": 16, "conv": 4},
}
W, K = RWKV7, KDA
# Some of the six pairs of a head are kept, some mixed and some divided.
STRETCHED = {
    "theta": 100.0,
    "scaling": {"kind": "llama3", "factor": 8.0, "low": 1.0, "high": 4.0, "original_context": 16},
}

MEMBERS: dict[str, tuple[str, Architecture]] = {
    "llama": ("llama", architecture([A, F, A, F], tied_embeddings=False)),
    "llama-tied": ("llama", architecture([A, F, A, F], rope={"theta": 5000.0})),
    "llama-stretched": ("llama", architecture([A, F], rope=STRETCHED)),
    "llama-not-rotated": ("llama", architecture([A, F], rope=None)),
    "llama-with-holes": ("llama", architecture([F, A, A, F, A], normalized_head=True)),
    "llama-attention-alone": ("llama", architecture([A, A])),
    "llama-biased": ("llama", architecture([WIDE, F])),
    "qwen2": ("qwen2", architecture([BIASED, F, BIASED, F])),
    "qwen3": ("qwen3", architecture([N, F, N, F], tied_embeddings=False)),
    "mamba2": ("mamba2", architecture([M, M], rope=None)),
    "nemotron_h": ("nemotron_h", architecture([R, M, A, M, R], rope=None, tied_embeddings=False)),
    "nemotron_h-uneven": (
        "nemotron_h",
        architecture(
            [
                M,
                {**A, "shape": {"heads": 2, "kv_heads": 1, "head_dim": 12}},
                A,
                R,
                {**R, "shape": {"hidden": 64}},
            ],
            rope=None,
            normalized_head=True,
        ),
    ),
    "nemotron_h-without-attention": ("nemotron_h", architecture([M, R, M, R])),
    "nemotron_h-without-mamba2": ("nemotron_h", architecture([A, R], rope=None)),
    "granitehybrid": ("granitehybrid", architecture([M, F, A, F, M, F])),
    "granitehybrid-with-holes": ("granitehybrid", architecture([F, M, M, F, A, A, F], tied_embeddings=False)),
    "granitehybrid-stretched": ("granitehybrid", architecture([M, F, A, F], rope=STRETCHED)),
    "granitehybrid-not-rotated": ("granitehybrid", architecture([M, F, A, F], rope=None)),
    "granitehybrid-without-attention": ("granitehybrid", architecture([M, F, M, F])),
    "qwen35": ("qwen35", architecture([N, F, D, F, D, F, N, F])),
    "qwen35-with-holes": ("qwen35", architecture([F, N, D, D, F], tied_embeddings=False)),
    "qwen35-without-attention": ("qwen35", architecture([D, F, D])),
    "lfm2": ("lfm2", architecture([C, F, N, F, C, F])),
    "lfm2-with-holes": ("lfm2", architecture([C, C, F, N, N, F], tied_embeddings=False)),
    "arwkv7": ("arwkv7", architecture([W, F, W, F], width=128, tied_embeddings=False)),
    "arwkv7-with-holes": ("arwkv7", architecture([F, W, W, F, F], width=128)),
    "kimi-linear": ("kimi-linear", architecture([K, F, K, F], tied_embeddings=False)),
    "kimi-linear-with-holes": ("kimi-linear", architecture([F, K, K, F])),
    "lfm2-without-attention": ("lfm2", architecture([C, F, C])),
}
"""By what is special in it: the family that holds it, and the architecture."""


def random_model(architecture: Architecture) -> HybridLM:
    model = HybridLM(architecture, backend="reference").eval()
    randomize(model)
    return model
