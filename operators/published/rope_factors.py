"""Finds the llama3 scaling behind the factors of frequencies that llama.cpp keeps in `rope_freqs.weight`."""

import math
from typing import Any

import numpy as np

EXACT = 1e-6  # relative: the factors are float32, so that the right scaling gives them to 1e-7
USUAL_LOW, USUAL_HIGH, USUAL_CONTEXT = 1.0, 4.0, 8192  # the values of every Llama 3.x of Meta
MOST_CONTEXT = 2**31 - 1  # the largest size that `Settings.size` takes is just above


def llama3_scaling(factors: np.ndarray, theta: float) -> dict[str, Any] | None:
    """The `rope_scaling` of a config.json that divides frequencies by these factors.

    It is {} where all factors are 1, and None where no such scaling gives them.

    factors: that the frequency of each pair is divided by, the fastest pair first: [D / 2].
    theta: the base of the frequencies.
    """
    factors = factors.astype(np.float64)
    if theta <= 1 or not np.isfinite(factors).all() or (factors < 1 - EXACT).any():
        return None
    largest = float(factors.max())
    if largest <= 1 + EXACT:
        return {}
    frequency = float(theta) ** (-np.arange(len(factors)) / len(factors))
    # The share of each frequency that is kept: 1 above the ramp, 0 below it, linear in the frequency on it.
    kept = (1 / factors - 1 / largest) / (1 - 1 / largest)
    short = round(largest, 4)  # 2.5 instead of 2.5000002
    factor = short if abs(short - largest) <= EXACT * largest else largest
    for low, high, context in _ramps(kept, frequency):
        if not 1 <= context <= MOST_CONTEXT or not 0 < low < high:
            continue
        turns = context * frequency / (2 * math.pi)
        share = ((turns - low) / (high - low)).clip(0, 1)
        again = 1 / (share + (1 - share) / factor)
        if (abs(again - factors) <= EXACT * factors).all():
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": context,
            }
    return None


def _ramps(kept: np.ndarray, frequency: np.ndarray) -> list[tuple[float, float, int]]:
    """Ramps that may have given `kept`, the usual ones first: (low, high, original context in tokens)."""
    mixed = (kept > EXACT) & (kept < 1 - EXACT)
    fast, slow = frequency[kept >= 1 - EXACT], frequency[kept <= EXACT]
    ramps: list[tuple[float, float, int]] = []
    span = USUAL_HIGH - USUAL_LOW
    if mixed.any():
        # With the usual low and high, one mixed pair gives the context.
        contexts = 2 * math.pi * (kept[mixed] * span + USUAL_LOW) / frequency[mixed]
        ramps.append((USUAL_LOW, USUAL_HIGH, _whole(np.median(contexts))))
    else:
        ramps += [(USUAL_LOW, USUAL_HIGH, c) for c in (USUAL_CONTEXT, *(2**n for n in range(31)))]
    # kept = slope * frequency - offset, where slope = context / (2 pi (high - low)) and
    # offset = low / (high - low).
    if mixed.sum() >= 2:
        first, last = np.flatnonzero(mixed)[[0, -1]]
        slope = (kept[first] - kept[last]) / (frequency[first] - frequency[last])
        offset = slope * frequency[first] - kept[first]
    elif mixed.any():
        # Many ramps go through the one mixed pair and are steep enough for its
        # neighbours: take the least steep.
        pair, share = frequency[mixed][0], kept[mixed][0]
        slopes = [share / (pair - f) for f in slow] + [(1 - share) / (f - pair) for f in fast]
        slope = max(slopes)
        offset = slope * pair - share
    elif len(fast):
        slope = 1 / (fast.min() - slow.max())
        offset = slope * slow.max()
    else:  # every frequency has the same factor, as with a ramp beyond the fastest pair
        slope, offset = 1 / frequency.max(), 1.0
    if 0 < slope < math.inf and 0 < offset < math.inf:
        # Context, low and high may all be multiplied by the same number. A low of 1 reads
        # best, then the usual context.
        ramps.append((1.0, round(float(1 + 1 / offset), 4), _whole(2 * math.pi * slope / offset)))
        span = float(USUAL_CONTEXT / (2 * math.pi * slope))
        ramps.append((float(offset) * span, float(1 + offset) * span, USUAL_CONTEXT))
    return ramps


def _whole(context: float) -> int:
    """The nearest whole number of tokens; 0 for one beyond any context."""
    return round(float(context)) if context < MOST_CONTEXT else 0
