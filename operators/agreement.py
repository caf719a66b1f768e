"""Measures how far a backend is from the float32 reference on the same weights.

A backend beyond the bounds is not offered, and its speed does not count.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from operators import registry
from operators.architecture import Architecture
from operators.backends import resolve
from operators.operator import OperatorModule, State


@dataclass(frozen=True)
class Bounds:
    """The largest relative errors (see `relative_error`) of an operator's output and of a gradient."""

    output: float
    gradient: float


# A number in bfloat16 is off by up to 2^-9, and an operator rounds a dozen times from its input to its
# output: about 1 %. Gradients pass twice as many roundings. float16 has 3 bits more.
BOUNDS = {
    torch.bfloat16: Bounds(output=2e-2, gradient=5e-2),
    torch.float16: Bounds(output=5e-3, gradient=2e-2),
    torch.float32: Bounds(output=1e-4, gradient=1e-3),
}
# Gradients of decay rates and step sizes are sums whose terms mostly cancel, so that rounding weighs more.
# Their bound is this many times the error of the reference itself in that dtype. The two errors are
# independent, so the number has to be more than 2.
TIMES_UNAVOIDABLE = 4


@dataclass(frozen=True)
class Agreement:
    """Relative errors of a backend, see `relative_error`.

    dtype: that the backend computed in.
    output: error of the forward.
    decoded: error of prefills and steps.
    gradients: errors of the gradients of the input `x` and of each parameter, by name.
    unavoidable: errors of the same gradients where the reference computes in that dtype.
    """

    dtype: torch.dtype
    output: float
    decoded: float
    gradients: dict[str, float]
    unavoidable: dict[str, float]

    @property
    def complaint(self) -> str | None:
        """What is beyond its bound, in words; None where nothing is."""
        bounds = BOUNDS[self.dtype]
        errors = {"output": (self.output, bounds.output), "decoded output": (self.decoded, bounds.output)}
        for name, error in self.gradients.items():
            errors[f"gradient of {name}"] = (
                error,
                max(bounds.gradient, TIMES_UNAVOIDABLE * self.unavoidable[name]),
            )
        # `not … <=` instead of `>`, so that NaN counts as wrong.
        wrong = [
            f"{what} off by {error:.1e} (bound {bound:.0e})"
            for what, (error, bound) in errors.items()
            if not error <= bound
        ]
        return f"differs from the reference: {', '.join(wrong)}" if wrong else None


def relative_error(computed: Tensor, expected: Tensor) -> float:
    """‖computed - expected‖ / ‖expected‖; NaN where `computed` holds NaN.

    The denominator is at least that of numbers of 1e-4, since some tensors are all zeros.
    """
    computed, expected = computed.detach().double(), expected.detach().double()
    return float((computed - expected).norm() / expected.norm().clamp(min=1e-4 * expected.numel() ** 0.5))


def agreement(
    architecture: Architecture,
    backend: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    batch: int,
    tokens: int,
    seed: int = 0,
) -> Agreement:
    """Compares the operator of an architecture's first layer with the reference, on random inputs [B, T, W].

    The reference computes in float32 with the same rounded weights and inputs, so that only arithmetic
    differs. Before the tested operator runs, free memory is filled with NaN: an operator that reads what it
    has not written shows it.

    backend: the tested one.
    dtype: that it computes in.
    batch, tokens: of the inputs.
    seed: of weights and inputs.

    Raises BackendError where the backend cannot be used.
    """
    with torch.backends.cudnn.flags(allow_tf32=False):
        generator = torch.Generator().manual_seed(seed)
        x, seen = (
            torch.randn(batch, tokens, architecture.width, generator=generator).to(device, dtype)
            for _ in range(2)
        )
        tested = _build(architecture, backend, device, dtype, seed)
        reference = _build(architecture, "reference", device, torch.float32, seed)
        reference.load_state_dict(tested.state_dict())
        expected, expected_gradients = _forward_backward(reference, x.float(), seen.float())
        _poison(device, 4 * x.numel() * 4)
        output, gradients = _forward_backward(tested, x, seen)
        _poison(device, 4 * x.numel() * 4)
        decoded = _decoded(tested, architecture, x, dtype)
        _, rounded = _forward_backward(_build(architecture, "reference", device, dtype, seed), x, seen)
        return Agreement(
            dtype=dtype,
            output=relative_error(output, expected),
            decoded=relative_error(decoded, expected),
            gradients={
                name: relative_error(gradients[name], gradient)
                for name, gradient in expected_gradients.items()
            },
            unavoidable={
                name: relative_error(rounded[name], gradient) for name, gradient in expected_gradients.items()
            },
        )


def _build(
    architecture: Architecture, backend: str, device: torch.device, dtype: torch.dtype, seed: int
) -> OperatorModule:
    layer = architecture.layers[0]
    kernels = resolve(layer.operator, backend, layer.shape, device, dtype).kernels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return registry.get(layer.operator).build(architecture, layer.shape, kernels).to(device, dtype)


def _forward_backward(module: OperatorModule, x: Tensor, seen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    x = x.clone().requires_grad_()
    out = module(x)
    named = {"x": x, **dict(module.named_parameters())}
    gradients = torch.autograd.grad(out, list(named.values()), seen.to(out.dtype))
    return out.detach(), dict(zip(named, gradients, strict=True))


@torch.no_grad()
def _decoded(module: OperatorModule, architecture: Architecture, x: Tensor, dtype: torch.dtype) -> Tensor:
    """The outputs for x [B, T, W], read as in decoding.

    A prefill reads about half, a second one about a third, up to 8 steps one token each, and a last prefill
    the rest. There are few steps because one token at a time is slow.
    """
    layer, (batch, tokens, _) = architecture.layers[0], x.shape
    specs = registry.get(layer.operator).state(layer.shape, batch, tokens, dtype)
    state: State = {
        name: torch.zeros(spec.shape, dtype=spec.dtype, device=x.device) for name, spec in specs.items()
    }
    position = torch.zeros(batch, dtype=torch.int64, device=x.device)
    first, second, steps = tokens // 2, tokens // 3, min(8, tokens - tokens // 2 - tokens // 3)
    out, read = [], 0
    for length in (first, second):
        if length:
            out.append(module(x[:, read : read + length], state, position + read, read))
        read += length
    for t in range(read, read + steps):
        out.append(module.step(x[:, t], state, position + t)[:, None])
    read += steps
    if read < tokens:
        out.append(module(x[:, read:], state, position + read, read))
    return torch.cat(out, 1)


def _poison(device: torch.device, count: int) -> None:
    """Fills `count` numbers of free memory with NaN and frees them again."""
    torch.full((count,), float("nan"), device=device)
