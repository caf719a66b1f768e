"""Models that `transformers` saves give the same logits when they are imported."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from operators import HybridLM
from operators.published import describe, fitted
from operators.published.safetensors_folder import SafetensorsFolder
from tests.helpers.published_models import (
    CASES,
    EPS,
    TOKENS,
    WIDTH,
    architecture,
    check_logits,
    published_model,
    randomize,
)

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("case", CASES)
def test_a_saved_model_is_the_architecture_and_has_the_logits(case: str, tmp_path: Path) -> None:
    config, ours = CASES[case]()
    theirs = published_model(config)
    theirs.save_pretrained(tmp_path)
    folder = SafetensorsFolder(tmp_path)
    published = describe(folder.config)
    assert published.architecture == ours
    model = HybridLM(ours)
    model.load_state_dict(fitted(published, folder, where=tmp_path))
    check_logits(theirs, model)


@torch.no_grad()
def by_definition(module: Any, x: Tensor, kind: str) -> Tensor:
    """DeltaNet or GLA for x [T, W] by definition, in float64; transformers does not have them."""
    weight = {name: value.double() for name, value in module.named_parameters()}
    shape = module.shape

    def heads(y: Tensor) -> Tensor:
        return y.reshape(len(x), shape.heads, -1)

    out = torch.zeros(len(x), shape.heads, weight["o_norm.weight"].numel(), dtype=torch.float64)
    projected = [x @ weight[f"{name}.weight"].T for name in ("q_proj", "k_proj", "v_proj")]
    if kind == "deltanet":
        mixed, taps = torch.cat(projected, -1), weight["conv.weight"]
        convolved = torch.zeros_like(mixed)
        for t in range(len(x)):
            for back in range(min(t + 1, shape.conv)):
                convolved[t] += taps[:, shape.conv - 1 - back] * mixed[t - back]
        q, k, v = (heads(y) for y in (convolved * convolved.sigmoid()).chunk(3, -1))
        beta = (x @ weight["b_proj.weight"].T).sigmoid()
    else:
        q, k, v = (heads(y) for y in projected)
        low_rank = (
            x @ weight["decay_down_proj.weight"].T @ weight["decay_up_proj.weight"].T
            + weight["decay_up_proj.bias"]
        )
        alpha = heads(low_rank.sigmoid() ** (1 / 16))
    for head in range(shape.heads):
        state = torch.zeros(k.shape[-1], v.shape[-1], dtype=torch.float64)
        for t in range(len(x)):
            q_t, k_t, v_t = q[t, head], k[t, head], v[t, head]
            if kind == "deltanet":
                q_t, k_t = q_t / (q_t.square().sum() + 1e-6).sqrt(), k_t / (k_t.square().sum() + 1e-6).sqrt()
                state = state - beta[t, head] * torch.outer(k_t, k_t @ state - v_t)
            else:
                state = alpha[t, head][:, None] * state + torch.outer(k_t, v_t)
            out[t, head] = state.T @ q_t / len(q_t) ** 0.5
    out = (out / (out.square().mean(-1, keepdim=True) + EPS).sqrt() * weight["o_norm.weight"]).flatten(1)
    if kind == "gla":
        gate = x @ weight["g_proj.weight"].T
        out = out * gate * gate.sigmoid()
    y: Tensor = out @ weight["o_proj.weight"].T
    return y


@pytest.mark.parametrize("kind", ["deltanet", "gla"])
@torch.no_grad()
def test_the_module_equals_its_definition(kind: str) -> None:
    shape = {"deltanet": {"heads": 3, "head_dim": 12}, "gla": {"heads": 3, "key_dim": 8, "value_dim": 14}}[
        kind
    ]
    module: Any = (
        HybridLM(architecture([{"operator": kind, "shape": shape}]), backend="reference").layers[0].operator
    )
    randomize(module)
    x = torch.randn(TOKENS, WIDTH)
    expected = by_definition(module, x.double(), kind)
    assert expected.std() > 0.3
    torch.testing.assert_close(module(x[None])[0].double(), expected, rtol=0, atol=1e-4)
