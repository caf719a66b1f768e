"""Keys of a GGUF file: each is used, harmless, or refused by name."""

import re
from typing import Any

import numpy as np
import pytest

from operators import Architecture
from operators.base.errors import ArchitectureError
from operators.published import describe
from operators.published.gguf_metadata import llama_config

transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

METADATA = {
    "general.architecture": "llama",
    "llama.context_length": 256,
    "llama.embedding_length": 48,
    "llama.block_count": 2,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.dimension_count": 12,
    "llama.rope.freq_base": 5000.0,
}


def architecture_of(metadata: dict[str, Any]) -> Architecture:
    config = llama_config(metadata.get, metadata, vocabulary=61, tied=True, where="x.gguf")
    return describe(config, where="x.gguf").architecture


# Keys that llama.cpp does not use in this family, and the one for the length of the training texts.
HARMLESS = {
    "llama.context_length",
    "llama.attention.layer_norm_epsilon",
    "llama.rope.scaling.finetuned",
    "llama.rope.scaling.original_context_length",
}


def keys_of_llama_cpp(group: type = gguf.Keys) -> list[str]:
    """Every key for a model's computation that the package gguf lists, under the prefix of a llama."""
    keys = []
    for name, value in vars(group).items():
        if isinstance(value, type):
            keys += keys_of_llama_cpp(value)
        elif not name.startswith("_") and isinstance(value, str) and value.startswith("{arch}"):
            keys.append(value.format(arch="llama", dense="dense_2"))
    return keys


def test_the_package_lists_the_keys() -> None:
    assert len(keys_of_llama_cpp()) > 90
    assert {"llama.attention.scale", "llama.rope.scaling.type", "llama.logit_scale"} < {*keys_of_llama_cpp()}


def outcome_of(metadata: dict[str, Any]) -> str:
    """The digest of the architecture, or the error."""
    try:
        return architecture_of(metadata).digest()
    except ArchitectureError as error:
        return str(error)


@pytest.mark.parametrize("key", sorted({*keys_of_llama_cpp(), "llama.rope.scale_linear", "llama.brand_new"}))
def test_no_key_is_ignored(key: str) -> None:
    base = outcome_of(METADATA)
    for value in (3, 0.37, "yarn", -1, [1, 2], float("nan")):
        outcome = outcome_of({**METADATA, key: value})
        assert outcome != base or key in HARMLESS, (key, value)
        assert len(outcome.splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.causal", False),
        ("use_parallel_residual", True),
        ("attention.scale", 0.25),
        ("attention.value_length", 8),
        ("attention.key_length", 8),
        ("rope.dimension_count", 6),
        ("rope.scaling.factor", 4.0),
        ("attention.sliding_window", 64),
        ("expert_count", 8),
        ("logit_scale", 0.5),
        ("pooling_type", 1),
        ("attention.head_count_kv", [2, 4]),
        ("attention.head_count_kv", [2]),
        ("feed_forward_length", [64, 32]),
        ("vocab_size", 60),
        ("tensor_data_layout", "reference"),
        ("attention.layer_norm_rms_epsilon", 0.0),
        ("rope.freq_base", float("inf")),
        ("embedding_length", True),
        ("block_count", 2.0),
    ],
)
def test_a_value_that_changes_the_mathematics_is_named(key: str, value: Any) -> None:
    with pytest.raises(ArchitectureError) as caught:
        architecture_of({**METADATA, f"llama.{key}": value})
    # Three keys have the length of a head: the error may name another one of them.
    named = key if not key.endswith(("key_length", "value_length")) else "llama."
    assert named in str(caught.value)
    assert f"got {value!r}" in str(caught.value) or "the length of a head" in str(caught.value)


@pytest.mark.parametrize(
    "more",
    [
        {"llama.attention.causal": True, "llama.expert_count": 0, "llama.attention.clamp_kqv": 0.0},
        {"llama.attention.scale": float(np.float32(12**-0.5)), "llama.logit_scale": 1.0},
        {"llama.attention.key_length": 12, "llama.attention.value_length": 12, "llama.vocab_size": 61},
        {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0},
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 1.0},
        {"llama.attention.head_count_kv": [2, 2], "llama.feed_forward_length": [64, 64]},
        {"llama.tensor_data_layout": "Meta AI original pth", "general.quantization_version": 2},
        {"quantize.imatrix.file": "i.dat", "general.file_type": 1, "tokenizer.ggml.bos_token_id": 1},
    ],
)
def test_values_that_say_what_a_llama_is_anyway_are_taken(more: dict[str, Any]) -> None:
    assert architecture_of({**METADATA, **more}) == architecture_of(METADATA)


@pytest.mark.parametrize(
    "key",
    [
        "embedding_length",
        "block_count",
        "feed_forward_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ],
)
def test_a_key_that_llama_cpp_needs_is_missed(key: str) -> None:
    rest = {name: value for name, value in METADATA.items() if name != f"llama.{key}"}
    with pytest.raises(ArchitectureError, match=re.escape(f"x.gguf: llama.{key}: missing")):
        architecture_of(rest)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"general.type": "adapter", "adapter.type": "lora"},
            "general.type: expected 'model', got 'adapter'",
        ),
        ({"general.type": "mmproj", "general.architecture": "clip"}, "general.type: expected 'model'"),
        ({"general.type": "imatrix", "general.architecture": None}, "general.type: expected 'model'"),
        (
            {"general.architecture": "qwen2"},
            "general.architecture: expected 'llama' in a GGUF file, got 'qwen2'",
        ),
        ({"general.architecture": None}, "general.architecture: expected 'llama' in a GGUF file, got None"),
        ({"adapter.lora.alpha": 16.0}, "adapter.lora.alpha: expected no such key"),
        ({"granite.logit_scale": 8.0}, "granite.logit_scale: expected no such key"),
    ],
)
def test_a_file_of_another_kind_is_refused(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ArchitectureError, match=re.escape(says)):
        architecture_of({**METADATA, **more})
