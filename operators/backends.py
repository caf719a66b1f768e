"""Chooses the implementation of an operator for a device and a dtype."""

from dataclasses import dataclass
from typing import Any

import torch

from operators import registry
from operators.base.errors import BackendError, flat
from operators.operator import Shape


@dataclass(frozen=True)
class Resolved:
    """A backend that can be used here, and its kernels."""

    name: str
    kernels: Any


def reason_against(
    operator: str, backend: str, shape: Shape, device: torch.device, dtype: torch.dtype
) -> str | None:
    """Why a backend cannot serve an operator at this shape, device and dtype; None where it can."""
    implementation = registry.get(operator).backends[backend]
    if reason := implementation.refuses(shape, device, dtype):
        return reason
    try:
        implementation.load()
    except ImportError as error:
        return flat(error) or type(error).__name__
    return None


def resolve(operator: str, wanted: str, shape: Shape, device: torch.device, dtype: torch.dtype) -> Resolved:
    """The backend to use.

    wanted: a backend's name, or `auto` for the first one that can be used.

    Raises BackendError where the named backend cannot be used: another one never replaces it.
    """
    backends = registry.get(operator).backends
    if wanted != "auto" and wanted not in backends:
        raise BackendError(
            f"operator {operator} has no backend {wanted!r}: expected auto or one of {', '.join(backends)}"
        )
    for name in backends if wanted == "auto" else (wanted,):
        reason = reason_against(operator, name, shape, device, dtype)
        if reason is None:
            return Resolved(name, backends[name].load())
        if wanted != "auto":
            raise BackendError(
                f"backend {name} of operator {operator} cannot be used on {device} in {dtype}: {reason}"
            )
    raise BackendError(f"operator {operator} has no backend for {device} in {dtype}")
