"""Vision-language models of transformers with random weights give the same values here; published sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from operators import VisionLanguage, VisionLanguageModel
from operators.base import shipped
from operators.base.errors import ArchitectureError, DataError
from operators.published.vision_families import describe_vision, fitted_vision
from operators.vision.cost import vision_cost, vision_parameters
from operators.vision.tower import Tower
from operators.vision.vision_language import VisionTower
from tests.helpers.vision_models import drawn
from tests.helpers.without_kernels import plain_definitions

transformers = pytest.importorskip("transformers")

SPECIAL = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
TEXT = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    **SPECIAL,
}
TOWER = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "patch_size": 4,
}
LFM2 = {
    "conv_L_cache": 3,
    "layer_types": ["conv", "full_attention"],
    "intermediate_size": 48,
    "block_auto_adjust_ff_dim": False,
}


def lfm2_vl(**changes: Any) -> Any:
    """Positions are a grid of 5 × 5, images have up to 32 × 32 patches."""
    return transformers.Lfm2VlConfig(
        vision_config={
            "model_type": "siglip2_vision_model",
            "vision_use_head": False,
            "num_patches": 25,
            **TOWER,
        },
        text_config={"model_type": "lfm2", **TEXT, **LFM2},
        **{"projector_hidden_size": 44, "image_token_id": 7, **changes},
    )


def smolvlm(**changes: Any) -> Any:
    return transformers.SmolVLMConfig(
        vision_config={"image_size": 16, **TOWER},
        text_config={"model_type": "llama", "intermediate_size": 48, "rms_norm_eps": 1e-5, **TEXT},
        **{"scale_factor": 2, "image_token_id": 7, "tie_word_embeddings": False, **changes},
    )


def built(config: Any) -> Any:
    with plain_definitions():
        return drawn(transformers.AutoModelForImageTextToText.from_config(config).eval())


def ours_of(theirs: Any, folder: Path) -> VisionLanguageModel:
    """Our model with their weights, by the tensors that they save."""
    from operators.published.safetensors_folder import SafetensorsFolder

    theirs.save_pretrained(folder)
    saved = SafetensorsFolder(folder)
    published = describe_vision(saved.config)
    model = VisionLanguageModel(published.value, backend="reference")
    model.load_state_dict(fitted_vision(published, saved, where=folder))
    return model.eval()


def patched(pixels: torch.Tensor) -> torch.Tensor:
    """An image [3, H, W] as SigLIP 2 takes it: patches row by row, the colours of a pixel side by side."""
    colours, height, width = pixels.shape
    split = pixels.reshape(colours, height // 4, 4, width // 4, 4)
    return split.permute(1, 3, 2, 4, 0).reshape(height // 4 * (width // 4), 48)


@torch.no_grad()
@pytest.mark.parametrize("change", [{}, {"projector_use_layernorm": False, "projector_bias": False}])
def test_a_whole_lfm2_vl_with_images_of_two_sizes(change: dict[str, Any], tmp_path: Path) -> None:
    theirs = built(lfm2_vl(**change))
    ours = ours_of(theirs, tmp_path)
    small, wide = torch.randn(3, 16, 16), torch.randn(3, 8, 24)
    tokens = torch.tensor([[1, *[7] * 4, 2, 3, *[7] * 3, 4, 9]])
    pixels, mask = torch.zeros(2, 16, 48), torch.zeros(2, 16, dtype=torch.int64)
    for row, image in enumerate((small, wide)):
        patches = patched(image)
        pixels[row, : len(patches)], mask[row, : len(patches)] = patches, 1
    expected = theirs(
        input_ids=tokens,
        pixel_values=pixels,
        pixel_attention_mask=mask,
        spatial_shapes=torch.tensor([[4, 4], [2, 6]]),
    ).logits
    assert expected.std() > 0.3, "logits too small for the tolerance to mean anything"
    torch.testing.assert_close(ours(tokens, [small, wide]), expected, rtol=0, atol=1e-4)
    text = torch.tensor([[1, 2, 3, 4]])
    torch.testing.assert_close(ours(text), theirs(input_ids=text).logits, rtol=0, atol=1e-4)
    features = theirs.model.get_image_features(pixels, torch.tensor([[4, 4], [2, 6]]), mask).pooler_output
    for image, tokens_of_image in zip((small, wide), features, strict=True):
        torch.testing.assert_close(ours.image_tokens(image[None])[0], tokens_of_image, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_a_whole_smolvlm_with_two_images(tied: bool, tmp_path: Path) -> None:
    theirs = built(smolvlm(tie_word_embeddings=tied))
    ours = ours_of(theirs, tmp_path)
    assert ours.value.language.tied_embeddings is tied
    images = torch.randn(2, 3, 16, 16)
    tokens = torch.tensor([[1, *[7] * 4, 2, *[7] * 4, 4, 9]])
    expected = theirs(input_ids=tokens, pixel_values=images[None]).logits
    assert expected.std() > 0.3, "logits too small for the tolerance to mean anything"
    torch.testing.assert_close(ours(tokens, images), expected, rtol=0, atol=1e-4)
    written = theirs.generate(
        input_ids=tokens, pixel_values=images[None], max_new_tokens=5, do_sample=False, eos_token_id=None
    )
    assert ours.generate(tokens[0].tolist(), 5, images=images) == written[0].tolist()


@torch.no_grad()
def test_the_tower_rotates_as_qwen2_vl_does() -> None:
    """Rows turn one half of a head and columns the other, by the definition of Qwen2-VL's tower."""
    from transformers.models.qwen2_vl import modeling_qwen2_vl as qwen2_vl

    value = VisionTower(image_size=24, patch_size=4, width=24, depth=1, heads=3, hidden=8, rope_theta=10_000)
    module = drawn(Tower(value)).blocks[0].attention
    config = qwen2_vl.Qwen2VLVisionConfig(embed_dim=24, num_heads=3)
    config._attn_implementation = "eager"
    theirs = qwen2_vl.VisionAttention(config)
    projections = (module.q_proj, module.k_proj, module.v_proj)
    theirs.qkv.weight.copy_(torch.cat([each.weight for each in projections]))
    theirs.qkv.bias.copy_(torch.cat([each.bias for each in projections]))
    theirs.proj.load_state_dict(module.o_proj.state_dict())
    x = torch.randn(12, 24)
    places = torch.cartesian_prod(
        torch.arange(3), torch.arange(4)
    ).float()  # rows and columns of 3 × 4 patches
    each = 10_000.0 ** (-torch.arange(2) / 2)
    half = (places[:, :, None] * each).flatten(1)
    whole = torch.cat([half, half], -1)
    expected = theirs(x, torch.tensor([0, 12]), position_embeddings=(whole.cos(), whole.sin()))
    turn = Tower(value).turn(3, 4, torch.device("cpu"))
    torch.testing.assert_close(module(x[None], turn)[0], expected, rtol=0, atol=1e-5)
    assert not torch.allclose(module(x[None], None)[0], expected, atol=1e-2)


