"""Importing published models: what does not fit is refused, in one line that names it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from operators import Rope
from operators.base.errors import ArchitectureError, DataError
from operators.published import describe, fitted
from operators.published.safetensors_folder import SafetensorsFolder
from tests.helpers.published_models import CASES, published_model

transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")


def config_of(case: str, **changes: Any) -> dict[str, Any]:
    """The config.json that transformers writes, with changes; None removes a key."""
    config = {**json.loads(CASES[case]()[0].to_json_string(use_diff=False)), **changes}
    return {key: value for key, value in config.items() if key not in changes or value is not None}


def import_folder(folder: Path) -> dict[str, Tensor]:
    tensors = SafetensorsFolder(folder)
    return fitted(describe(tensors.config, where=str(folder / "config.json")), tensors, where=folder)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "another family": (
        "llama",
        {"model_type": "gemma3"},
        "model_type: expected one of llama, qwen2, qwen3, arcee, mamba2, nemotron_h, granitemoehybrid, ",
    ),
    "no family": ("llama", {"model_type": None}, "model_type: expected one of llama"),
    "biases in attention": ("llama", {"attention_bias": True}, "attention_bias: expected False, got True"),
    "biases in qwen3": ("qwen3", {"attention_bias": True}, "attention_bias: expected False, got True"),
    "biases in the network": ("llama", {"mlp_bias": True}, "mlp_bias: expected False, got True"),
    "another activation": (
        "qwen2",
        {"hidden_act": "gelu"},
        "hidden_act: expected 'silu' or 'swish', got 'gelu'",
    ),
    "another rotation": (
        "llama",
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
        "rope_type: expected default or llama3, got 'yarn'",
    ),
    "another rotation, as before transformers 5": (
        "llama",
        {"rope_parameters": None, "rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}},
        "rope_scaling: rope_type: expected default or llama3, got 'linear'",
    ),
    "a stretch without its factor": (
        "llama",
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}},
        "factor: missing",
    ),
    "a rotation by kind of layer": (
        "llama",
        {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}},
        "expected one rotation for all layers, got one each for full_attention",
    ),
    "part of a head rotated": (
        "llama",
        {"partial_rotary_factor": 0.5},
        "partial_rotary_factor: expected 1.0, got 0.5",
    ),
    "another kind of attention": (
        "qwen2",
        {"layer_types": ["full_attention", "chunked_attention"]},
        "got 'chunked_attention'",
    ),
    "kinds for other layers": (
        "qwen2",
        {"layer_types": ["full_attention"]},
        "layer_types: expected 2 entries",
    ),
    "sliding without leave": (
        "qwen2",
        {"layer_types": ["full_attention", "sliding_attention"]},
        "use_sliding_window: expected true",
    ),
    "heads that do not group": (
        "llama",
        {"num_key_value_heads": 3},
        "expected heads to be a multiple of kv_heads, got heads 4 and kv_heads 3",
    ),
    "a size missing": ("llama", {"hidden_size": None}, "hidden_size: missing"),
    "a size that is none": (
        "llama",
        {"num_hidden_layers": "two"},
        "num_hidden_layers: expected a whole number from 1 to 1024, got 'two'",
    ),
    "a flag that is none": (
        "llama",
        {"tie_word_embeddings": "yes"},
        "tie_word_embeddings: expected true or false, got 'yes'",
    ),
    "quantized": (
        "llama",
        {"quantization_config": {"quant_method": "awq"}},
        "quantization_config: expected weights that are not quantized",
    ),
    "no bias in the convolution": (
        "mamba2",
        {"use_conv_bias": False},
        "use_conv_bias: expected True, got False",
    ),
    "biases in mamba2": ("mamba2", {"use_bias": True}, "use_bias: expected False, got True"),
    "limited steps": ("mamba2", {"time_step_limit": [0.001, 0.1]}, "time_step_limit: expected no limit"),
    "limits of another kind": ("mamba2", {"time_step_limit": 3}, "time_step_limit: expected no limit"),
    "experts": (
        "nemotron_h",
        {"layers_block_type": ["linear_attention", "moe"]},
        "layers_block_type.1: expected linear_attention (M)",
    ),
    "experts, as a pattern": (
        "nemotron_h",
        {"layers_block_type": None, "hybrid_override_pattern": "M-E"},
        "hybrid_override_pattern.2",
    ),
    "no kinds": (
        "nemotron_h",
        {"layers_block_type": None},
        "layers_block_type: expected a list of names, got None",
    ),
    "a window in nemotron_h": (
        "nemotron_h",
        {"sliding_window": 512},
        "sliding_window: expected none, got 512",
    ),
    "another network": (
        "nemotron_h",
        {"mlp_hidden_act": "silu"},
        "mlp_hidden_act: expected 'relu2', got 'silu'",
    ),
    "more value heads": (
        "olmo_hybrid",
        {"linear_num_value_heads": 8},
        "linear_num_value_heads: expected 4, as many as",
    ),
    "another mixer": (
        "olmo_hybrid",
        {"layer_types": ["linear_attention", "moe"]},
        "layer_types.1: expected linear_attention or",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_configuration_that_cannot_be_expressed_is_refused(case: str) -> None:
    family, changes, says = REFUSED[case]
    with pytest.raises(ArchitectureError) as caught:
        describe(config_of(family, **changes), where="config.json")
    message = str(caught.value)
    assert message.startswith("config.json: ")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3-sliding", "mamba2", "nemotron_h", "olmo_hybrid"])
def test_any_value_of_any_key_is_understood_or_refused_in_one_line(family: str) -> None:
    whole = config_of(family)
    refused = []
    for key in [*whole, "rope_scaling", "rope_theta", "partial_rotary_factor"]:
        for value in (None, "x", -1, 0, 1.5, 10**30, float("nan"), [], [[]], {}, {"a": []}, True):
            try:
                describe({**whole, key: value}, where="config.json")
            except ArchitectureError as error:
                refused.append(str(error))
    assert len(refused) > 50
    assert all(message.startswith("config.json: ") and "\n" not in message for message in refused)


def test_older_spellings_mean_the_same() -> None:
    _, llama = CASES["llama"]()
    old = config_of("llama", rope_parameters=None, rope_theta=5000.0, rope_scaling=None, head_dim=None)
    assert describe(old).architecture == llama
    _, stretched = CASES["llama-stretched"]()
    scaling = {
        "type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    assert (
        describe(
            config_of("llama-stretched", rope_parameters=None, rope_theta=100.0, rope_scaling=scaling)
        ).architecture
        == stretched
    )
    _, nemotron = CASES["nemotron_h"]()
    pattern = {
        "layers_block_type": None,
        "hybrid_override_pattern": "M-M*-",
        "n_groups": None,
        "mamba_n_groups": 2,
    }
    assert describe(config_of("nemotron_h", **pattern)).architecture == nemotron
    without = config_of("olmo_hybrid", rope_parameters=None)
    assert describe(without).architecture.rope == Rope()
    assert describe({**without, "rope_theta": None}).architecture.rope is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny Llama as transformers saves it, embeddings tied."""
    published_model(CASES["llama-tied"]()[0]).save_pretrained(tmp_path)
    return tmp_path


