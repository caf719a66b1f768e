"""Arithmetic of vision-language models against built models, hand computations and PyTorch's FLOP counter."""

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from operators import VisionLanguageModel
from operators.cost import cost
from operators.vision.cost import vision_cost, vision_parameters
from tests.helpers.vision_models import PLACEHOLDER, vision_language

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "swiglu": {"feedforward": "swiglu", "qk_norm": "head", "rope_theta": 10.0, "position_bias": False},
    "relu2": {"feedforward": "relu2", "bias": False, "qk_norm": "full", "position_grid": 3},
    "hybrid": {
        "norms": [{"norm": "layernorm"}, {"norm": "rmsnorm", "norm_position": "after"}],
        "final_norm": "rmsnorm",
    },
    "one matrix": {"projector": {"pixel_shuffle": 4, "bias": False}},
    "three matrices": {"projector": {"hidden": [20, 30], "norm": True}},
    "untied": {"language": {"tied_embeddings": False, "meta_tokens": 2}},
}


@pytest.mark.parametrize("case", CASES)
def test_costs_are_those_of_the_built_model(case: str) -> None:
    value = vision_language(**{"language": {"layers": "a f"}, **CASES[case]})
    model = VisionLanguageModel(value, dtype=torch.bfloat16)
    costs = vision_cost(value, batch=2, text_tokens=3, images=2, dtype=torch.bfloat16)
    parts = {"tower": model.tower, "projector": model.projector, "language": model.language}
    for name, part in parts.items():
        counted = sum(parameter.numel() for parameter in part.parameters())
        assert getattr(costs, f"{name}_params") == counted
    assert costs.params == vision_parameters(value) == sum(p.numel() for p in model.parameters())
    assert costs.param_bytes == sum(parameter.nbytes for parameter in model.parameters())
    assert costs.image_tokens == value.image_tokens
    assert costs.prompt_tokens == 3 + 2 * value.image_tokens


@pytest.mark.parametrize("case", CASES)
def test_flops_of_tower_and_projector_are_those_that_pytorch_counts(case: str) -> None:
    value = vision_language(**CASES[case])
    model, costs = VisionLanguageModel(value), vision_cost(value, batch=3, images=2)
    pixels = torch.randn(6, 3, 16, 16)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        patches = model.tower(
            pixels
        )  # by its definition: the counter does not know the fused kernel of a CPU
    assert counter.get_total_flops() == costs.tower_flops
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.projector(patches)
    assert counter.get_total_flops() == costs.projector_flops


def test_the_language_model_reads_text_and_image_tokens() -> None:
    value = vision_language()
    costs = vision_cost(value, batch=2, text_tokens=3, images=2)
    assert costs.language == cost(value.language, batch=2, context=11)
    assert costs.first_token_flops == costs.tower_flops + costs.projector_flops + costs.language.prefill_flops
    text = vision_cost(value, batch=1, text_tokens=3, images=0)
    assert text.tower_flops == text.projector_flops == 0
    tokens = torch.tensor([[PLACEHOLDER] * 8 + [1, 2, 3]])
    model = VisionLanguageModel(value)
    with torch.no_grad():
        assert model(tokens, torch.zeros(2, 3, 16, 16)).shape == (1, costs.prompt_tokens, 50)


def test_a_tower_by_hand() -> None:
    value = vision_language(width=8, heads=2, hidden=16, depth=1, projector={"pixel_shuffle": 2})
    # 48 values of a patch and a bias, 16 positions, four matrices and two with biases, three LayerNorms.
    tower = (48 + 1) * 8 + 16 * 8 + 4 * (8 * 8 + 8) + (8 * 16 + 16) + (16 * 8 + 8) + 3 * 16
    assert vision_cost(value).tower_params == tower
    assert vision_cost(value).projector_params == (4 * 8 + 1) * 32