@torch.no_grad()
def test_normalization_after_and_qk_norm_by_definition() -> None:
    """The parts of Shakti's tower that no class of transformers has, in float64."""
    value = VisionTower.model_validate(
        {
            **{"image_size": 8, "patch_size": 4, "width": 24, "depth": 1, "heads": 3, "hidden": 40},
            "norms": {"norm": "rmsnorm", "norm_position": "after"},
            "qk_norm": "head",
            "feedforward": "swiglu",
        }
    )
    block = drawn(Tower(value)).blocks[0]
    weight = {name: tensor.double() for name, tensor in block.state_dict().items()}

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ weight[f"{name}.weight"].T + weight[f"{name}.bias"]

    def rms(x: torch.Tensor, name: str) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight[f"{name}.weight"]

    x = torch.randn(4, 24)
    y = x.double()
    q, k, v = (linear(y, f"attention.{name}_proj").unflatten(-1, (3, 8)) for name in "qkv")
    q, k = rms(q, "attention.q_norm"), rms(k, "attention.k_norm")
    seen = (torch.einsum("phd,shd->hps", q, k) / 8**0.5).softmax(-1)
    attended = torch.einsum("hps,shd->phd", seen, v).flatten(1)
    y = y + rms(linear(attended, "attention.o_proj"), "attention_norm")
    gate = linear(y, "feedforward.gate_proj")
    inner = linear(gate * gate.sigmoid() * linear(y, "feedforward.up_proj"), "feedforward.down_proj")
    y = y + rms(inner, "feedforward_norm")
    torch.testing.assert_close(block(x[None], None)[0].double(), y, rtol=0, atol=1e-4)


EXACT = {"smolvlm-256m": 256_484_928, "lfm2-vl-450m": 450_822_656, "nanovlm-222m": 222_081_600}
BILLIONS = {"shakti-vlm-1b": (1.0, 0.5), "shakti-vlm-4b": (4.0, 2.5)}
BASE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 16,
}
SMOLLM2 = {
    **{"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3},
    **{"intermediate_size": 1536, "rms_norm_eps": 1e-5, **SPECIAL},
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e5},
}


def published_configs() -> dict[str, Any]:
    attention = (2, 5, 8, 10, 12, 14)
    kinds = ["full_attention" if block in attention else "conv" for block in range(16)]
    lfm2 = {
        **{"hidden_size": 1024, "num_hidden_layers": 16, "vocab_size": 65_536, "intermediate_size": 6656},
        **{"num_attention_heads": 16, "num_key_value_heads": 8, "conv_L_cache": 3, "layer_types": kinds},
        **{"block_multiple_of": 256, "block_ffn_dim_multiplier": 1.0, **SPECIAL},
    }
    return {
        "smolvlm-256m": transformers.SmolVLMConfig(
            vision_config={**BASE, "image_size": 512},
            text_config={"model_type": "llama", "vocab_size": 49_280, **SMOLLM2},
            scale_factor=4,
            image_token_id=49_190,
            tie_word_embeddings=False,
        ),
        "lfm2-vl-450m": transformers.Lfm2VlConfig(
            vision_config={"model_type": "siglip2_vision_model", "vision_use_head": False, **BASE},
            text_config={"model_type": "lfm2", **lfm2},
            projector_hidden_size=2560,
        ),
    }


