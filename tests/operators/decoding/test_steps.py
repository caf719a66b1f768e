"""Fused decode steps against the reference in float32, which knows nothing of kernels."""

from typing import Any

import pytest
import torch

from operators import Architecture, HybridLM, Layer
from operators.backends import fused_step
from operators.base.errors import BackendError
from operators.decoding.fused import FILES, reason_against_fused
from operators.operator import MOST_FUSED_ROWS
from profiler.measuring.decoder import Decoder
from tests.helpers.fused_layers import DEVICE, DTYPE, ON_GPU, TOLERANCE, far, first_layer, layer, models

CAPACITY = 37
CASES = {
    "grouped queries": layer("attention", heads=6, kv_heads=2, head_dim=32),
    "one head each, odd size": layer("attention", heads=2, kv_heads=2, head_dim=40),
    "normalized heads with bias": layer(
        "attention", "layernorm", heads=2, kv_heads=1, head_dim=32, qk_norm="head", qkv_bias=True
    ),
    "window": layer("attention", heads=2, kv_heads=1, head_dim=32, window=5),
    "many queries a key": layer("attention", heads=16, kv_heads=1, head_dim=32),
    "swiglu": layer("swiglu", hidden=50),
    "swiglu after layernorm": layer("swiglu", "layernorm", hidden=21),
    "relu2": layer("relu2", hidden=35),
    "mamba": layer("mamba", inner=41, state=10, dt_rank=3, conv=4),
    "mamba of one": layer("mamba", inner=9, state=1, dt_rank=1, conv=2),
    "mamba3": layer("mamba3", heads=4, head_dim=12, state=10, angles=3, groups=2),
    "mamba3, all turned": layer("mamba3", heads=2, head_dim=16, state=8, angles=4),
    "short_conv": layer("short_conv", channels=130, conv=3),
    "mamba2": layer("mamba2", heads=4, head_dim=12, state=16, groups=1, conv=4),
    "mamba2 in groups": layer("mamba2", heads=4, head_dim=40, state=9, groups=2, conv=3),
    "deltanet": layer("deltanet", heads=3, head_dim=16, conv=2),
    "gated deltanet": layer("gated_deltanet", heads=2, key_dim=12, value_dim=24, conv=4),
    "negative": layer("gated_deltanet", heads=1, key_dim=16, value_dim=9, negative_eigenvalues=True),
    "kda": layer("kda", heads=2, key_dim=12, value_dim=10, conv=3),
    "kda, negative": layer("kda", heads=1, key_dim=16, value_dim=24, negative_eigenvalues=True),
    "gla": layer("gla", heads=2, key_dim=12, value_dim=20),
    "retnet": layer("retnet", heads=2, key_dim=10, value_dim=24),
    "rwkv7": layer("rwkv7", width=40, heads=3, head_dim=12, decay_rank=32, a_rank=64, gate_rank=96),
    "rwkv7 after layernorm": layer(
        "rwkv7", "layernorm", width=40, heads=1, head_dim=20, decay_rank=32, a_rank=32, gate_rank=32
    ),
}


def test_every_fused_operator_has_a_case() -> None:
    assert {case.operator for case in CASES.values()} == set(FILES)


# One row is another case for products, and for attention, which shares a cache out by rows.
ONE_ROW = ("grouped queries", "window", "swiglu", "swiglu after layernorm", "relu2", "mamba2", "rwkv7")


@pytest.mark.parametrize(("case", "rows"), [(case, 3) for case in CASES] + [(case, 1) for case in ONE_ROW])
def test_step_is_that_of_the_reference(poisoned: None, case: str, rows: int) -> None:
    fused, reference = models(CASES[case])
    ours, theirs = first_layer(fused), first_layer(reference)
    assert ours.fused is not None
    state, wanted_state = (model.allocate_state(rows, CAPACITY).layers[0] for model in (fused, reference))
    generator = torch.Generator(DEVICE).manual_seed(1)
    for name, tensor in wanted_state.items():
        state[name].normal_(generator=generator)
        tensor.copy_(state[name])
    position = torch.tensor([0, 20, CAPACITY - 2][:rows], device=DEVICE) + (0 if rows > 1 else 18)
    with torch.no_grad():
        for _ in range(min(rows, 2)):
            x = torch.randn(rows, 40, generator=generator, device=DEVICE).to(DTYPE)
            change = torch.randn(rows, 40, generator=generator, device=DEVICE).to(DTYPE)
            got, rest = ours.step(x.clone(), change, state, position)
            stream, change = theirs.step(x.float(), change.float(), wanted_state, position)
            assert rest is None
            assert far(got, stream + change) < TOLERANCE
            position = position + 1
    for name, tensor in wanted_state.items():
        assert far(state[name], tensor) < TOLERANCE
    for name in state.keys() - wanted_state.keys():  # what kernels count with is 0 again
        assert not state[name].any()


@pytest.mark.parametrize(("parts", "block", "ahead"), [(3, 16, 0), (4, 16, 2), (1, 64, 0)])
def test_attention_joins_the_parts_of_a_cache(
    monkeypatch: pytest.MonkeyPatch, poisoned: None, parts: int, block: int, ahead: int
) -> None:
    from operators.kernels import attention_step

    monkeypatch.setattr(attention_step, "shared_out", lambda *sizes: (parts, block, 4, ahead))
    test_step_is_that_of_the_reference(None, "grouped queries", 3)


