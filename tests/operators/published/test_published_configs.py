"""Configurations as published are read; a key that changes the mathematics is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from operators.base.errors import ArchitectureError, DataError
from operators.published import describe
from operators.published.json_file import read_mapping
from tests.helpers.published_models import FAMILIES

transformers = pytest.importorskip("transformers")

TOKEN_IDS = {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0",
}
ATTENTION = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
ATTENTION |= {
    "num_hidden_layers": 2,
    "vocab_size": 61,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
} | TOKEN_IDS
MAMBA = {
    "chunk_size": 256,
    "conv_kernel": 4,
    "expand": 2,
    "hidden_size": 64,
    "initializer_range": 0.1,
} | TOKEN_IDS
MAMBA |= {
    "layer_norm_epsilon": 1e-5,
    "vocab_size": 61,
    "use_bias": False,
    "use_cache": True,
    "use_conv_bias": True,
}
MAMBA |= {
    "rescale_prenorm_residual": False,
    "residual_in_fp32": True,
    "time_step_floor": 1e-4,
    "pad_token_id": 0,
}
MAMBA |= {"time_step_limit": [0.0, float("inf")], "time_step_max": 0.1, "time_step_min": 0.001, "n_groups": 2}

# The keys of folders on the Hub, with small sizes.
PUBLISHED: dict[str, dict[str, Any]] = {
    "SmolLM2": {
        **ATTENTION,
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.0416,
        "is_llama_config": True,
        "max_position_embeddings": 8192,
        "mlp_bias": False,
        "pretraining_tp": 1,
        "rope_interleaved": False,
        "rope_scaling": None,
        "rope_theta": 100000,
        "tie_word_embeddings": True,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
        "use_cache": True,
    },
    "Llama-3.2": {
        **ATTENTION,
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "eos_token_id": [128001, 128008, 128009],
        "head_dim": 16,
        "max_position_embeddings": 131072,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "unsloth_fixed": True,
    },
    "Falcon3": {
        **ATTENTION,
        "model_type": "llama",
        "activation": "swiglu",
        "head_dim": 32,
        "rope_theta": 1000042,
    },
    "Qwen2.5": {
        **ATTENTION,
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "max_window_layers": 21,
        "sliding_window": 131072,
        "use_mrope": False,
        "use_sliding_window": False,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
    },
    "Qwen3": {
        **ATTENTION,
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "head_dim": 128,
        "max_window_layers": 28,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "Codestral Mamba": {
        **MAMBA,
        "model_type": "mamba2",
        "architectures": ["Mamba2ForCausalLM"],
        "head_dim": 16,
        "num_heads": 8,
        "hidden_act": "silu",
        "intermediate_size": 128,
        "norm_before_gate": True,
        "num_hidden_layers": 2,
        "rms_norm": True,
        "state_size": 16,
        "time_step_init_scheme": "random",
        "time_step_rank": 256,
        "time_step_scale": 1.0,
    },
    "Nemotron-H": {
        **MAMBA,
        "model_type": "nemotron_h",
        "architectures": ["NemotronHForCausalLM"],
        "attention_bias": False,
        "attention_head_dim": 128,
        "auto_map": {
            "AutoConfig": "configuration_nemotron_h.NemotronHConfig",
            "AutoModelForCausalLM": "modeling_nemotron_h.NemotronHForCausalLM",
        },
        "hidden_dropout": 0.0,
        "hybrid_override_pattern": "M-M*-",
        "intermediate_size": 96,
        "mamba_head_dim": 16,
        "mamba_hidden_act": "silu",
        "mamba_num_heads": 8,
        "mamba_proj_bias": False,
        "max_position_embeddings": 8192,
        "mlp_bias": False,
        "mlp_hidden_act": "relu2",
        "num_attention_heads": 4,
        "num_hidden_layers": 5,
        "num_key_value_heads": 2,
        "num_logits_to_keep": 1,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
        "ssm_state_size": 16,
        "time_step_rank": 256,
        "use_mamba_kernels": True,
    },
    "OLMo hybrid": {
        **ATTENTION,
        "model_type": "olmo_hybrid",
        "architectures": ["OlmoHybridForCausalLM"],
        "num_key_value_heads": 4,
        "attention_bias": False,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_allow_neg_eigval": True,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 12,
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 4,
        "linear_value_head_dim": 24,
        "rope_theta": None,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_configurations_of_published_folders_are_read(name: str) -> None:
    assert describe(PUBLISHED[name]).architecture.vocabulary == 61


@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_writes_by_default_is_read(family: str) -> None:
    """All keys of a configuration class, with one layer of each kind that the default has."""
    dense: dict[str, dict[str, Any]] = {
        "nemotron_h": {"layers_block_type": ["linear_attention", "full_attention", "mlp"]},
        "granitemoehybrid": {"num_local_experts": 0},
        "kimi_linear": {"layer_types": ["linear_attention"] * 27, "mlp_layer_types": ["dense"] * 27},
    }
    config = transformers.CONFIG_MAPPING[family](**dense.get(family, {}))
    described = describe(json.loads(config.to_json_string(use_diff=False))).architecture
    assert described.width == config.hidden_size
    assert described.vocabulary == config.vocab_size


BASE = PUBLISHED["Llama-3.2"]
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "null counts as false": ({"is_causal": None}, "is_causal: expected True, got None"),
    "an unknown key": (
        {"logits_scaling": 8.0},
        "logits_scaling: expected a key that is known for llama, got 8.0",
    ),
    "a number for a flag": ({"attention_bias": 0}, "attention_bias: expected False, got 0"),
    "a word for a flag": ({"mlp_bias": "false"}, "mlp_bias: expected False, got 'false'"),
    "a null for a number": (
        {"rms_norm_eps": None},
        "rms_norm_eps: expected a value or no such key, got None",
    ),
    "no number": ({"rms_norm_eps": float("nan")}, "rms_norm_eps: expected a positive number, got nan"),
    "no finite number": ({"rms_norm_eps": float("inf")}, "rms_norm_eps: expected a positive number, got inf"),
    "a huge number": ({"rms_norm_eps": 10**400}, "rms_norm_eps: expected a positive number, got 1000"),
    "a fraction of layers": ({"num_hidden_layers": 2.0}, "num_hidden_layers: expected a whole number"),
    "a width that heads do not share": (
        {"hidden_size": 66},
        "hidden_size: expected a multiple of num_attention_heads, 4",
    ),
    "sliding in a family that does not": (
        {"sliding_window": 4096},
        "sliding_window: expected a key that is known",
    ),
    "a classifier": (
        {"architectures": ["LlamaForSequenceClassification"]},
        "architectures: expected LlamaForCausalLM or LlamaModel, got 'LlamaForSequenceClassification'",
    ),
    "code of its own": (
        {"auto_map": {"AutoModel": "modeling.LlamaBiModel"}},
        "auto_map: AutoModel: expected LlamaForCausalLM or LlamaModel, got 'modeling.LlamaBiModel'",
    ),
    "weights elsewhere": (
        {"transformers_weights": "b.safetensors"},
        "transformers_weights: expected a key that is",
    ),
    "a key in the rotation": (
        {"rope_scaling": {**BASE["rope_scaling"], "attention_factor": 1.5}},
        "rope_scaling: attention_factor: expected a key that is known for rope_type llama3, got 1.5",
    ),
    "a factor for nothing": (
        {"rope_scaling": {"rope_type": "default", "factor": 4.0}},
        "rope_scaling: factor: expected a key that is known for rope_type default, got 4.0",
    ),
    "two kinds of rotation": (
        {"rope_scaling": {**BASE["rope_scaling"], "type": "yarn"}},
        "rope_scaling: type: expected 'llama3', as rope_type says, got 'yarn'",
    ),
    "no kind of rotation": (
        {"rope_scaling": {"rope_type": None}},
        "rope_scaling: rope_type: expected a value or no such key, got None",
    ),
    "no base of the rotation": (
        {"rope_theta": None},
        "rope_theta: expected a value or no such key, got None",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_key_that_changes_the_mathematics_is_refused_by_name(case: str) -> None:
    changes, says = REFUSED[case]
    with pytest.raises(ArchitectureError) as caught:
        describe({**BASE, **changes}, where="config.json")
    assert f"config.json: {says}" in str(caught.value)


def test_names_that_a_setting_had_before_must_agree() -> None:
    nemotron = PUBLISHED["Nemotron-H"]
    assert describe({**nemotron, "mamba_n_groups": 2}).architecture == describe(nemotron).architecture
    for changes, says in (
        ({"mamba_n_groups": 4}, "mamba_n_groups: expected 2, as n_groups says, got 4"),
        ({"layers_block_type": ["mlp"]}, "hybrid_override_pattern: expected the layers of layers_block_type"),
        ({"num_hidden_layers": 7}, "num_hidden_layers: expected 5, as hybrid_override_pattern says, got 7"),
        ({"num_nextn_predict_layers": 1}, "num_nextn_predict_layers: expected 0, got 1"),
        ({"head_dim": 64}, "attention_head_dim: expected 64, as head_dim says, got 128"),
    ):
        with pytest.raises(ArchitectureError, match=r"config\.json: ") as caught:
            describe({**nemotron, **changes})
        assert says in str(caught.value)


def test_a_hybrid_without_full_attention_by_rule_has_it_last() -> None:
    config = {key: value for key, value in PUBLISHED["OLMo hybrid"].items() if key != "layer_types"}
    for blocks in (2, 5, 8):
        theirs = transformers.OlmoHybridConfig(num_hidden_layers=blocks).layer_types
        layers = describe({**config, "num_hidden_layers": blocks}).architecture.layers[::2]
        kinds = {"gated_deltanet": "linear_attention", "attention": "full_attention"}
        assert [kinds[layer.operator] for layer in layers] == theirs


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"hidden_size": 64, "hidden_size": 32}', "not JSON: hidden_size stands twice, as 64 and as 32"),
        ('{"rope_scaling": {"factor": 8, "factor": 2}}', "not JSON: factor stands twice"),
        ("\ufeff{}", "not JSON: Unexpected UTF-8 BOM"),
        ('{"vocab_size": 1' + "0" * 5000 + "}", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('"llama"', "expected a mapping, got str"),
    ],
)
def test_json_is_read_strictly(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_mapping(tmp_path / "config.json")
    assert str(caught.value).startswith(f"{tmp_path / 'config.json'}: {says}")
    assert "\n" not in str(caught.value)
