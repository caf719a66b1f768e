"""Models of ours that are written as a class of transformers compute the same there, and are read back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from operators import Architecture, HybridLM
from operators.base.errors import ArchitectureError, DataError
from operators.published import describe, fitted
from operators.published.families import FAMILIES
from operators.published.folding import folded
from operators.published.held import as_family, hold
from operators.published.outward import published_tensors
from operators.published.padding import PADDING
from operators.published.safetensors_folder import SafetensorsFolder
from tests.helpers.exportable_models import (
    check_same,
    opened_by_transformers,
    random_member,
    random_model,
    save_held,
)
from tests.helpers.published_models import CASES, FEEDFORWARD, MAMBA2, architecture, attention

transformers = pytest.importorskip("transformers")

DELTANET = {"operator": "gated_deltanet", "shape": {"heads": 2, "key_dim": 8, "value_dim": 8}}
RELU2 = {"operator": "relu2", "shape": {"hidden": 80}}
SHORT_CONV = {"operator": "short_conv", "shape": {"channels": 48}}
HEADS = attention(head_dim=12)
NORMED = attention(head_dim=12, qk_norm="head")


def read_back(folder: Path) -> tuple[Architecture, dict[str, torch.Tensor]]:
    tensors = SafetensorsFolder(folder)
    published = describe(tensors.config)
    return published.architecture, fitted(published, tensors, where=folder)


def check_read_back(folder: Path, model: HybridLM) -> None:
    """Checks that the folder is the model again: the architecture, and each weight bit for bit."""
    ours, weights = read_back(folder)
    unrotated = {} if any(layer.operator == "attention" for layer in ours.layers) else {"rope": None}
    assert ours.model_copy(update=unrotated) == model.architecture.model_copy(update=unrotated)
    expected = model.state_dict()
    assert list(weights) == list(expected)
    for name, weight in weights.items():
        assert weight.dtype == expected[name].dtype, name
        assert torch.equal(weight, expected[name]), name


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_member_of_a_family_is_the_same_there_and_back(
    family: str, seed: int, tmp_path: Path
) -> None:
    model = random_model(random_member(family, seed))
    save_held(as_family(model.architecture, family), model, tmp_path)
    check_read_back(tmp_path, model)
    check_same(opened_by_transformers(tmp_path), model)


@pytest.mark.parametrize("seed", range(3))
def test_plain_attention_with_windows_is_qwen2_with_biases_of_zeros(seed: int, tmp_path: Path) -> None:
    windowed, whole = attention(head_dim=12, window=9 + seed), attention(head_dim=12)
    layers = [windowed, FEEDFORWARD, whole, windowed, FEEDFORWARD][: 5 - seed]
    model = random_model(architecture(layers, rope={"theta": 5000.0}, tied_embeddings=seed == 1))
    held = hold(model.architecture)
    assert held.class_name == "Qwen2ForCausalLM"
    # Queries of 4 heads, keys and values of 2, in each block.
    assert held.zeros >= (4 + 2 + 2) * 12 * held.config["num_hidden_layers"]
    save_held(held, model, tmp_path)
    check_read_back(tmp_path, model)
    check_same(opened_by_transformers(tmp_path), model)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.0.self_attn.k_proj.bias"][1] = 1e-3
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(
        DataError, match=r"k_proj\.bias: expected 24 zeros, as frontrunner_zero_biases is true"
    ):
        read_back(tmp_path)


@pytest.mark.parametrize("case", CASES)
def test_what_is_imported_is_exported_as_the_same_class(case: str) -> None:
    config, ours = CASES[case]()
    held = hold(ours)
    assert held.config["model_type"] == config.model_type
    # Kimi Linear has no generation without latent attention, which here is of zeros.
    assert (held.zeros == 0) is (case != "kimi_linear")


@pytest.mark.parametrize(
    ("layers", "fields", "family", "zeros"),
    [
        ([HEADS, FEEDFORWARD], {}, "llama", 0),
        # Two layers of attention stand side by side: a feed-forward network of 3 · 48 · 80 and its norm.
        ([HEADS, HEADS, FEEDFORWARD], {}, "llama", 3 * 48 * 80 + 48),
        ([HEADS, RELU2], {}, "arcee", 0),
        ([HEADS, RELU2], {"rope": None}, "nemotron_h", 0),
        ([HEADS, FEEDFORWARD], {"rope": None}, "granitemoehybrid", 0),
        ([MAMBA2, FEEDFORWARD, HEADS, FEEDFORWARD], {}, "granitemoehybrid", 0),
        # Attention stands in for a mixer, as it is smaller: queries, keys, values, output and norm.
        ([MAMBA2, FEEDFORWARD, FEEDFORWARD, HEADS, FEEDFORWARD], {}, "granitemoehybrid", 48 * 12 * 12 + 48),
        # Without attention there is no generation with a cache: one head of 64.
        ([MAMBA2, RELU2], {}, "nemotron_h", 4 * 48 * 64 + 48),
        ([DELTANET, FEEDFORWARD, NORMED, FEEDFORWARD], {}, "qwen3_5_text", 0),
        ([SHORT_CONV, FEEDFORWARD, NORMED, FEEDFORWARD], {}, "lfm2", 0),
    ],
)
def test_the_class_with_the_fewest_zeros_is_taken(
    layers: list[Any], fields: dict[str, Any], family: str, zeros: int
) -> None:
    held = hold(architecture(layers, **fields))
    assert (held.family, held.zeros) == (family, zeros)
    assert held.class_name == getattr(transformers, held.class_name).__name__


@pytest.mark.parametrize(
    ("layers", "fields", "reason"),
    [
        ([{"operator": "gla", "shape": {"heads": 2, "key_dim": 8, "value_dim": 8}}], {}, "layer 0: no class"),
        (
            [MAMBA2, DELTANET],
            {},
            "layer 1: no class of transformers has gated_deltanet beside mamba2 (layer 0)",
        ),
        (
            [HEADS, FEEDFORWARD, RELU2],
            {},
            "layer 2: no class of transformers has relu2 beside attention (layer 0) and swiglu (layer 1)",
        ),
        (
            [HEADS, {**FEEDFORWARD, "norm": "layernorm"}],
            {},
            "layer 1 (swiglu): norm: the model has layernorm",
        ),
        (
            [HEADS, attention(head_dim=16)],
            {},
            "layer 1 (attention): head_dim: the model has 16, the class 12",
        ),
        (
            [MAMBA2, HEADS, RELU2],
            {},
            "nemotron_h: rope: the model has {'theta': 10000.0}, the class none",
        ),
        (
            [{"operator": "mamba2", "shape": {**MAMBA2["shape"], "heads": 5, "groups": 1}}, FEEDFORWARD],
            {},
            "granitemoehybrid: layer 0 (mamba2): heads x head_dim: the model has 80, "
            "the class whole multiples of the width 48",
        ),
        (
            [DELTANET, NORMED],
            {"norm_eps": 1e-6},
            "qwen3_5_text: norm_eps: the model has 1e-06, the class 1e-05",
        ),
        (
            [{**SHORT_CONV, "shape": {"channels": 36}}, FEEDFORWARD],
            {},
            "lfm2: layer 0 (short_conv): channels: the model has 36, the class 48",
        ),
    ],
)
def test_what_no_class_holds_is_refused_with_the_layer_or_gene(
    layers: list[Any], fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ArchitectureError) as refusal:
        hold(architecture(layers, **fields))
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_prompts_short_steps_are_not_raised_in_nemotron_h(tmp_path: Path) -> None:
    model = random_model(architecture([MAMBA2, HEADS, RELU2], rope=None, tied_embeddings=False))
    held = as_family(model.architecture, "nemotron_h")
    save_held(held, model, tmp_path)
    check_same(opened_by_transformers(tmp_path), model)
    save_held(held, model, tmp_path, time_step_min=0.001)  # the class's own value
    with pytest.raises(AssertionError):
        check_same(opened_by_transformers(tmp_path), model)


def test_converters_know_the_layers_of_granites_hybrids_and_of_nemotron_h() -> None:
    granite = as_family(architecture([MAMBA2, FEEDFORWARD, HEADS, FEEDFORWARD]), "granitemoehybrid").config
    assert granite["layer_types"] == ["mamba", "attention"]
    nemotron = as_family(architecture([MAMBA2, HEADS, RELU2], rope=None), "nemotron_h").config
    assert nemotron["hybrid_override_pattern"] == "M*-"
    assert not [key for key in nemotron if "expert" in key or "moe" in key]


def test_qwen3_5_has_centred_norms_and_gates_of_a_half() -> None:
    model = random_model(architecture([NORMED, FEEDFORWARD], norm_eps=1e-5))
    held, weights = as_family(model.architecture, "qwen3_5_text"), model.state_dict()
    tensors = published_tensors(held, weights)
    layer = "model.layers.0"
    norm = tensors[f"{layer}.input_layernorm.weight"]
    assert torch.equal((1 + norm.double()).float(), weights["layers.0.norm.weight"])
    queries = tensors[f"{layer}.self_attn.q_proj.weight"].view(4, 2, 12, 48)  # of each head, then its gates
    assert torch.equal(queries[:, 0].flatten(0, 1), weights["layers.0.operator.q_proj.weight"])
    assert not queries[:, 1].any()
    output = tensors[f"{layer}.self_attn.o_proj.weight"]
    assert torch.equal(output, 2 * weights["layers.0.operator.o_proj.weight"])
    assert sum(held.config["rope_parameters"]["mrope_section"]) == 6  # pairs of a head
    assert held.config["rope_parameters"]["partial_rotary_factor"] == 1.0


@pytest.mark.parametrize("tied", [True, False])
def test_meta_tokens_and_a_normalized_head_become_plain_weights(tied: bool, tmp_path: Path) -> None:
    model = random_model(
        architecture([HEADS, FEEDFORWARD], meta_tokens=3, normalized_head=True, tied_embeddings=tied)
    )
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    plain, tensors = folded(model.architecture, weights)
    folded_model = HybridLM(plain)
    folded_model.load_state_dict(tensors)
    save_held(hold(plain), folded_model, tmp_path)
    theirs = opened_by_transformers(tmp_path)
    theirs.generation_config.suppress_tokens = [61, 62, 63]
    check_same(theirs, model, before=3)


def changed(key: str, value: Any) -> Callable[[dict[str, Any], dict[str, torch.Tensor]], None]:
    def change(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        config[key] = value

    return change


def with_a_number(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.mlp.up_proj.weight"][1, 2] = 0.5


def with_a_gate(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.self_attn.q_proj.weight"][13] = 0.5


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("llama", changed(PADDING, [4]), "frontrunner_zero_layers: expected some of the numbers from 0 to 3"),
        ("llama", changed(PADDING, [1, 1]), "frontrunner_zero_layers: expected some of the numbers"),
        ("llama", changed(PADDING, True), "frontrunner_zero_layers: expected some of the numbers"),
        ("llama", changed(PADDING, [0, 1, 2, 3]), "frontrunner_zero_layers: expected some of the numbers"),
        ("llama", with_a_number, "frontrunner_zero_layers: expected zeros in layer 1, got others in"),
        ("qwen3_5_text", with_a_gate, "q_proj.weight: expected zeros in the rows of the gates"),
        ("qwen3_5_text", changed("rms_norm_eps", 1e-6), "rms_norm_eps: expected 1e-05, got 1e-06"),
        ("granitemoehybrid", changed("num_local_experts", 8), "num_local_experts: expected 0"),
        (
            "granitemoehybrid",
            changed("embedding_multiplier", 0.0),
            "embedding_multiplier: expected a positive",
        ),
        ("granitemoehybrid", changed("layer_types", ["moe", "mamba"]), "layer_types: expected"),
        ("lfm2", changed("conv_bias", True), "conv_bias: expected False, got True"),
        ("lfm2", changed("layer_types", ["conv"]), "layer_types: expected 2 entries"),
        ("arcee", changed("hidden_act", "silu"), "hidden_act: expected 'relu2', got 'silu'"),
    ],
)
def test_a_folder_that_is_no_such_model_is_refused(
    family: str, change: Callable[..., None], message: str
) -> None:
    qk_norm = "head" if family in ("qwen3_5_text", "lfm2") else "none"
    feedforward = RELU2 if family == "arcee" else FEEDFORWARD
    heads = attention(head_dim=12, qk_norm=qk_norm)
    model = random_model(architecture([heads, heads, feedforward]))
    held = as_family(model.architecture, family)
    config, tensors = json.loads(json.dumps(held.config)), published_tensors(held, model.state_dict())
    change(config, tensors)
    with pytest.raises((ArchitectureError, DataError)) as refusal:
        fitted(describe(config), tensors, where="folder")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
