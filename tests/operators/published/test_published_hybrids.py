"""Configurations of hybrids as published: read, or refused with the name of each feature that we have not."""

from typing import Any

import pytest
import torch

from operators.base.errors import ArchitectureError, DataError
from operators.published import describe, fitted
from operators.published.held import as_family
from operators.published.outward import published_tensors
from operators.published.tensor_names import Zeros
from tests.helpers.exportable_models import random_model
from tests.helpers.published_models import FEEDFORWARD, architecture, attention

COMMON = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 61, "hidden_act": "silu"}
COMMON |= {"num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "eos_token_id": 2}

# The keys of granite-4.0-h-350m, with small sizes.
GRANITE = {
    **COMMON,
    "architectures": ["GraniteMoeHybridForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attention_multiplier": 0.015625,
    "embedding_multiplier": 12,
    "init_method": "mup",
    "initializer_range": 0.1,
    "layer_types": ["mamba", "attention", "mamba"],
    "logits_scaling": 3,
    "mamba_chunk_size": 256,
    "mamba_conv_bias": True,
    "mamba_d_conv": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 32,
    "mamba_expand": 2,
    "mamba_n_groups": 1,
    "mamba_n_heads": 8,
    "mamba_proj_bias": False,
    "max_position_embeddings": 32768,
    "model_type": "granitemoehybrid",
    "normalization_function": "rmsnorm",
    "num_experts_per_tok": 0,
    "num_hidden_layers": 3,
    "num_local_experts": 0,
    "output_router_logits": False,
    "position_embedding_type": "nope",
    "residual_multiplier": 0.246,
    "rope_scaling": None,
    "rope_theta": 10000,
    "router_aux_loss_coef": 0.0,
    "shared_intermediate_size": 96,
    "tie_word_embeddings": True,
}
DENSE = {"layer_types": ["attention"] * 3, "position_embedding_type": "rope", "rope_theta": 10000000}

DELTANET = {
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 16,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_value_head_dim": 16,
}
QWEN3_5: dict[str, Any] = {
    "architectures": ["Qwen3_5ForConditionalGeneration"],
    "image_token_id": 60,
    "model_type": "qwen3_5",
    "text_config": {
        **COMMON,
        **DELTANET,
        "attention_bias": False,
        "attn_output_gate": True,
        "full_attention_interval": 4,
        "head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
        "mamba_ssm_dtype": "float32",
        "mlp_only_layers": [],
        "model_type": "qwen3_5_text",
        "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False,
        "num_hidden_layers": 2,
        "rope_parameters": {
            "mrope_interleaved": True,
            "mrope_section": [1, 1, 0],
            "partial_rotary_factor": 0.25,
            "rope_theta": 10000000,
            "rope_type": "default",
        },
        "tie_word_embeddings": True,
    },
    "vision_config": {"model_type": "qwen3_5"},
}
QWEN3_NEXT = {
    **COMMON,
    **DELTANET,
    "architectures": ["Qwen3NextForCausalLM"],
    "decoder_sparse_step": 1,
    "full_attention_interval": 4,
    "head_dim": 16,
    "mlp_only_layers": [],
    "model_type": "qwen3_next",
    "moe_intermediate_size": 16,
    "norm_topk_prob": True,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "num_hidden_layers": 4,
    "partial_rotary_factor": 0.25,
    "rope_scaling": None,
    "rope_theta": 10000000,
    "shared_expert_intermediate_size": 16,
}
KIMI = {
    **COMMON,
    "architectures": ["KimiLinearForCausalLM"],
    "first_k_dense_replace": 1,
    "head_dim": 72,
    "kv_lora_rank": 32,
    "linear_attn_config": {
        "full_attn_layers": [4],
        "head_dim": 16,
        "kda_layers": [1, 2, 3],
        "num_heads": 4,
        "short_conv_kernel_size": 4,
    },
    "mla_use_nope": True,
    "model_max_length": 1048576,
    "model_type": "kimi_linear",
    "moe_intermediate_size": 16,
    "moe_layer_freq": 1,
    "moe_renormalize": True,
    "moe_router_activation_func": "sigmoid",
    "num_expert_group": 1,
    "num_experts": 256,
    "num_experts_per_token": 8,
    "num_hidden_layers": 4,
    "num_shared_experts": 1,
    "q_lora_rank": None,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "routed_scaling_factor": 2.446,
    "topk_group": 1,
    "use_grouped_topk": True,
    "v_head_dim": 16,
}


@pytest.mark.parametrize(
    ("changes", "operators", "rope"),
    [({}, ["mamba2", "attention", "mamba2"], None), (DENSE, ["attention"] * 3, 10_000_000)],
)
def test_granite_4_is_read_with_its_multipliers(
    changes: dict[str, Any], operators: list[str], rope: float | None
) -> None:
    published = describe({**GRANITE, **changes})
    layers = published.architecture.layers
    assert [layer.operator for layer in layers[::2]] == operators
    assert (published.architecture.rope and published.architecture.rope.theta) == rope
    assert "multipliers" in published.remark
    one = torch.ones(2, 2, dtype=torch.bfloat16)
    # 16 numbers a head, so scores are divided by 4 elsewhere, and by 64 here.
    attending = f"layers.{2 * operators.index('attention')}.operator"
    expected = {"embedding.weight": 12, "norm.weight": 1 / 36, f"{attending}.q_proj.weight": 4 / 64}
    expected |= {f"{attending}.o_proj.weight": 0.246, "layers.5.operator.down_proj.weight": 0.246}
    factors = {name: published.forms[name].inward(one)[0, 0].item() for name in expected}
    assert factors == pytest.approx(expected)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            QWEN3_5,
            "config.json: text_config: attn_output_gate: expected false, as attention has no gate here, got "
            "True; rope_parameters: partial_rotary_factor: expected 1.0, got 0.25; rms_norm_eps: expected "
            "1e-05, got 1e-06; linear_num_value_heads: expected 4, as many as linear_num_key_heads, got 8",
        ),
        (QWEN3_5["text_config"], "config.json: attn_output_gate: expected false, as attention has no gate"),
        (
            QWEN3_NEXT,
            "config.json: partial_rotary_factor: expected 1.0, got 0.25; rms_norm_eps: expected 1e-05, got "
            "1e-06; linear_num_value_heads: expected 4, as many as linear_num_key_heads, got 8; "
            "num_experts: expected 0, as experts are no operator, got 512",
        ),
        (
            KIMI,
            "config.json: linear_attn_config: full_attn_layers: expected no full attention, as latent "
            "attention is no operator, got [4]; first_k_dense_replace: expected 4 dense layers, as experts "
            "are no operator, got 1",
        ),
        (
            {key: value for key, value in QWEN3_5["text_config"].items() if key != "rms_norm_eps"},
            "rms_norm_eps: expected 1e-05, got 1e-06",  # the class's default
        ),
        ({**GRANITE, "num_local_experts": 62}, "num_local_experts: expected 0, as experts are no operator"),
        (
            {"model_type": "granite4_vision", "text_config": GRANITE},
            "config.json: model_type: expected granitemoehybrid, the text model alone, which text_config "
            "describes, got 'granite4_vision'",
        ),
    ],
)
def test_a_refusal_names_each_feature_that_is_not_held(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        describe(config, where="config.json")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


LINEAR = {**KIMI["linear_attn_config"], "full_attn_layers": [], "kda_layers": [1, 2, 3, 4]}
KDA = {**KIMI, "linear_attn_config": LINEAR, "first_k_dense_replace": 4}


def test_kimi_linear_without_latent_attention_is_read() -> None:
    layers = describe(KDA).architecture.layers
    assert [layer.operator for layer in layers] == ["kda", "swiglu"] * 4
    assert layers[0].shape.model_dump() == {
        "heads": 4,
        "key_dim": 16,
        "value_dim": 16,
        "conv": 4,
        "negative_eigenvalues": False,
    }


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"linear_attn_config": {**LINEAR, "kda_layers": [1, 2, 3]}}, "kda_layers: expected with full_attn"),
        ({"linear_attn_config": {**LINEAR, "kda_layers": [0, 1, 2, 3]}}, "each number from 1 to 4 once"),
        ({"linear_attn_config": {**LINEAR, "gate_lower_bound": -5.0}}, "gate_lower_bound: expected None"),
        ({"linear_num_heads": 8}, "linear_num_heads: expected 4, as linear_attn_config says, got 8"),
        ({"layer_types": ["full_attention"] * 4}, "layer_types: expected the kinds that linear_attn_config"),
        ({"hidden_act": "situ"}, "hidden_act: expected 'silu' or 'swish', got 'situ'"),
        ({"mlp_layer_types": ["dense"] * 3 + ["sparse"]}, "mlp_layer_types: expected 4 dense layers"),
    ],
)
def test_keys_of_kimi_linear_that_contradict_or_that_we_have_not(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        describe({**KDA, **changes})
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "is_read"),
    [
        ({"num_experts": 0}, True),
        ({"mlp_only_layers": [0, 1, 2, 3]}, True),
        ({"decoder_sparse_step": 8}, True),
        ({"mlp_only_layers": [0, 2], "decoder_sparse_step": 2}, False),
        ({"mlp_only_layers": [1, 3], "decoder_sparse_step": 2}, True),
    ],
)
def test_qwen3_next_is_dense_where_the_class_has_no_experts(changes: dict[str, Any], is_read: bool) -> None:
    held = {**QWEN3_NEXT, "partial_rotary_factor": 1.0, "rms_norm_eps": 1e-5, "linear_num_value_heads": 4}
    if is_read:
        operators = [layer.operator for layer in describe({**held, **changes}).architecture.layers[::2]]
        assert operators == ["gated_deltanet"] * 3 + ["attention"]
    else:
        with pytest.raises(ArchitectureError, match="num_experts: expected 0, as experts are no operator"):
            describe({**held, **changes})