def test_decay_of_mamba3_has_a_weakest_rate(monkeypatch: pytest.MonkeyPatch, poisoned: None) -> None:
    for place in ("library", "decoding"):
        monkeypatch.setattr(f"operators.{place}.mamba3.WEAKEST", 0.7)  # as great as rates of random weights
    test_step_is_that_of_the_reference(None, "mamba3", 1)


def test_model_writes_what_the_reference_writes() -> None:
    fused, reference = models(
        *(CASES[case] for case in ("grouped queries", "swiglu", "mamba2", "deltanet")),
        meta_tokens=2,
        normalized_head=True,
    )
    assert all(backend.endswith("+triton") for backend in fused.backends.values())
    prompt = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], device=DEVICE)
    texts = []
    for model in (fused, reference.to(DTYPE)):
        decoder = Decoder(model, 2, 16)
        decoder.prefill(prompt)
        texts.append(decoder.generate(4))
        assert decoder.state.position.tolist() == [11, 11]
    if not ON_GPU:  # 16 bits may choose another of two tokens that are almost as likely
        assert torch.equal(*texts)


@pytest.mark.parametrize("rows", [MOST_FUSED_ROWS, MOST_FUSED_ROWS + 1])
def test_more_rows_than_kernels_take_are_left_to_libraries(rows: int) -> None:
    fused, reference = models(CASES["swiglu"])
    x = torch.randn(rows, 40, device=DEVICE).to(DTYPE)
    position = torch.zeros(rows, dtype=torch.int64, device=DEVICE)
    with torch.no_grad():
        got, rest = first_layer(fused).step(x.clone(), None, {}, position)
        stream, change = first_layer(reference).step(x.float(), None, {}, position)
    assert (rest is None) == (rows == MOST_FUSED_ROWS)
    assert change is not None
    assert far(got if rest is None else got + rest, stream + change) < TOLERANCE


def test_weights_that_moved_are_read_where_they_are() -> None:
    fused, _ = models(CASES["swiglu"])
    x, position = (
        torch.randn(1, 40, device=DEVICE).to(DTYPE),
        torch.zeros(1, dtype=torch.int64, device=DEVICE),
    )
    built: Any = first_layer(fused)
    with torch.no_grad():
        before, _ = built.step(x.clone(), None, {}, position)
        built.operator.gate_proj.weight = torch.nn.Parameter(
            torch.zeros_like(built.operator.gate_proj.weight)
        )
        after, change = built.step(x.clone(), None, {}, position)
    assert change is not None
    assert not change.any()
    assert not torch.equal(before, after)


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (layer("attention", heads=2, kv_heads=2, head_dim=16), "head_dim from 32 to 256"),
        (layer("attention", heads=34, kv_heads=2, head_dim=32), "up to 16 query heads"),
        (layer("attention", heads=2, kv_heads=2, head_dim=32, qk_norm="full"), "got qk_norm full"),
        (layer("deltanet", heads=1, head_dim=256), "32768 numbers of state, got 256 × 256"),
        (layer("deltanet", heads=1, head_dim=8, conv=5), "up to 4 tokens, got 5"),
        (layer("mamba2", heads=1, head_dim=8, state=8, conv=6), "up to 4 tokens, got 6"),
        (layer("kda", heads=1, key_dim=8, value_dim=256), r"32768 weights .*, got \(8 \+ 256\) × 256"),
        (layer("gla", heads=1, key_dim=256, value_dim=256), "32768 numbers of state, got 256 × 256"),
        (layer("mamba", inner=8, state=8, dt_rank=1, conv=5), "up to 4 tokens, got 5"),
        (layer("mamba", inner=8, state=8, dt_rank=1025), "up to 1024, got 8 and 1025"),
        (layer("mamba3", heads=1, head_dim=256, state=256, angles=2), "32768 numbers of state"),
        (layer("short_conv", channels=8, conv=5), "up to 4 tokens, got 5"),
        (
            layer("rwkv7", width=40, heads=1, head_dim=128, decay_rank=512, a_rank=256, gate_rank=32),
            r"head_dim 128 and ranks of 512 \+ 256 \+ 32",
        ),
        (
            Layer(operator="swiglu", shape=layer("swiglu", hidden=8).shape, norm_position="after"),
            "does it after",
        ),
    ],
)
def test_refused_layer_falls_to_the_library_and_a_named_kernel_says_why(refused: Layer, reason: str) -> None:
    assert fused_step(refused, "auto", DEVICE, DTYPE) is None
    with pytest.raises(BackendError, match=reason):
        fused_step(refused, "triton", DEVICE, DTYPE)


def test_operator_without_a_kernel_says_so() -> None:
    assert reason_against_fused("another", None, DEVICE, DTYPE) == "no kernel of ours decodes another"


def test_without_gpu_or_interpreter_kernels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    architecture = Architecture(width=40, vocabulary=8, layers=(CASES["swiglu"],))
    with pytest.raises(BackendError, match="needs a CUDA device"):
        HybridLM(architecture, backend="triton")
    model = HybridLM(architecture)
    assert model.backends == {"swiglu": "reference"}
    assert model.fused_head is None
