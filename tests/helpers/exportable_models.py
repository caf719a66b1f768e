"""Random small members of what each class of transformers holds, and the comparison with the class."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from operators import Architecture, HybridLM
from operators.published.families import FAMILIES
from operators.published.held import Held
from operators.published.outward import published_tensors
from tests.helpers.published_models import VOCABULARY, WIDTH, randomize
from tests.helpers.without_kernels import plain_definitions

transformers = pytest.importorskip("transformers")

PROMPT, NEW = 37, 27  # together 64 tokens
NO_SPECIAL_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
QK_NORM = {
    "qwen3": "head",
    "qwen3_5_text": "head",
    "qwen3_next": "head",
    "lfm2": "head",
    "olmo_hybrid": "full",
}
UNROTATED = {
    "mamba2": (True,),
    "kimi_linear": (True,),
    "nemotron_h": (True,),
    "granitemoehybrid": (True, False),
}
UNROTATED["olmo_hybrid"] = UNROTATED["granitemoehybrid"]


def random_member(family: str, seed: int) -> Architecture:
    """An architecture that the family holds, perhaps with layers of zeros: any layers in any order."""
    rng = random.Random(f"{family} {seed}")
    pick = rng.choice
    attention: dict[str, Any] = {
        "heads": pick([2, 4]),
        "kv_heads": pick([1, 2]),
        "head_dim": pick([8, 12, 16]),
        "qk_norm": QK_NORM.get(family, "none"),
        "qkv_bias": family == "qwen2",
    }
    head_dim = pick([8, 16])
    # A member of Nemotron-H may have any number of heads, one of the others a multiple of the width.
    heads = pick([4, 6]) if family == "nemotron_h" else pick([1, 2]) * WIDTH // head_dim
    shapes: dict[str, dict[str, Any]] = {
        "attention": attention,
        "mamba2": {
            "heads": heads,
            "head_dim": head_dim,
            "state": pick([8, 20]),
            "groups": 1 if heads % 2 else pick([1, 2]),
            "conv": pick([3, 4]),
        },
        "gated_deltanet": {
            "heads": pick([2, 3]),
            "key_dim": pick([8, 10]),
            "value_dim": pick([8, 18]),
            "conv": pick([3, 4]),
            "negative_eigenvalues": family == "olmo_hybrid" and pick([True, False]),
        },
        "kda": dict.fromkeys(("key_dim", "value_dim"), pick([8, 10]))
        | {"heads": pick([1, 3]), "conv": pick([3, 4])},
        "short_conv": {"channels": WIDTH, "conv": pick([3, 4])},
        "swiglu": {"hidden": pick([40, 80])},
        "relu2": {"hidden": pick([40, 80])},
    }
    windows = [None, 9] if family in ("qwen2", "qwen3") else [None]
    position, layers = "before", []
    for _ in range(rng.randint(1, 5)):
        operator = pick(sorted(FAMILIES[family].operators))
        shape = shapes[operator]
        if operator == "attention":
            shape = {**shape, "window": pick(windows)}
        if family == "olmo_hybrid" and operator != "swiglu":  # a block is normalized before or after
            position = "after" if operator == "attention" else "before"
        layers.append({"operator": operator, "shape": shape, "norm_position": position})
    return Architecture.parse(
        {
            "width": WIDTH,
            "vocabulary": VOCABULARY,
            "layers": layers,
            "norm_eps": 1e-5 if family.startswith("qwen3_") else pick([1e-5, 1e-6]),
            "tied_embeddings": pick([True, False]),
            "rope": None if pick(UNROTATED.get(family, (False,))) else {"theta": pick([5_000.0, 10_000.0])},
        }
    )


def random_model(architecture: Architecture) -> HybridLM:
    """A model in which a step of a state space may be shorter than 0.001, and a norm's weight is 0.1."""
    model = HybridLM(architecture, backend="reference").eval()
    randomize(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("dt_bias"):
                parameter.uniform_(-12, -1)
            elif name.endswith("norm.weight"):
                parameter[0] = 0.1
    return model


def save_held(held: Held, model: HybridLM, folder: Path, **changes: Any) -> None:
    """Writes config.json, perhaps with other values, and the weights."""
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    save_file(published_tensors(held, weights), folder / "model.safetensors", metadata={"format": "pt"})
    config = {**held.config, **NO_SPECIAL_TOKENS, **changes}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def opened_by_transformers(folder: Path) -> Any:
    """The model that transformers makes of a folder, which has all weights of the class and no other."""
    with plain_definitions():
        model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


@torch.no_grad()
def check_same(theirs: Any, model: HybridLM, *, before: int = 0) -> None:
    """Checks that transformers gives our logits and our text.

    The logits of 64 tokens are compared where it reads all of them at once, and where it reads 37 and
    chooses 27 more with its cache.

    before: ids behind the model's vocabulary that it gets before a prompt, in place of meta tokens.
    """
    rows = model.architecture.vocabulary
    prompt = torch.randint(rows, (1, PROMPT), generator=torch.Generator().manual_seed(0))
    meta = torch.arange(rows, rows + before)[None]
    whole_prompt = torch.cat([meta, prompt], 1)
    text = theirs.generate(
        whole_prompt,
        attention_mask=torch.ones_like(whole_prompt),
        max_new_tokens=NEW,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = text.sequences[:, before:]
    assert tokens[0].tolist() == model.generate(prompt[0].tolist(), NEW)
    expected = model(tokens)[0]
    assert expected.std() > 0.1, "logits too small for the tolerance to mean anything"
    at_once = theirs(torch.cat([meta, tokens], 1), use_cache=False).logits[0, before:, :rows]
    cached = torch.cat(text.logits)[:, :rows]
    assert _distance(at_once, expected) < 1e-4
    assert _distance(cached, expected[PROMPT - 1 : -1]) < 1e-4


def _distance(got: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((got - expected).abs().max() / expected.abs().max())
