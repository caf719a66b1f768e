"""Chooses the implementation of an operator for a device and a dtype."""

import importlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from operators import registry
from operators.architecture import Layer
from operators.base.errors import BackendError, flat
from operators.decoding.fused import FILES, TRITON, fused, reason_against_kernels, reason_against_layer
from operators.operator import FusedHead, FusedStep
from operators.shape import Shape


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

    wanted: a backend's name, or `auto` for the first one that can be used. `triton` is a backend of decode
        steps alone: the first one that can be used then does everything else.

    Raises BackendError where the named backend cannot be used: another one never replaces it.
    """
    backends = registry.get(operator).backends
    if wanted == TRITON and operator in FILES:
        wanted = "auto"
    if wanted != "auto" and wanted not in backends:
        known = (*backends, TRITON) if operator in FILES else backends
        raise BackendError(
            f"operator {operator} has no backend {wanted!r}: expected auto or one of {', '.join(known)}"
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


def load_libraries() -> None:
    """Imports the libraries of all operators, so that the first model need not wait for them."""
    for operator in registry.names():
        for implementation in registry.get(operator).backends.values():
            with suppress(ImportError):
                implementation.load()


def fused_step(layer: Layer, wanted: str, device: torch.device, dtype: torch.dtype) -> FusedStep | None:
    """The fused decode step of a layer; None where another backend's steps are wanted, or it cannot be used.

    wanted: a backend's name, or `auto`.

    Raises BackendError where `triton` is named and cannot be used.
    """
    if wanted not in ("auto", TRITON):
        return None
    reason = reason_against_layer(layer, device, dtype)
    if reason is None:
        return fused(layer.operator)
    if wanted == TRITON:
        raise BackendError(
            f"backend {TRITON} of operator {layer.operator} cannot be used on {device} in {dtype}: {reason}"
        )
    return None


def fused_head(wanted: str, device: torch.device, dtype: torch.dtype) -> FusedHead | None:
    """The fused end of a decode step; None as in `fused_step`."""
    if wanted not in ("auto", TRITON) or reason_against_kernels(device, dtype):
        return None
    head: FusedHead = importlib.import_module("operators.decoding.head").HEAD
    return head
