"""The choice of backends: reasons for a refusal, what auto takes, and parameters in float32."""

import sys
from pathlib import Path

import pytest
import torch

from operators import Architecture, HybridLM, Layer, registry
from operators.agreement import BOUNDS, Agreement, agreement, relative_error
from operators.backends import reason_against, resolve
from operators.base.errors import BackendError
from operators.kernels import libraries as kernel_libraries

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
LIBRARIES = [
    (name, backend)
    for name in registry.names()
    for backend in registry.get(name).backends
    if backend not in ("reference", "sdpa")
]


def alone(name: str) -> Architecture:
    shape = registry.get(name).shape.make(64)
    return Architecture(width=64, vocabulary=32, layers=(Layer(operator=name, shape=shape),))


@pytest.mark.parametrize(("name", "backend"), LIBRARIES)
def test_a_library_for_gpus_is_refused_on_a_cpu(name: str, backend: str) -> None:
    shape = registry.get(name).shape.make(1024)
    assert reason_against(name, backend, shape, CPU, torch.bfloat16) == "needs a CUDA device, got cpu"
    assert (
        reason_against(name, backend, shape, CUDA, torch.float32) == "needs bfloat16 or float16, got float32"
    )
    with pytest.raises(
        BackendError,
        match=f"backend {backend} of operator {name} cannot be used on cpu in torch.bfloat16: "
        "needs a CUDA device",
    ):
        resolve(name, backend, shape, CPU, torch.bfloat16)
    assert resolve(name, "auto", shape, CPU, torch.bfloat16).name in ("reference", "sdpa")


@pytest.mark.parametrize(
    ("name", "backend", "genes", "reason"),
    [
        ("attention", "flash_attn", {"head_dim": 24}, "head_dim of up to 256 in multiples of 16, got 24"),
        ("attention", "flash_attn", {"head_dim": 512}, "head_dim of up to 256 in multiples of 16, got 512"),
        ("mamba2", "mamba_ssm", {"conv": 5}, "causal_conv1d convolves over 2 to 4 tokens, got 5"),
        ("deltanet", "fla", {"head_dim": 512}, "head_dim of up to 256 for the delta rule, got 512"),
        ("kda", "fla", {"head_dim": 512}, "key_dim of up to 256 for kda, got 512"),
        ("short_conv", "causal_conv1d", {"expand": 0.75, "conv": 3}, "a multiple of 8 channels, got 765"),
    ],
)
def test_shapes_that_a_library_cannot_serve_are_refused(
    name: str, backend: str, genes: dict[str, object], reason: str
) -> None:
    shape = registry.get(name).shape.make(1020, **genes)
    refusal = reason_against(name, backend, shape, CUDA, torch.bfloat16)
    assert refusal is not None
    assert reason in refusal


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("mamba2", {"A_log", "dt_bias", "D"}),
        ("mamba", {"A_log", "D", "dt_proj.bias"}),
        ("gated_deltanet", {"A_log", "dt_bias"}),
        ("kda", {"A_log", "dt_bias"}),
        ("gla", set()),
    ],
)
def test_what_needs_float32_keeps_it(name: str, kept: set[str]) -> None:
    torch.manual_seed(0)
    model = HybridLM(alone(name), dtype=torch.bfloat16)
    operator = model.layers[0].operator
    assert {
        label for label, parameter in operator.named_parameters() if parameter.dtype == torch.float32
    } == kept
    torch.manual_seed(0)
    exact = HybridLM(alone(name)).layers[0].operator
    for label in kept:
        assert torch.equal(operator.get_parameter(label), exact.get_parameter(label))
    assert operator.float().o_proj.weight.dtype == torch.float32 if hasattr(operator, "o_proj") else True


def test_gradients_follow_their_parameters_to_another_dtype() -> None:
    operator = HybridLM(alone("mamba2")).layers[0].operator
    operator(torch.randn(1, 5, 64)).sum().backward()
    operator.to(torch.bfloat16)
    assert operator.A_log.grad.dtype == torch.float32
    assert operator.in_proj.weight.grad.dtype == torch.bfloat16


def test_agreement_of_the_reference_with_itself() -> None:
    exact = agreement(alone("mamba2"), "reference", device=CPU, dtype=torch.float32, batch=2, tokens=30)
    assert exact.complaint is None
    assert exact.output == 0
    rounded = agreement(alone("mamba2"), "reference", device=CPU, dtype=torch.bfloat16, batch=2, tokens=30)
    assert rounded.complaint is None
    assert 1e-4 < rounded.output < BOUNDS[torch.bfloat16].output


def test_disagreement_is_said_and_nan_is_one() -> None:
    known = {"x": 0.01, "A_log": 0.001, "D": 0.06}
    compared = Agreement(
        torch.bfloat16,
        output=0.1,
        decoded=float("nan"),
        gradients={"x": 0.01, "A_log": 0.2, "D": 0.2},
        unavoidable=known,
    )
    assert compared.complaint == (
        "differs from the reference: output off by 1.0e-01 (bound 2e-02), "
        "decoded output off by nan (bound 2e-02), "
        "gradient of A_log off by 2.0e-01 (bound 5e-02)"
    )
    assert relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])) == pytest.approx(
        0.5 / (9 + 20.25) ** 0.5
    )


def test_a_submodule_is_loaded_without_what_its_heavy_package_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy_kernels").mkdir()
    (tmp_path / "heavy_kernels" / "__init__.py").write_text("raise ImportError('everything at once')\n")
    (tmp_path / "heavy_kernels" / "ops.py").write_text("from heavy_kernels import __version__\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(kernel_libraries, "_HEAVY", {"heavy_kernels": "torch"})
    try:
        assert kernel_libraries.load("heavy_kernels.ops").__version__ == torch.__version__
    finally:
        for name in ("heavy_kernels", "heavy_kernels.ops"):
            sys.modules.pop(name, None)


def test_what_adds_up_in_a_fixed_order_leaves_no_trace() -> None:
    def fail_inside() -> None:
        with kernel_libraries.deterministic():
            assert torch.are_deterministic_algorithms_enabled()
            raise LookupError

    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(LookupError):
        fail_inside()
    assert not torch.are_deterministic_algorithms_enabled()