def change(folder: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors")


NORM, QUERY = "model.norm.weight", "model.layers.1.self_attn.q_proj.weight"
MISFITS: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "missing": (lambda weights: (weights.pop(NORM), weights.pop(QUERY)), f"missing weights: {QUERY}, {NORM}"),
    "extra": (
        lambda weights: weights.update({f"model.layers.{n}.x": torch.ones(1) for n in range(5)}),
        "weights that the architecture does not have: "
        "model.layers.0.x, model.layers.1.x, model.layers.2.x and 2 more",
    ),
    "a layer more": (
        lambda weights: weights.update({"model.layers.2.mlp.up_proj.weight": torch.ones(80, 48)}),
        "weights that the architecture does not have: model.layers.2.mlp.up_proj.weight",
    ),
    "transposed": (
        lambda weights: weights.update({"model.layers.0.mlp.up_proj.weight": torch.ones(48, 80)}),
        "model.layers.0.mlp.up_proj.weight: expected shape (80, 48), got (48, 80)",
    ),
    "a scalar": (
        lambda weights: weights.update({NORM: torch.tensor(1.0)}),
        f"{NORM}: expected shape (48,), got ()",
    ),
    "a head of its own": (
        lambda weights: weights.update({"lm_head.weight": torch.ones(61, 48)}),
        "lm_head.weight: expected the same values as model.embed_tokens.weight or none, "
        "as tie_word_embeddings is true",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_weights_that_do_not_fit_are_named(case: str, folder: Path) -> None:
    edit, says = MISFITS[case]
    change(folder, edit)
    with pytest.raises(DataError) as caught:
        import_folder(folder)
    assert str(caught.value).startswith(str(folder))
    assert says in str(caught.value)


def test_convolutions_in_parts_are_joined_only_if_every_part_fits(tmp_path: Path) -> None:
    published_model(CASES["olmo_hybrid"]()[0]).save_pretrained(tmp_path)
    name = "model.layers.0.linear_attn.{}_conv1d.weight"
    weights = load_file(tmp_path / "model.safetensors")
    joined = import_folder(tmp_path)["layers.0.operator.conv.weight"]
    assert torch.equal(joined, torch.cat([weights[name.format(part)].squeeze(1) for part in "qkv"]))
    change(
        tmp_path,
        lambda weights: weights.update(
            {name.format("k"): torch.ones(*weights[name.format("k")].shape[:2], 5)}
        ),
    )
    with pytest.raises(DataError, match=r"k_conv1d.*expected shape \(152, 4\), got .* and \(\d+, 5\) and "):
        import_folder(tmp_path)


def test_a_head_that_repeats_the_embeddings_and_frequencies_are_passed_over(folder: Path) -> None:
    plain = import_folder(folder)
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": 5000.0 ** -(torch.arange(6) / 6)}
    change(
        folder,
        lambda weights: weights.update(
            {"lm_head.weight": weights["model.embed_tokens.weight"].clone(), **extra}
        ),
    )
    again = import_folder(folder)
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_weights_keep_their_dtype(folder: Path) -> None:
    change(
        folder, lambda weights: weights.update({name: tensor.bfloat16() for name, tensor in weights.items()})
    )
    assert {tensor.dtype for tensor in import_folder(folder).values()} == {torch.bfloat16}


def test_shards_are_one_model(tmp_path: Path) -> None:
    theirs = published_model(CASES["llama"]()[0])
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    whole, shards = import_folder(tmp_path / "whole"), import_folder(tmp_path / "shards")
    assert whole.keys() == shards.keys()
    assert all(torch.equal(whole[name], shards[name]) for name in whole)

    index = tmp_path / "shards" / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    for broken, says in (
        (
            {**weight_map, QUERY: "../whole/model.safetensors"},
            "names ../whole/model.safetensors, which is not a file in that folder",
        ),
        ({**weight_map, QUERY: "absent.safetensors"}, "names absent.safetensors"),
        (
            {**weight_map, QUERY: weight_map["lm_head.weight"]},
            f"{QUERY} is not in {weight_map['lm_head.weight']}, where this index puts it",
        ),
        ({QUERY: 5}, "expected weight_map, a mapping from tensors to files"),
    ):
        index.write_text(json.dumps({"weight_map": broken}))
        with pytest.raises(DataError) as caught:
            import_folder(tmp_path / "shards")
        assert says in str(caught.value)


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def pickled(folder: Path) -> None:
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def cut(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (without_config, "config.json: cannot be read: No such file"),
    "config is text": (
        lambda folder: (folder / "config.json").write_text("model_type: llama"),
        "config.json: not JSON",
    ),
    "config is a list": (
        lambda folder: (folder / "config.json").write_text("[]"),
        "config.json: expected a mapping, got list",
    ),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "expected model.safetensors or model.safetensors.index.json, found neither",
    ),
    "pickled weights": (
        pickled,
        "found pytorch_model.bin: pickled weights are not read, because they can run code",
    ),
    "cut short": (cut, "model.safetensors: not a safetensors file"),
    "other bytes": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x04pickle?"),
        "not a safetensors file",
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_is_incomplete_or_damaged_is_named(case: str, folder: Path) -> None:
    damage, says = FOLDERS[case]
    damage(folder)
    with pytest.raises(DataError) as caught:
        import_folder(folder)
    assert str(caught.value).startswith(str(folder))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
