"""A feed-forward operator that fails as its shape names, to test the process that measures it.

It is no file of `operators/library/`, so that no search and no other test gets it. Importing this module
makes its name known to `registry.get`, also in a process that only unpickles an architecture with it.
"""

import ctypes
import os
import time
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from operators import Architecture, registry
from operators.architecture import Layer
from operators.base.errors import BackendError, BrokenDeviceError
from operators.operator import Operator, OperatorModule, Shape, State

Fault = Literal[
    "none",
    "refused",
    "defect",
    "defect_of_others",
    "out_of_memory",
    "out_of_memory_in_capture",
    "out_of_memory_of_others",
    "hang",
    "illegal_address",
    "broken_device",
    "exit",
]


class FaultyShape(Shape):
    fault: Fault


class Faulty(OperatorModule):
    reads: ClassVar = ()
    writes: ClassVar = ()

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self.fault = fault

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        (_go_wrong_on_gpu if x.is_cuda else _go_wrong_on_cpu)(self.fault, x)
        return x

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        return self.forward(x)


def _go_wrong_on_cpu(fault: Fault, x: Tensor) -> None:
    if fault == "out_of_memory":
        torch.empty(2**50)
    elif fault == "out_of_memory_in_capture":
        try:
            raise MemoryError("too little of it")
        finally:
            raise RuntimeError("the capture failed")
    elif fault == "hang":
        time.sleep(1e6)
    elif fault == "illegal_address":
        ctypes.string_at(0)
    elif fault == "broken_device" and x.requires_grad:  # in a training alone
        raise BrokenDeviceError("device cuda:0 gave up: an illegal memory access")
    elif fault == "exit":
        os.write(2, b"its last\nwords\n")
        os._exit(3)
    elif fault == "defect":
        raise KeyError("a defect")
    elif fault == "defect_of_others":
        raise BackendError("their class: KeyError: 'a defect'") from KeyError("a defect")
    elif fault == "out_of_memory_of_others":
        lack = RuntimeError("their capture failed")
        lack.__context__ = MemoryError("too little of it")
        raise BackendError("their class: RuntimeError: their capture failed") from lack


def _go_wrong_on_gpu(fault: Fault, x: Tensor) -> None:
    if fault == "out_of_memory":
        torch.empty(2**45, device=x.device)
    elif fault == "hang":
        torch.cuda._sleep(2**62)  # a kernel that waits for that many cycles
    elif fault == "illegal_address":
        from tests.helpers.faulty_kernels import store_far_outside  # Triton is not installed everywhere

        store_far_outside(x)
    else:
        _go_wrong_on_cpu(fault, x)


def _build(architecture: Architecture, shape: FaultyShape, kernels: None) -> Faulty:
    if shape.fault == "refused":
        raise BackendError("operator faulty cannot be built")
    return Faulty(shape.fault)


OPERATOR = Operator(
    symbol="?",
    kind="feedforward",
    shape=FaultyShape,
    genes={},
    parameters=lambda width, shape: 0,
    flops=lambda width, shape, context: 0,
    build=_build,
    source="",
)

_known = registry.get


def _get(name: str) -> Operator:
    return OPERATOR if name == "faulty" else _known(name)


registry.get = _get  # type: ignore[assignment]


def architecture_with(fault: Fault, **fields: Any) -> Architecture:
    """Returns a small architecture that has attention and the fault."""
    attention = Architecture.from_shorthand("a", width=32, vocabulary=64).layers[0]
    layers = (attention, Layer(operator="faulty", shape=FaultyShape(fault=fault)))
    return Architecture.parse({"width": 32, "vocabulary": 64, "layers": layers, **fields})
