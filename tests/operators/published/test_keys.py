"""Every key of a config.json is mapped, changes nothing in `transformers`, or is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from operators import HybridLM
from operators.base.errors import ArchitectureError, FrontrunnerError
from operators.published import describe, fitted, remark_on_steps
from operators.published.keys import FAMILY_WITHOUT_EFFECT, WITHOUT_EFFECT
from tests.helpers.published_models import CASES, FAMILIES, VOCABULARY, published_model
from tests.helpers.without_kernels import plain_definitions

transformers = pytest.importorskip("transformers")

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
        self.folder, self.read = folder, None
        self.config = json.loads((folder / "model" / "config.json").read_text())
        self.state, self.weights = model.state_dict(), load_file(folder / "model" / "model.safetensors")

    @torch.no_grad()
    def ours(self, config: dict[str, Any]) -> tuple[Tensor, str | None]:
        """Logits, and the remark for the user."""
        published = describe(config)
        weights = fitted(published, self.weights, where="model")
        remark = remark_on_steps(published, weights)
        if published != self.read:  # most keys have no effect: the model is the one of before
            self.read, self.model = published, HybridLM(published.architecture, backend="reference")
        self.model.load_state_dict(weights)
        return self.model(TOKENS), remark

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
