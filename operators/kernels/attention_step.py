"""Attention of one token to a cache, with rotation, normalization of heads and the write to the cache.

The slots of the cache are shared out to programs, so that all multiprocessors read. Each program computes its
part of the softmax. The last program to finish joins the parts (Dao et al. 2023, "Flash-Decoding").
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from operators.kernels.launching import launch_options, multiprocessors, starts_early

MOST_PARTS = 32  # of a cache: more are no faster to read, and slower to join
_JOINED_NUMBERS = 4096  # of the parts that are joined at once: 32 registers of 128 threads
_LOG2_E = 1.4426950408889634
_ROWS_OF_TENSOR_CORES = 16


@triton.jit
def _rotated(
    first,
    second,
    norm_first,
    norm_second,
    cosine,
    sine,
    size,
    eps,
    NORMED: tl.constexpr,
    ROTATED: tl.constexpr,
):
    """Both halves of heads [G, D / 2], normalized and rotated."""
    if NORMED:
        factor = tl.rsqrt((tl.sum(first * first, 1) + tl.sum(second * second, 1)) / size + eps)[:, None]
        first, second = first * factor * norm_first[None, :], second * factor * norm_second[None, :]
    if ROTATED:
        c, s = cosine[None, :], sine[None, :]
        first, second = first * c - second * s, second * c + first * s
    return first, second


@triton.jit
def _loaded(
    key, value, cache, start, last, new, of_slot, half, whole, SIZE: tl.constexpr, BLOCK: tl.constexpr
):
    """Both halves of the keys, and the values, of slots from `start` on; and which of these are seen."""
    slot = start + tl.arange(0, BLOCK)
    seen = (slot < last) & (slot != new)
    at = cache + slot[:, None].to(tl.int64) * of_slot
    pairs = seen[:, None] & (half < SIZE // 2)[None, :]
    k_first = tl.load(key + at + half[None, :], mask=pairs, other=0.0)
    k_second = tl.load(key + at + SIZE // 2 + half[None, :], mask=pairs, other=0.0)
    v = tl.load(value + at + whole[None, :], mask=seen[:, None] & (whole < SIZE)[None, :], other=0.0)
    return k_first, k_second, v, seen


@triton.jit
def _join(
    parts, result, count, SIZE: tl.constexpr, GROUP: tl.constexpr, WHOLE: tl.constexpr,
    GROUP_POWER: tl.constexpr, SPLITS_POWER: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """Writes the attention [GROUP, SIZE] of `count` parts, each GROUP × SIZE sums, then GROUP maxima, then
    GROUP weights."""
    head, place, part = tl.arange(0, GROUP_POWER), tl.arange(0, WHOLE), tl.arange(0, SPLITS_POWER)
    of_head, of_part = head < GROUP, GROUP * (SIZE + 2)
    of_highs = GROUP * SIZE + head[None, :]
    kept = (part < count)[:, None] & of_head[None, :]
    high = tl.load(
        parts + part[:, None] * of_part + of_highs, mask=kept, other=float("-inf"), cache_modifier=".cg"
    )
    weight = tl.load(
        parts + part[:, None] * of_part + of_highs + GROUP, mask=kept, other=0.0, cache_modifier=".cg"
    )
    highest = tl.where(of_head, tl.max(high, 0), 0.0)
    divisor = tl.where(of_head, tl.sum(tl.exp2(high - highest[None, :]) * weight, 0), 1.0)
    sums = tl.zeros([TOGETHER, GROUP_POWER, WHOLE], tl.float32)
    at_numbers = parts + head[None, :, None] * SIZE + place[None, None, :]
    for first in tl.range(0, count, TOGETHER, num_stages=3):
        some = first + tl.arange(0, TOGETHER)
        there = (some < count)[:, None] & of_head[None, :]
        of_some = tl.load(
            parts + some[:, None] * of_part + of_highs, mask=there, other=float("-inf"), cache_modifier=".cg"
        )
        numbers = tl.load(
            at_numbers + some[:, None, None] * of_part,
            mask=there[:, :, None] & (place < SIZE)[None, None, :],
            other=0.0,
            cache_modifier=".cg",
        )
        sums += tl.exp2(of_some - highest[None, :])[:, :, None] * numbers
    tl.store(
        result + head[:, None] * SIZE + place[None, :],
        (tl.sum(sums, 0) / divisor[:, None]).to(result.dtype.element_ty),
        mask=of_head[:, None] & (place < SIZE)[None, :],
    )


@triton.jit
def _attend(
    qkv, key, value, out, position, frequencies, q_norm, k_norm, parts, arrived,
    heads, kv_heads, slots, eps, scale,
    SIZE: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, HALF: tl.constexpr, WHOLE: tl.constexpr,
    BLOCK: tl.constexpr, SPLITS: tl.constexpr, STAGES: tl.constexpr, SPLITS_POWER: tl.constexpr,
    GROUP_POWER: tl.constexpr, TOGETHER: tl.constexpr, NORMED: tl.constexpr, ROTATED: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    batch, kv_head, split = tl.program_id(0) // kv_heads, tl.program_id(0) % kv_heads, tl.program_id(1)
    before = tl.load(position + batch)  # tokens that were read; the one here has this position
    filled = tl.minimum(before, slots).to(tl.int32)
    new = (before % slots).to(tl.int32)
    share = tl.cdiv(tl.cdiv(filled, SPLITS), BLOCK) * BLOCK
    share = tl.maximum(share, BLOCK)
    active = tl.maximum(tl.cdiv(filled, share), 1)
    if split >= active:
        return
    first_slot, last_slot = split * share, tl.minimum((split + 1) * share, filled)
    half, whole, group = tl.arange(0, HALF), tl.arange(0, WHOLE), tl.arange(0, ROWS)
    of_half, of_whole, of_group = half < SIZE // 2, whole < SIZE, group < GROUP
    of_slot = kv_heads * SIZE
    cache = batch.to(tl.int64) * slots * of_slot + kv_head * SIZE
    cosine, sine = tl.zeros([HALF], tl.float32), tl.zeros([HALF], tl.float32)
    if ROTATED:
        angle = before.to(tl.float32) * tl.load(frequencies + half, mask=of_half, other=0.0)
        cosine, sine = tl.cos(angle), tl.sin(angle)
    qn_first, qn_second, kn_first, kn_second = cosine, cosine, cosine, cosine
    if NORMED:
        qn_first = tl.load(q_norm + half, mask=of_half, other=0.0).to(tl.float32)
        qn_second = tl.load(q_norm + SIZE // 2 + half, mask=of_half, other=0.0).to(tl.float32)
        kn_first = tl.load(k_norm + half, mask=of_half, other=0.0).to(tl.float32)
        kn_second = tl.load(k_norm + SIZE // 2 + half, mask=of_half, other=0.0).to(tl.float32)
    row = qkv + batch.to(tl.int64) * (heads + 2 * kv_heads) * SIZE
    mine = of_group[:, None] & of_half[None, :]
    q_at = row + (kv_head * GROUP + group)[:, None] * SIZE + half[None, :]
    k_at = row + (heads + kv_head) * SIZE + half[None, :]
    q_first = tl.zeros([ROWS, HALF], key.dtype.element_ty)
    q_second = q_first
    own_first = tl.zeros([1, HALF], key.dtype.element_ty)
    own_second = own_first
    own_value = tl.zeros([WHOLE], value.dtype.element_ty)
    best = tl.full([ROWS], float("-inf"), tl.float32)
    weight = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS, WHOLE], tl.float32)
    # At least one turn: the first turn waits for the kernel before this one, and reads what that wrote. The
    # compiler moves the loads of the first turns' slots before the loop, so that they precede the wait. It
    # moves no load out of a branch. From Triton 3.9 on it moves none past a wait: then only the slots of the
    # first turn are read before it.
    for start in tl.range(first_slot, tl.maximum(last_slot, first_slot + 1), BLOCK, num_stages=STAGES):
        k_first, k_second, v, seen = _loaded(
            key, value, cache, start, last_slot, new, of_slot, half, whole, SIZE, BLOCK
        )
        if start == first_slot:
            if EARLY:
                gdc_wait()
                gdc_launch_dependents()
            a = tl.load(q_at, mask=mine, other=0.0).to(tl.float32)
            b = tl.load(q_at + SIZE // 2, mask=mine, other=0.0).to(tl.float32)
            c = tl.load(k_at, mask=of_half[None, :], other=0.0).to(tl.float32)
            d = tl.load(k_at + SIZE // 2, mask=of_half[None, :], other=0.0).to(tl.float32)
            own_value = tl.load(row + (heads + kv_heads + kv_head) * SIZE + whole, mask=of_whole, other=0.0)
            a, b = _rotated(a, b, qn_first, qn_second, cosine, sine, SIZE, eps, NORMED, ROTATED)
            c, d = _rotated(c, d, kn_first, kn_second, cosine, sine, SIZE, eps, NORMED, ROTATED)
            q_first, q_second = a.to(key.dtype.element_ty), b.to(key.dtype.element_ty)
            own_first, own_second = c.to(key.dtype.element_ty), d.to(key.dtype.element_ty)
        score = tl.dot(q_first, tl.trans(k_first))
        score = tl.dot(q_second, tl.trans(k_second), score) * scale
        score = tl.where(seen[None, :], score, float("-inf"))
        higher = tl.maximum(best, tl.max(score, 1))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        shrink = tl.exp2(best - shift)
        p = tl.exp2(score - shift[:, None])
        weight = weight * shrink + tl.sum(p, 1)
        total = tl.dot(p.to(v.dtype), v, total * shrink[:, None])
        best = higher
    if split == 0:  # it writes this token's key and value, and sees them
        there = cache + new.to(tl.int64) * of_slot
        tl.store(key + there + half[None, :], own_first, mask=of_half[None, :])
        tl.store(key + there + SIZE // 2 + half[None, :], own_second, mask=of_half[None, :])
        tl.store(value + there + whole, own_value, mask=of_whole)
        both = q_first.to(tl.float32) * own_first.to(tl.float32)
        both += q_second.to(tl.float32) * own_second.to(tl.float32)
        score = tl.sum(both, 1) * scale
        higher = tl.maximum(best, score)
        shrink, p = tl.exp2(best - higher), tl.exp2(score - higher)
        weight = weight * shrink + p
        total = total * shrink[:, None] + p[:, None] * own_value.to(tl.float32)[None, :]
        best = higher

    result = out + batch.to(tl.int64) * heads * SIZE + kv_head * GROUP * SIZE
    wanted = of_group[:, None] & of_whole[None, :]
    if active == 1:
        tl.store(
            result + group[:, None] * SIZE + whole[None, :],
            (total / weight[:, None]).to(out.dtype.element_ty),
            mask=wanted,
        )
        return
    of_part = GROUP * (SIZE + 2)
    mine_all = parts + tl.program_id(0).to(tl.int64) * SPLITS * of_part
    part = mine_all + split * of_part
    tl.store(part + group[:, None] * SIZE + whole[None, :], total, mask=wanted)
    tl.store(part + GROUP * SIZE + group, best, mask=of_group)
    tl.store(part + GROUP * (SIZE + 1) + group, weight, mask=of_group)
    tl.debug_barrier()  # all threads have written before one of them says so
    if tl.atomic_add(arrived + tl.program_id(0), 1, sem="acq_rel") == active - 1:
        _join(mine_all, result, active, SIZE, GROUP, WHOLE, GROUP_POWER, SPLITS_POWER, TOGETHER)
        tl.store(arrived + tl.program_id(0), 0)


def attend(
    qkv: Tensor,
    state: dict[str, Tensor],
    position: Tensor,
    *,
    heads: int,
    frequencies: Tensor | None,
    q_norm: Any = None,
    k_norm: Any = None,
) -> Tensor:
    """Writes this token's key and value to the cache and attends to all that it holds -> [B, H·D].

    qkv: [B, (H + 2·Hkv)·D], as projected: neither normalized nor rotated.
    state: `key` and `value` [B, S, Hkv, D], where slot p mod S holds position p, and `arrived` [B, Hkv]
        int32: zeros, which the kernel counts with and leaves as zeros.
    position: tokens that each row holds [B].
    heads: H.
    frequencies: radians per position of each pair [D / 2]; None for no rotation.
    q_norm, k_norm: RMSNorm over a head; None for no normalization.
    """
    batch, slots, kv_heads, size = state["key"].shape
    group = heads // kv_heads
    out = qkv.new_empty(batch, heads * size)
    half, whole = max(16, triton.next_power_of_2(size // 2)), max(16, triton.next_power_of_2(size))
    splits, block, warps, stages = shared_out(batch * kv_heads, slots, whole, qkv.device)
    power, splits_power = triton.next_power_of_2(group), triton.next_power_of_2(splits)
    parts = torch.empty(
        batch * kv_heads * splits * group * (size + 2), dtype=torch.float32, device=qkv.device
    )
    _attend[(batch * kv_heads, splits)](
        qkv,
        state["key"],
        state["value"],
        out,
        position,
        qkv if frequencies is None else frequencies,
        qkv if q_norm is None else q_norm.weight,
        qkv if k_norm is None else k_norm.weight,
        parts,
        state["arrived"],
        heads,
        kv_heads,
        slots,
        0.0 if q_norm is None else q_norm.eps,
        size**-0.5 * _LOG2_E,
        SIZE=size,
        GROUP=group,
        ROWS=max(_ROWS_OF_TENSOR_CORES, power),
        HALF=half,
        WHOLE=whole,
        BLOCK=block,
        SPLITS=splits,
        STAGES=stages,
        SPLITS_POWER=splits_power,
        GROUP_POWER=power,
        TOGETHER=max(1, min(splits_power, _JOINED_NUMBERS // (power * whole))),
        NORMED=q_norm is not None,
        ROTATED=frequencies is not None,
        EARLY=starts_early(qkv.device),
        **launch_options(qkv.device, warps),
    )
    return out


def shared_out(heads: int, slots: int, size: int, device: torch.device) -> tuple[int, int, int, int]:
    """How the slots of `heads` heads with `size` numbers each are shared out to programs.

    Returns into how many parts a head's slots go at most, how many slots a program takes at once, its
    warps, and how many blocks it loads at once. Measured on an H100 in whole models with 160 and
    8,192 slots.
    """
    processors = multiprocessors(device)
    small, large = (max(16, numbers // size) for numbers in (8192, 16384))
    if slots <= large:
        return 1, large, 8, 2
    if heads < processors // MOST_PARTS:
        return min(2 * MOST_PARTS, -(-slots // large)), large, 8, 2
    return max(1, min(MOST_PARTS, 2 * processors // heads, -(-slots // small))), small, 4, 2
