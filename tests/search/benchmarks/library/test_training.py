"""Models whose training is compared: as large as they should be, and the same as the other library's."""

from pathlib import Path

import pytest
import torch

from operators import Architecture, HybridLM
from operators.cost import parameters
from search.benchmarks.library.training import SIZES, cases

CASES = {case.name: case for case in cases(SIZES["cuda"])}


@pytest.mark.parametrize("name", CASES)
def test_the_models_have_about_500_million_parameters(name: str) -> None:
    assert parameters(CASES[name].architecture) == pytest.approx(500e6, rel=0.05)


def test_the_layers_are_those_of_the_shipped_nemotron_flash() -> None:
    shipped = Architecture.from_yaml(Path("configs/architectures/nemotron-flash-1b.yaml").read_text())
    assert CASES["nemotron_flash"].architecture.shorthand == shipped.shorthand


def test_the_llama_is_that_of_transformers() -> None:
    """The same forward with the same weights, at the small size."""
    case = {case.name: case for case in cases(SIZES["cpu"])}["llama"]
    theirs, ours = case.rival(case.architecture), HybridLM(case.architecture)
    assert sum(weight.numel() for weight in theirs.parameters()) == parameters(case.architecture)
    named = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, weight in ours.named_parameters():
            weight.copy_(named[transformers_name(name)])
    tokens = torch.randint(512, (2, 40), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-5)


def transformers_name(name: str) -> str:
    """`layers.3.norm.weight` -> `model.layers.1.post_attention_layernorm.weight`."""
    surroundings = {
        "embedding.weight": "model.embed_tokens.weight",
        "norm.weight": "model.norm.weight",
        "head.weight": "lm_head.weight",
    }
    if name in surroundings:
        return surroundings[name]
    _, number, part = name.split(".", 2)
    block, inside = divmod(int(number), 2)
    operator, norm = (("self_attn", "input_layernorm"), ("mlp", "post_attention_layernorm"))[inside]
    return f"model.layers.{block}.{part.replace('operator', operator).replace('norm', norm)}"
