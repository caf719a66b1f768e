"""Every key of a config.json is mapped, changes nothing in `transformers`, or is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from operators import HybridLM
from operators.base.errors import ArchitectureError, DataError, FrontrunnerError
from operators.published import describe, fitted, remark_on_steps
from operators.published.json_file import read_mapping
from operators.published.keys import FAMILY_WITHOUT_EFFECT, WITHOUT_EFFECT
from tests.helpers.published_models import CASES, VOCABULARY, published_model
from tests.helpers.without_kernels import plain_definitions

transformers = pytest.importorskip("transformers")

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
}
TOKENS = torch.randint(VOCABULARY, (1, 24), generator=torch.Generator().manual_seed(1))

# Keys of other families, and keys with which transformers changes the logits of a model of any family.
FOREIGN: dict[str, Any] = {
    "is_causal": False,
    "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 5.0,
    "residual_multiplier": 0.5,
    "embedding_multiplier": 12.0,
    "logits_scaling": 8.0,
    "attention_multiplier": 0.1,
    "mup_enabled": True,
    "attention_chunk_size": 4,
    "sliding_window": 4,
    "use_sliding_window": True,
    "use_bidirectional_attention": True,
    "query_pre_attn_scalar": 64,
    "rope_interleaved": True,
    "use_mrope": True,
    "no_rope_layers": [1, 0],
    "partial_rotary_factor": 0.5,
    "original_max_position_embeddings": 8,
    "num_experts": 4,
    "per_layer_config": {"1": {"num_key_value_heads": 4}},
    "text_config": {"hidden_size": 64},
    "quantization_config": {"quant_method": "fp8"},
    "quantization": {"bits": 4},
    "transformers_weights": "other.safetensors",
    "head_dim": 20,
    "attention_head_dim": 20,
    "hidden_activation": "gelu",
    "rms_norm_eps": 0.5,
    "architectures": ["LlamaForSequenceClassification"],
    "auto_map": {"AutoModelForCausalLM": "modeling.OtherForCausalLM"},
}


def mutations(key: str, value: Any) -> list[Any]:
    """Other values of a key, of the same kind."""
    if isinstance(value, bool):
        return [not value, None, int(value)]
    if isinstance(value, int):
        return [value * 2 + 2, float(value), None]
    if isinstance(value, float):
        return [value * 3 + 0.25, None]
    if isinstance(value, str):
        return ["relu" if "act" in key else "other", None]
    if isinstance(value, list):
        return [value[::-1], value[:-1], None]
    if isinstance(value, dict):
        return [
            *({**value, inner: other} for inner in value for other in mutations(inner, value[inner])),
            {**value, "attention_factor": 2.0},
            {inner: value[inner] for inner in list(value)[1:]},
        ]
    return [1, True, "other", [1], {"factor": 2.0}]


class Family:
    """A tiny model of `transformers`: its weights are read again with other contents of config.json."""

    def __init__(self, case: str, folder: Path) -> None:
        model = published_model(CASES[case]()[0])
        # Large steps and epsilons show in the logits. So does attention with large matrices, as it is uneven.
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "q_proj" in name or "k_proj" in name:
                    parameter.mul_(3)
        model.save_pretrained(folder / "model")
        self.folder = folder
        self.config = json.loads((folder / "model" / "config.json").read_text())
        self.state, self.weights = model.state_dict(), load_file(folder / "model" / "model.safetensors")

    @torch.no_grad()
    def ours(self, config: dict[str, Any]) -> tuple[Tensor, str | None]:
        """Logits, and the remark for the user."""
        published = describe(config)
        model = HybridLM(published.architecture, backend="reference")
        weights = fitted(published, self.weights, where="model")
        model.load_state_dict(weights)
        return model(TOKENS), remark_on_steps(published, weights)

    @torch.no_grad()
    def theirs(self, config: dict[str, Any]) -> Tensor | None:
        """Logits, or None where `transformers` refuses the configuration or does not find all weights."""
        folder = self.folder / "config"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        try:
            with plain_definitions():
                read = transformers.AutoConfig.from_pretrained(folder)
                model = transformers.AutoModelForCausalLM.from_config(
                    read, attn_implementation="eager"
                ).eval()
            model.load_state_dict(self.state)
            return model(TOKENS, use_cache=False).logits
        except Exception:  # any exception means that it does not read this configuration
            return None


@pytest.fixture(scope="module")
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    torch.manual_seed(0)
    return Family(FAMILIES[request.param], tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
def test_every_key_with_another_value_is_refused_or_means_what_it_means_there(family: Family) -> None:
    logits, remark = family.ours(family.config)
    torch.testing.assert_close(logits, family.theirs(family.config), rtol=0, atol=1e-4)
    assert remark is None
    changed = [
        {**family.config, key: value}
        for key in family.config
        for value in mutations(key, family.config[key])
        if value != family.config[key] or type(value) is not type(family.config[key])
    ]
    changed += [{**family.config, key: value} for key, value in FOREIGN.items()]
    changed += [{key: value for key, value in family.config.items() if key != gone} for gone in family.config]
    refused = read = 0
    for config in changed:
        differs = {key: config.get(key, "gone") for key in {**family.config, **config}}
        differs = {key: value for key, value in differs.items() if value != family.config.get(key, "gone")}
        try:
            ours, remark = family.ours(config)
        except FrontrunnerError as error:
            refused += 1
            named = str(error)
            if isinstance(error, ArchitectureError):
                assert named.startswith("config.json: ")
            assert "\n" not in named
            continue
        read += 1
        theirs = family.theirs(config)
        if theirs is None:  # transformers refuses another type, even of a key that it does not use
            inert = (
                WITHOUT_EFFECT
                | FAMILY_WITHOUT_EFFECT[config["model_type"]]
                | {"max_window_layers", "sliding_window"}
            )
            assert differs.keys() <= inert, f"transformers does not read {differs}, we do"
            continue
        difference = (ours - theirs).abs().max()
        if differs.keys() == {"time_step_min"} and difference > 1e-4:
            assert remark is not None
            assert "raises shorter steps" in remark
            continue
        assert difference < 1e-4, f"logits differ by {difference:.2g} with {differs}"
    assert refused > 40
    assert read > 20


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