@pytest.mark.parametrize("name", ["smolvlm-256m", "lfm2-vl-450m"])
def test_a_published_model_is_that_of_its_configuration(name: str) -> None:
    value, config = VisionLanguage.load(name), published_configs()[name]
    with torch.device("meta"), plain_definitions():
        theirs = transformers.AutoModelForImageTextToText.from_config(config)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == EXACT[name]
    assert vision_parameters(value) == EXACT[name]
    assert describe_vision(config.to_dict(), name=name).value == value


def test_a_nanovlm_has_the_parameters_of_its_parts() -> None:
    """transformers has no class of nanoVLM: a SigLIP tower, one matrix without bias, and SmolLM2."""
    tower = transformers.SiglipVisionConfig(**BASE, image_size=224, vision_use_head=False)
    language = transformers.LlamaConfig(**SMOLLM2, vocab_size=49_152, tie_word_embeddings=True)
    with torch.device("meta"), plain_definitions():
        parts = [transformers.SiglipVisionModel(tower), transformers.LlamaForCausalLM(language)]
    counted = sum(parameter.numel() for part in parts for parameter in part.parameters())
    assert counted + 4 * 768 * 576 == EXACT["nanovlm-222m"]
    assert vision_parameters(VisionLanguage.load("nanovlm-222m")) == EXACT["nanovlm-222m"]


@pytest.mark.parametrize("name", BILLIONS)
def test_shakti_has_about_the_size_of_the_paper(name: str) -> None:
    value = VisionLanguage.load(name)
    whole, language = BILLIONS[name]
    costs = vision_cost(value)
    assert costs.params / 1e9 == pytest.approx(whole, rel=0.03)
    assert costs.language_params / 1e9 == pytest.approx(language, rel=0.03)
    kinds = [(norm.norm, norm.norm_position) for norm in value.tower.norms]
    before = {"shakti-vlm-1b": 12, "shakti-vlm-4b": 18}[name]
    assert kinds[:before] == [("layernorm", "before")] * before
    assert set(kinds[before:]) == {("rmsnorm", "after")}


def test_every_shipped_model_is_tested_here() -> None:
    names = shipped.names("vision-language model")
    assert set(names) == {*EXACT, *BILLIONS}
    assert all(VisionLanguage.load(name).name == name for name in names)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "llava"}, "model_type: expected one of lfm2_vl, smolvlm, idefics3, got 'llava'"),
        (
            {"model_type": ["lfm2_vl"]},
            "model_type: expected one of lfm2_vl, smolvlm, idefics3, got ['lfm2_vl']",
        ),
        ({"projector_hidden_act": "relu"}, "projector_hidden_act: expected 'gelu', got 'relu'"),
        ({"downsample_factor": 3}, "projector.pixel_shuffle: expected 1, 2 or 4, got 3"),
        ({"image_token_id": 61}, "image_token: expected an id below language.vocabulary, 61, got 61"),
        ({"extra_norm": True}, "extra_norm: expected a key that is known for lfm2_vl, got True"),
        (
            {"vision_config": {"hidden_act": "relu"}},
            "vision_config: hidden_act: expected 'gelu_pytorch_tanh'",
        ),
        ({"vision_config": {"num_patches": 26}}, "vision_config: num_patches: expected a square, got 26"),
        ({"text_config": {"model_type": "bert"}}, "text_config: model_type: expected one of"),
    ],
)
def test_a_configuration_that_we_cannot_express_is_refused(change: dict[str, Any], says: str) -> None:
    config = lfm2_vl().to_dict()
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    with pytest.raises(ArchitectureError) as caught:
        describe_vision(config)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tensors_that_do_not_fit_are_named() -> None:
    theirs = built(lfm2_vl())
    published, tensors = describe_vision(theirs.config.to_dict()), dict(theirs.state_dict())
    norm = "model.vision_tower.post_layernorm.weight"
    for change, says in (
        (
            {"model.vision_tower.encoder.extra.weight": torch.zeros(1)},
            "that the model does not have: .*extra",
        ),
        ({norm: torch.zeros(3)}, r"post_layernorm\.weight: expected shape \(24,\), got \(3,\)"),
    ):
        with pytest.raises(DataError, match=says):
            fitted_vision(published, {**tensors, **change}, where="folder")
    with pytest.raises(DataError, match=f"folder: missing weights: {norm}, 1 in all"):
        fitted_vision(published, {key: t for key, t in tensors.items() if key != norm}, where="folder")
