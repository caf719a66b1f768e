"""Products of a matrix with one row or a few: what a decode step spends most of its time on.

y = W x reads each weight once, and the memory's bandwidth bounds it. So all that belongs to a layer is done
on the way: the normalization of x before, bias, gate and activation after, and the sum with the residual
stream. Sums are in float32. One normalization is a factor for a whole row (`RMSNorm`), so it is applied to
the result, and x is read once.

For one row each program multiplies and adds by itself. For more rows, tensor cores do: a program takes a
tile of the matrix and all rows, and a small kernel normalizes before.
"""

from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from operators.kernels.launching import launch_options, starts_early
from operators.layers.normalization import LayerNorm

Activation = Literal["none", "swiglu", "relu2"]


@triton.jit
def _finished(
    y, up, rows, mask, bias, divisor, ACTIVATION: tl.constexpr, BIAS: tl.constexpr, DIVIDED: tl.constexpr
):
    """y with bias, activation and divisor; `rows` are the places of the outputs, in y's shape."""
    if BIAS:
        y += tl.load(bias + rows, mask=mask, other=0.0).to(tl.float32)
    if ACTIVATION == "swiglu":
        y = y * tl.sigmoid(y) * up
    if ACTIVATION == "relu2":
        y = tl.maximum(y, 0.0)
        y = y * y
    if DIVIDED:
        y = y / tl.load(divisor + rows, mask=mask, other=1.0)
    return y


@triton.jit
def _added(total, w, a, FOLD: tl.constexpr):
    """total + w · a; the `FOLD` columns that one thread holds become one sum, which saves registers."""
    if FOLD == 1:
        return total + w.to(tl.float32) * a[None, :]
    parts = tl.reshape(w.to(tl.float32) * a[None, :], [total.shape[0], total.shape[1], FOLD])
    return total + tl.sum(parts, 2)


@triton.jit
def _own(outputs, BLOCK_OUT: tl.constexpr, PARTS: tl.constexpr):
    """The outputs of this program [BLOCK_OUT], which of them there are, and the part that they belong to."""
    program, part, first, end = tl.program_id(0), 0, tl.program_id(0) * BLOCK_OUT, outputs
    programs, total = 0, 0  # of the parts before
    for number in tl.static_range(len(PARTS)):
        of_part = (PARTS[number] + BLOCK_OUT - 1) // BLOCK_OUT
        here = (program >= programs) & (program < programs + of_part)
        part = tl.where(here, number, part)
        first = tl.where(here, total + (program - programs) * BLOCK_OUT, first)
        end = tl.where(here, total + PARTS[number], end)
        programs += of_part
        total += PARTS[number]
    rows = first + tl.arange(0, BLOCK_OUT)
    return rows, rows < end, part


