"""The inputs of projections that each read another mixture of a token with the one before it."""

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from operators.kernels.launching import launch_options, starts_early
from operators.layers.normalization import LayerNorm

_BLOCK = 256  # channels that a program mixes: 16 numbers for each of its 128 threads


@triton.jit
def _mixed(
    x, before, mix, norm_weight, norm_bias, out, inputs, mixtures, eps,
    BLOCK: tl.constexpr, WHOLE: tl.constexpr, MIXTURES: tl.constexpr, LAYERNORM: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    row, all_columns = tl.program_id(0).to(tl.int64), tl.arange(0, WHOLE)
    columns, numbers = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, MIXTURES)
    inside = columns < inputs
    places = numbers[:, None] * inputs + columns[None, :]
    there = (numbers < mixtures)[:, None] & inside[None, :]
    share = tl.load(mix + places, mask=there, other=0.0).to(tl.float32)
    scale = tl.load(norm_weight + columns, mask=inside, other=0.0).to(tl.float32)
    shift = 0.0
    if LAYERNORM:
        shift = tl.load(norm_bias + columns, mask=inside, other=0.0).to(tl.float32)
    earlier = tl.load(before + row * inputs + columns, mask=inside, other=0.0).to(tl.float32)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()
    whole = tl.load(x + row * inputs + all_columns, mask=all_columns < inputs, other=0.0).to(tl.float32)
    own = tl.load(x + row * inputs + columns, mask=inside, other=0.0).to(tl.float32)
    if LAYERNORM:
        mean = tl.sum(whole, 0) / inputs
        own -= mean
        whole = tl.where(all_columns < inputs, whole - mean, 0.0)
    normal = own * tl.rsqrt(tl.sum(whole * whole, 0) / inputs + eps) * scale + shift
    normal = normal.to(out.dtype.element_ty).to(tl.float32)
    mixed = normal[None, :] + (earlier - normal)[None, :] * share
    results = out + (numbers[:, None] * tl.num_programs(0) + row) * inputs + columns[None, :]
    tl.store(results, mixed.to(out.dtype.element_ty), mask=there)
    tl.debug_barrier()  # all threads have read what is overwritten here
    tl.store(before + row * inputs + columns, normal.to(before.dtype.element_ty), mask=inside)


def token_shift(x: Tensor, before: Tensor, mix: Tensor, *, norm: nn.Module) -> Tensor:
    """norm(x) + mix · (before - norm(x)) -> [P, B, W].

    x: the tokens [B, W].
    before: the normalized tokens before them [B, W], which become norm(x).
    mix: shares of the token before [P, W].
    norm: an `RMSNorm` or `LayerNorm` over W.
    """
    rows, inputs = x.shape
    mixtures = mix.shape[0]
    out = torch.empty(mixtures, rows, inputs, dtype=x.dtype, device=x.device)
    layernorm, norms = isinstance(norm, LayerNorm), cast(Any, norm)
    _mixed[(rows, triton.cdiv(inputs, _BLOCK))](
        x,
        before,
        mix,
        norms.weight,
        norms.bias if layernorm else x,
        out,
        inputs,
        mixtures,
        norms.eps,
        BLOCK=_BLOCK,
        WHOLE=triton.next_power_of_2(inputs),
        MIXTURES=triton.next_power_of_2(mixtures),
        LAYERNORM=layernorm,
        EARLY=starts_early(x.device),
        **launch_options(x.device, 4),
    )
    return out
