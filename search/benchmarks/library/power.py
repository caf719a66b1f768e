"""Benchmark: how well `frontrunner compare` tells two architectures apart.

A comparison must not call equals different, and it must find a slowdown of 2 %. The record counts how often
it did.

    frontrunner bench power --device cuda:0

Fresh processes, several preparing at the same time and one measuring, time a decode step of the anchor model.
Half of them have a kernel in their graph that does nothing for about 2 % of the step. What they measured is
compared as `frontrunner compare` does it: 6 rounds of one process each, neighbours in time. A comparison
draws its rounds at random from all processes, so comparisons share some rounds.
"""

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from rich.console import Console
from torch import Tensor

from operators.base.graph import captured
from operators.cost import cost
from profiler.device.device import Device, open_device
from profiler.device.lock import exclusive, shared
from profiler.measuring.anchor import CONTEXT, anchor_architecture
from profiler.measuring.comparison import compare_times
from profiler.measuring.decoder import Decoder, random_model
from profiler.measuring.decoder_copies import copies, step_ms
from profiler.process.pool import process_pool
from profiler.profile import REPEATABILITY
from profiler.timing import SamplingSettings, sample
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.tables import print_figures
from search.evaluation.comparing import ROUNDS

SLOWDOWN = 0.02
EQUAL_PAIRS, SLOWED_PAIRS = 50, 40
PROCESSES_EACH, AT_ONCE = 24, 12
_SETTINGS = SamplingSettings(warmup=10, min_samples=10, min_seconds=0.5, max_seconds=1.0)
_STEPS = {"cuda": 8, "cpu": 1}


@dataclass(frozen=True)
class Measurement:
    """One process: whether its steps were slowed down, when it measured (s) and the median of a step."""

    slowed: bool
    at_s: float
    decode_ms: float


class _SlowDecoder(Decoder):
    """Wastes `waste` (clock cycles on a GPU, seconds on a CPU) in every step."""

    waste = 0.0

    def _choose(self, logits: Tensor) -> None:
        if self.waste and logits.is_cuda:
            torch.cuda._sleep(int(self.waste))
        elif self.waste:
            end = time.perf_counter() + self.waste
            while time.perf_counter() < end:
                pass
        super()._choose(logits)


def tell_apart(device: str, console: Console) -> Measured:
    """How many pairs were judged right, and every process' measurement."""
    kind = open_device(device).torch_device.type
    with process_pool(1, tasks_each=1) as pool:
        waste, injected = pool.submit(_calibrate, device).result()
    order = random.Random(0)  # noqa: S311 - no secret
    kinds = [slowed for slowed in (False, True) for _ in range(PROCESSES_EACH)]
    order.shuffle(kinds)
    with process_pool(AT_ONCE, tasks_each=1) as pool:
        pending = [pool.submit(_measure, device, waste if slowed else 0.0) for slowed in kinds]
        measurements = [
            Measurement(slowed, *one.result()) for slowed, one in zip(kinds, pending, strict=True)
        ]
    measurements.sort(key=lambda one: one.at_s)
    plain, slow = ([one for one in measurements if one.slowed == slowed] for slowed in (False, True))
    equal = [_verdict(*_halves(plain, order), REPEATABILITY[kind]) for _ in range(EQUAL_PAIRS)]
    slowed_pairs = [
        _verdict(_drawn(plain, order), _drawn(slow, order), REPEATABILITY[kind]) for _ in range(SLOWED_PAIRS)
    ]
    times = torch.tensor([one.decode_ms for one in plain])
    figures: Figures = {
        "processes": len(measurements),
        "rounds": ROUNDS,
        "injected_slowdown": injected,
        "equal_pairs": len(equal),
        "equal_called_different": sum(verdict != "cannot tell" for verdict in equal),
        "slowed_pairs": len(slowed_pairs),
        "slowed_found": sum(verdict == "slower" for verdict in slowed_pairs),
        "decode_ms": float(times.median()),
        "coefficient_of_variation": float(times.std() / times.mean()),
    }
    print_figures(console, figures)
    return Measured(figures, [asdict(one) for one in measurements])


def _halves(measured: list[Measurement], order: random.Random) -> tuple[list[Measurement], list[Measurement]]:
    """Two disjoint draws of ROUNDS each. The i-th of one is a neighbour in time of the i-th of the other."""
    chosen = sorted(order.sample(measured, 2 * ROUNDS), key=lambda one: one.at_s)
    pairs = [order.sample(chosen[first : first + 2], 2) for first in range(0, len(chosen), 2)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _drawn(measured: list[Measurement], order: random.Random) -> list[Measurement]:
    return sorted(order.sample(measured, ROUNDS), key=lambda one: one.at_s)


def _verdict(a: list[Measurement], b: list[Measurement], indistinct: float) -> str:
    return compare_times(
        [one.decode_ms for one in a], [one.decode_ms for one in b], indistinct=indistinct
    ).verdict


def _decoders(device: Device, waste: float) -> list[Decoder]:
    """As many as `profiler.measuring.measure` times of such a model."""
    architecture = anchor_architecture(device.torch_device.type)
    sizes = cost(architecture, batch=1, context=CONTEXT, dtype=device.dtype)
    with shared(device.label):
        slow = type("Slow", (_SlowDecoder,), {"waste": waste})  # known before the graph is captured
        return [
            slow(random_model(architecture, device, backend="auto", seed=0), 1, CONTEXT)
            for _ in range(copies(sizes.param_bytes + sizes.state_bytes, device))
        ]


def _timed(decoders: list[Decoder], device: Device) -> Callable[[], float]:
    return lambda: step_ms(decoders, device, count=_STEPS[device.torch_device.type])


@torch.inference_mode()
def _measure(name: str, waste: float) -> tuple[float, float]:
    """Returns when the step was measured (s), and its median time (ms)."""
    device = open_device(name)
    torch.set_num_threads(1)
    decoders = _decoders(device, waste)
    with exclusive(name):
        return time.time(), sample(_timed(decoders, device), settings=_SETTINGS).median_ms


@torch.inference_mode()
def _calibrate(name: str) -> tuple[float, float]:
    """Returns the waste that makes a step about 1 + SLOWDOWN times as long, and the real slowdown."""
    device = open_device(name)
    torch.set_num_threads(1)
    decoders = _decoders(device, 0.0)
    with exclusive(name):
        wanted_ms = SLOWDOWN * sample(_timed(decoders, device), settings=_SETTINGS).median_ms
        if device.torch_device.type == "cpu":
            return wanted_ms / 1e3, SLOWDOWN
        few, many = 2000, 50_000
        few_ms, many_ms = _sleep_ms(few, device), _sleep_ms(many, device)
        waste = max(0, round(few + (wanted_ms - few_ms) * (many - few) / (many_ms - few_ms)))
        return float(waste), SLOWDOWN * _sleep_ms(waste, device) / wanted_ms


def _sleep_ms(cycles: int, device: Device) -> float:
    """Time (ms) that a kernel which idles for this many cycles adds to a graph, from a graph of many."""
    count = 200

    def sleep() -> None:
        for _ in range(count):
            torch.cuda._sleep(cycles)

    graph = captured(sleep, device=device.torch_device, warmups=0)
    return sample(lambda: device.timed(graph.replay) / count, settings=_SETTINGS).median_ms


BENCHMARK = Benchmark("power", "how well `frontrunner compare` tells two architectures apart", tell_apart)