def test_latent_attention_of_kimi_linear_may_hold_zeros_alone() -> None:
    kda = {"operator": "kda", "shape": {"heads": 2, "key_dim": 8, "value_dim": 8}}
    model = random_model(architecture([kda, FEEDFORWARD], rope=None))
    held = as_family(model.architecture, "kimi_linear")
    tensors = published_tensors(held, model.state_dict())
    latent = "model.layers.1.self_attn.q_proj.weight"
    assert held.published.zeros[latent] == Zeros((128, 48), "frontrunner_zero_attention")
    tensors[latent][3, 4] = 0.5
    with pytest.raises(DataError, match=r"6144 zeros, as frontrunner_zero_attention is true, got others"):
        fitted(describe(held.config), tensors, where="folder")


def test_rows_of_a_head_lie_together_in_qwen3_next() -> None:
    """By hand: for each head its queries, keys, values and gates, and its beta before its decay."""
    shape = {"heads": 2, "key_dim": 8, "value_dim": 6}
    normed = attention(head_dim=12, qk_norm="head")
    layers = [{"operator": "gated_deltanet", "shape": shape}, FEEDFORWARD, normed, FEEDFORWARD]
    model = random_model(architecture(layers, norm_eps=1e-5))
    weights = model.state_dict()
    tensors = published_tensors(as_family(model.architecture, "qwen3_next"), weights)
    q, k, v, g, a, b = (weights[f"layers.0.operator.{name}_proj.weight"] for name in "qkvgab")
    joined = tensors["model.layers.0.linear_attn.in_proj_qkvz.weight"]
    assert torch.equal(joined, torch.cat([q[:8], k[:8], v[:6], g[:6], q[8:], k[8:], v[6:], g[6:]]))
    gates = tensors["model.layers.0.linear_attn.in_proj_ba.weight"]
    assert torch.equal(gates, torch.stack([b[0], a[0], b[1], a[1]]))