@triton.jit
def _one_row(
    x, weight, out, norm_weight, norm_bias, bias, divisor, inputs, outputs, eps,
    PARTS: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr, FOLD: tl.constexpr,
    NORM: tl.constexpr, ACTIVATION: tl.constexpr, BIAS: tl.constexpr, DIVIDED: tl.constexpr,
    ONTO: tl.constexpr, EVEN: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    rows, written, part = _own(outputs, BLOCK_OUT, PARTS)
    columns = tl.arange(0, BLOCK_IN)
    x += part * inputs
    mask = written[:, None] if EVEN else written[:, None] & (columns < inputs)[None, :]
    places = weight + rows[:, None].to(tl.int64) * inputs + columns[None, :]
    w = tl.load(places, mask=mask, other=0.0)
    if ACTIVATION == "swiglu":
        ups = weight + (rows[:, None] + outputs).to(tl.int64) * inputs + columns[None, :]
        u = tl.load(ups, mask=mask, other=0.0)
    if NORM != "none":
        scale = tl.load(norm_weight + columns, mask=columns < inputs, other=0.0).to(tl.float32)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()
    stream = tl.zeros([BLOCK_OUT], tl.float32)
    if ONTO:
        stream = tl.load(out + rows, mask=written, other=0.0).to(tl.float32)
    mean = 0.0
    if NORM == "layernorm":
        for start in range(0, inputs, BLOCK_IN):
            mean += tl.sum(
                tl.load(x + start + columns, mask=start + columns < inputs, other=0.0).to(tl.float32), 0
            )
        mean = mean / inputs
    total = tl.zeros([BLOCK_OUT, BLOCK_IN // FOLD], tl.float32)
    total_up = tl.zeros([BLOCK_OUT, BLOCK_IN // FOLD], tl.float32)
    fixed = tl.zeros([BLOCK_OUT, BLOCK_IN // FOLD], tl.float32)  # what the normalization's bias contributes
    fixed_up = tl.zeros([BLOCK_OUT, BLOCK_IN // FOLD], tl.float32)
    squares = tl.zeros([BLOCK_IN], tl.float32)
    for start in range(0, inputs, BLOCK_IN):
        here = start + columns
        inside = here < inputs
        if start > 0:
            mask = written[:, None] if EVEN else written[:, None] & inside[None, :]
            w = tl.load(places + start, mask=mask, other=0.0)
            if ACTIVATION == "swiglu":
                u = tl.load(ups + start, mask=mask, other=0.0)
            if NORM != "none":
                scale = tl.load(norm_weight + here, mask=inside, other=0.0).to(tl.float32)
        a = tl.load(x + here, mask=inside, other=0.0).to(tl.float32)
        if NORM == "layernorm":
            a = tl.where(inside, a - mean, 0.0)
        if NORM != "none":
            squares += a * a
            a = a * scale
        total = _added(total, w, a, FOLD)
        if ACTIVATION == "swiglu":
            total_up = _added(total_up, u, a, FOLD)
        if NORM == "layernorm":
            b = tl.load(norm_bias + here, mask=inside, other=0.0).to(tl.float32)
            fixed = _added(fixed, w, b, FOLD)
            if ACTIVATION == "swiglu":
                fixed_up = _added(fixed_up, u, b, FOLD)
    y, up = tl.sum(total, 1), tl.sum(total_up, 1)
    if NORM != "none":
        factor = tl.rsqrt(tl.sum(squares, 0) / inputs + eps)
        y, up = y * factor, up * factor
    if NORM == "layernorm":
        y, up = y + tl.sum(fixed, 1), up + tl.sum(fixed_up, 1)
    y = _finished(y, up, rows, written, bias, divisor, ACTIVATION, BIAS, DIVIDED)
    if ONTO:
        tl.debug_barrier()  # several threads may hold the same output, and all have read it here
    tl.store(out + rows, (stream + y).to(out.dtype.element_ty), mask=written)


@triton.jit
def _normalized(
    x, out, norm_weight, norm_bias, inputs, eps, BLOCK: tl.constexpr, NORM: tl.constexpr, EARLY: tl.constexpr
):
    row, columns = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = columns < inputs
    scale = tl.load(norm_weight + columns, mask=inside, other=0.0).to(tl.float32)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()
    a = tl.load(x + row * inputs + columns, mask=inside, other=0.0).to(tl.float32)
    if NORM == "layernorm":
        a = tl.where(inside, a - tl.sum(a, 0) / inputs, 0.0)
    a = a * tl.rsqrt(tl.sum(a * a, 0) / inputs + eps) * scale
    if NORM == "layernorm":
        a += tl.load(norm_bias + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * inputs + columns, a.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _few_rows(
    x, weight, out, bias, divisor, count, inputs, outputs,
    PARTS: tl.constexpr, ROWS: tl.constexpr, BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr,
    STAGES: tl.constexpr, ACTIVATION: tl.constexpr, BIAS: tl.constexpr, DIVIDED: tl.constexpr,
    ONTO: tl.constexpr, EVEN: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    rows, written, part = _own(outputs, BLOCK_OUT, PARTS)
    columns = tl.arange(0, BLOCK_IN)
    batch = tl.arange(0, ROWS)
    asked = batch < count
    x += part * count * inputs
    places = weight + rows[:, None].to(tl.int64) * inputs + columns[None, :]
    ups = weight + (rows[:, None] + outputs).to(tl.int64) * inputs + columns[None, :]
    xs = x + batch[:, None] * inputs + columns[None, :]
    # The first tile of the matrix is read before the wait. It stays in registers and is multiplied last.
    inside = columns < inputs
    mask = written[:, None] if EVEN else written[:, None] & inside[None, :]
    first = tl.load(places, mask=mask, other=0.0)
    if ACTIVATION == "swiglu":
        first_up = tl.load(ups, mask=mask, other=0.0)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()
    asked_here = asked[:, None] if EVEN else asked[:, None] & inside[None, :]
    first_a = tl.trans(tl.load(xs, mask=asked_here, other=0.0))
    total = tl.zeros([BLOCK_OUT, ROWS], tl.float32)
    total_up = tl.zeros([BLOCK_OUT, ROWS], tl.float32)
    for start in tl.range(BLOCK_IN, inputs, BLOCK_IN, num_stages=STAGES):
        inside = start + columns < inputs
        mask = written[:, None] if EVEN else written[:, None] & inside[None, :]
        w = tl.load(places + start, mask=mask, other=0.0)
        asked_here = asked[:, None] if EVEN else asked[:, None] & inside[None, :]
        a = tl.trans(tl.load(xs + start, mask=asked_here, other=0.0))
        total = tl.dot(w, a, total)
        if ACTIVATION == "swiglu":
            total_up = tl.dot(tl.load(ups + start, mask=mask, other=0.0), a, total_up)
    total = tl.dot(first, first_a, total)
    if ACTIVATION == "swiglu":
        total_up = tl.dot(first_up, first_a, total_up)
    mask = written[:, None] & asked[None, :]
    spread = tl.broadcast_to(rows[:, None], [BLOCK_OUT, ROWS])
    y = _finished(total, total_up, spread, mask, bias, divisor, ACTIVATION, BIAS, DIVIDED)
    results = out + batch[None, :] * outputs + rows[:, None]
    if ONTO:
        y += tl.load(results, mask=mask, other=0.0).to(tl.float32)
        tl.debug_barrier()  # several threads may hold the same output, and all have read it here
    tl.store(results, y.to(out.dtype.element_ty), mask=mask)


def product(
    x: Tensor,
    weight: Tensor,
    *,
    norm: nn.Module | None = None,
    bias: Tensor | None = None,
    activation: Activation = "none",
    divisor: Tensor | None = None,
    onto: Tensor | None = None,
    parts: tuple[int, ...] = (),
) -> Tensor:
    """activation(norm(x) Wᵀ + bias) / divisor -> [B, N], added to `onto` where it is given.

    x: [B, K], contiguous, with B from 1 to 16.
    weight: [N, K], contiguous. With `swiglu` it is [2N, K]: the gate's rows and then those of what is gated.
    norm: an `RMSNorm` or `LayerNorm` over K that x passes first.
    bias: [N]; not with `swiglu`.
    divisor: [N] float32.
    onto: [B, N], changed in place and returned.
    parts: how many outputs belong to each x, where x is [P, B, K]; not with `swiglu` or a norm.
    """
    rows, inputs = x.shape[-2:]
    gated = activation == "swiglu"
    outputs = weight.shape[0] // (2 if gated else 1)
    out = x.new_empty(rows, outputs) if onto is None else onto
    norms: Any = norm
    kind = "none" if norm is None else "layernorm" if isinstance(norm, LayerNorm) else "rmsnorm"
    flags = {
        "PARTS": parts,
        "ACTIVATION": activation,
        "BIAS": bias is not None,
        "DIVIDED": divisor is not None,
        "ONTO": onto is not None,
        "EARLY": starts_early(x.device),
    }
    after = (x if bias is None else bias, x if divisor is None else divisor)
    if rows == 1:
        block_out, block_in, warps, fold = blocks_of_one_row(
            outputs, inputs, gated=gated, normalized=norm is not None
        )
        _one_row[(_programs(parts or (outputs,), block_out),)](
            x,
            weight,
            out,
            x if norm is None else norms.weight,
            norms.bias if kind == "layernorm" else x,
            *after,
            inputs,
            outputs,
            0.0 if norm is None else norms.eps,
            BLOCK_OUT=block_out,
            BLOCK_IN=block_in,
            FOLD=fold,
            EVEN=inputs % block_in == 0,
            NORM=kind,
            **flags,
            **launch_options(x.device, warps),
        )
        return out
    if norm is not None:
        normal = torch.empty_like(x)
        _normalized[(rows,)](
            x,
            normal,
            norms.weight,
            norms.bias if kind == "layernorm" else x,
            inputs,
            norms.eps,
            BLOCK=triton.next_power_of_2(inputs),
            NORM=kind,
            EARLY=flags["EARLY"],
            **launch_options(x.device, 8),
        )
        x = normal
    block_out, block_in, warps, stages = blocks_of_few_rows(outputs, inputs, gated=gated)
    _few_rows[(_programs(parts or (outputs,), block_out),)](
        x,
        weight,
        out,
        *after,
        rows,
        inputs,
        outputs,
        ROWS=16 if rows > 8 else 8,
        BLOCK_OUT=block_out,
        BLOCK_IN=block_in,
        STAGES=stages,
        EVEN=inputs % block_in == 0,
        **flags,
        **launch_options(x.device, warps),
    )
    return out


def _programs(parts: tuple[int, ...], block_out: int) -> int:
    """How many programs compute the outputs of all parts; no program computes outputs of two parts."""
    return sum(-(-part // block_out) for part in parts)


def blocks_of_one_row(
    outputs: int, inputs: int, *, gated: bool, normalized: bool
) -> tuple[int, int, int, int]:
    """Rows and columns of the tile that a program takes at once, its warps, and how many columns a thread
    folds into one sum.

    Measured on an H100 in whole models. What counts is how many bytes a multiprocessor waits for at once, and
    how evenly the last programs share the work.
    """
    widest = max(16, triton.next_power_of_2(inputs))
    if gated:
        return 4, min(512, widest), 2, 1
    if normalized and inputs > 2048 >= outputs:
        return 2, 1024, 2, 1
    if normalized and inputs == 1024:
        return 8, 512, 4, 1
    if normalized and outputs >= 4096:
        return (8, min(1024, widest), 4, 8) if outputs >= 32768 else (4, min(1024, widest), 2, 8)
    if normalized:
        return 8, min(1024, widest), 4, 1
    if outputs <= 1024:
        return 2, min(2048, widest), 4, 1
    return 4, min(2048, widest) if inputs % 2048 == 0 or inputs < 2048 else 1024, 4, 1


def blocks_of_few_rows(outputs: int, inputs: int, *, gated: bool) -> tuple[int, int, int, int]:
    """The same for more rows, with how many tiles are read ahead in place of what is folded.

    A tile of tensor cores has 16 rows.
    """
    widest = max(16, triton.next_power_of_2(inputs))
    if outputs >= 32768:
        return 64, min(128, widest), 2, 3
    if gated:
        return 32, min(128, widest), 2, 3
    return 16, min(256, widest), 2, 4
