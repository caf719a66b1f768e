"""Counts the cycles of one multiprocessor against the GPU's timer."""

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import globaltimer

# How long a count lasts (ns). Its ends are found within about 50 ns, which is 0.1 % of it.
_COUNT_NS = 50_000


@triton.jit
def _cycles():
    return tl.inline_asm_elementwise("mov.u64 $0, %clock64;", "=l", [], tl.int64, is_pure=False, pack=1)


@triton.jit
def _count(out, LONG: tl.constexpr):
    # On some GPUs the timer moves once a microsecond: a count goes from one of its moves to another one.
    start = globaltimer()
    now = start
    while now == start:
        now = globaltimer()
    start = now
    cycles = _cycles()
    while now - start < LONG:
        now = globaltimer()
    tl.store(out, _cycles() - cycles)
    tl.store(out + 1, now - start)


def prepare(device: torch.device) -> torch.Tensor:
    """Compiles the kernel, launches nothing, and returns the memory that `megahertz` writes to."""
    with torch.cuda.device(device):
        _count.warmup(torch.int64, LONG=_COUNT_NS, grid=(1,), num_warps=1)
        return torch.empty(2, dtype=torch.int64, device=device)


def megahertz(counts: torch.Tensor) -> float:
    """The clock of one multiprocessor over the next 50 µs (MHz). It waits for the GPU to be done.

    counts: from `prepare`
    """
    with torch.cuda.device(counts.device):
        _count[(1,)](counts, LONG=_COUNT_NS, num_warps=1)
    cycles, nanoseconds = counts.tolist()
    return 1e3 * float(cycles) / float(nanoseconds)
