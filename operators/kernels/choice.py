"""The most likely token of each row, which a decode step ends with."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from operators.kernels.launching import launch_options, starts_early

_LOGITS_A_PROGRAM = 2048


@triton.jit
def _best_of_part(logits, values, places, vocabulary, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    row, part = tl.program_id(0), tl.program_id(1)
    index = part * BLOCK + tl.arange(0, BLOCK)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()
    there = index < vocabulary
    logit = tl.load(logits + row.to(tl.int64) * vocabulary + index, mask=there, other=float("-inf")).to(
        tl.float32
    )
    best = tl.max(logit, 0)
    to = row * tl.num_programs(1) + part
    tl.store(values + to, best)
    # Of equal logits the first counts. A part without a number has none.
    tl.store(places + to, tl.min(tl.where(there & (logit == best), index, 2**31 - 1), 0))


@triton.jit
def _best_of_all(
    values, places, tokens, position, parts, vocabulary, BLOCK: tl.constexpr, EARLY: tl.constexpr
):
    row = tl.program_id(0)
    part = tl.arange(0, BLOCK)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()
    there = part < parts
    best = tl.load(values + row * parts + part, mask=there, other=float("-inf"))
    place = tl.load(places + row * parts + part, mask=there, other=2**31 - 1)
    chosen = tl.min(tl.where(there & (best == tl.max(best, 0)), place, 2**31 - 1), 0)
    # Where no logit is a number, any token will do, but it must have a row in the embedding.
    tl.store(tokens + row, tl.minimum(chosen, vocabulary - 1).to(tl.int64))
    tl.store(position + row, tl.load(position + row) + 1)


def choose(logits: Tensor, tokens: Tensor, position: Tensor) -> None:
    """Writes the index of the largest logit of each row, the first of equal ones, and counts the token.

    logits: [B, vocabulary], contiguous.
    tokens: [B] int64, written.
    position: tokens that each row holds [B] int64, increased by 1.
    """
    rows, vocabulary = logits.shape
    block = min(_LOGITS_A_PROGRAM, triton.next_power_of_2(vocabulary))
    parts = triton.cdiv(vocabulary, block)
    values = torch.empty(rows, parts, dtype=torch.float32, device=logits.device)
    places = torch.empty(rows, parts, dtype=torch.int32, device=logits.device)
    early, options = starts_early(logits.device), launch_options(logits.device, 4)
    _best_of_part[(rows, parts)](logits, values, places, vocabulary, BLOCK=block, EARLY=early, **options)
    _best_of_all[(rows,)](
        values,
        places,
        tokens,
        position,
        parts,
        vocabulary,
        BLOCK=triton.next_power_of_2(parts),
        EARLY=early,
        **options,
    )
