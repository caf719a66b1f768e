"""Measures the entries of a latency table: what one more layer adds to a model.

A decode step is timed in two models by turns: one of k feed-forward networks, and the same with a layer
before each of them. The difference divided by k is the layer's share of a step. The layer is measured among
feed-forward networks for a reason: next to layers of its own kind, its kernels can find in the L2 cache what
other layers' weights drive out in a real model. Attention of width 1024 seemed 15 % cheaper on an H100.

A prompt is timed in models of k and of 2k equal layers. Its cost does not depend on the neighbours. It
depends on the clocks, which change with how long a device works hard.

The rest of a model is twice the time of k networks less the time of 2k networks. A percent of these times is
a large share of the rest, and on a GPU they differ by a percent from one place in memory to the next. So each
is the mean over several copies of its model (see `profiler.measuring.decoder_copies`).
"""

from collections.abc import Callable, Iterable, Sequence
from math import ceil
from statistics import fmean, median
from time import perf_counter

import torch

from operators import registry
from operators.architecture import Architecture, Layer
from operators.base.errors import TableError, flat
from operators.cost import cost
from operators.rope import Rope
from operators.vision.vision_language import Model
from profiler.device.device import Device
from profiler.device.lock import exclusive, shared
from profiler.device.memory import memory_errors
from profiler.measuring.anchor import Anchor
from profiler.measuring.conditions import core_share, lost_core
from profiler.measuring.decoder import random_model
from profiler.measuring.decoder_copies import copies
from profiler.measuring.pace import Pace
from profiler.measuring.quiet_core import QuietCore, beside, held
from profiler.measuring.vision import core_of_pictures
from profiler.profile import MOST_ERROR
from profiler.table.image_parts import PatchAttention, PatchNetwork, Pictures
from profiler.table.image_stopwatch import image_stopwatches
from profiler.table.latency_table import LatencyTable
from profiler.table.parts import Entry, Part, Point, Rest
from profiler.table.stopwatch import Stopwatch
from profiler.timing import lasting_error, standard_error

_WARMUP = 2
# Rounds go on at least so often, then until the cost is known to this relative error, or for so many seconds.
_MIN_ROUNDS, _MAX_SECONDS, _RELATIVE_ERROR = 10, 1.0, 0.01
# How often an entry is measured where other programs on a CPU disturb it.
_TRIES = 3
# A part that takes less than this share of a model's time is known well enough by that.
_NEGLIGIBLE = 0.01
# As many layers as small models have, so that the weights lie in the same caches.
_CPU_LAYERS = 4
# Layers of a decode step on a GPU: the effect of addresses is averaged over as many as models have.
_FEWEST_LAYERS, _MOST_LAYERS = 16, 32
_MOST_PREFILL_LAYERS = 8
# How many times the weights of k networks fill the L2 cache. At twice, a cache with random replacement would
# still serve a fifth of the reads.
_CACHES = 4
# Tokens that k layers read together.
_PREFILL_TOKENS = 65_536
# What weights and state of the models may take on a CPU (bytes).
_CPU_MEMORY = 2 << 30

# Called with an entry, how many are done, and how many there are.
Progress = Callable[[Entry, int, int], None]


def build(
    table: LatencyTable,
    architectures: Iterable[Model],
    points: Sequence[Point],
    *,
    device: Device,
    on_entry: Progress | None = None,
) -> None:
    """Measures and stores what the table lacks to predict these architectures at these points.

    It takes the device's locks itself.

    table: receives the entries, one after the other
    architectures: what is to be predicted
    points: at which it is to be predicted
    device: the table's device
    on_entry: called after each entry

    Raises TableError where an entry cannot be measured; the entries before it are kept.
    """
    pace = _pace(device)
    parts = sorted(
        table.missing(architectures, points), key=lambda part: (part.width, part.name, part.details)
    )
    core = core_of_pictures(device) if any(isinstance(part.what, Pictures) for part in parts) else None
    for done, part in enumerate(parts, 1):
        entry = measure_part(part, device, pace, core if isinstance(part.what, Pictures) else None)
        table.add([entry])
        if on_entry is not None:
            on_entry(entry, done, len(parts))


def _pace(device: Device) -> Pace:
    with shared(device.label):
        anchor = Anchor(device)
    return Pace(anchor)


def measure_part(part: Part, device: Device, pace: Pace, core: QuietCore | None = None) -> Entry:
    """The cost of one part, from models built for it.

    It takes the device's locks itself. Where no core was quiet in all _TRIES tries, the fastest one counts.

    core: for a part with work on the core of a GPU's host

    Raises TableError where memory runs out, and where other programs on a CPU disturbed all _TRIES tries.
    """
    layers = layers_for(part, device)
    try:
        with torch.inference_mode(), memory_errors():
            with shared(device.label):
                short, long = stopwatches(part, layers, device)
            on_cpu = device.torch_device.type == "cpu"
            tried = []
            for _ in range(_TRIES):
                with exclusive(device.label), held(core) as noisy:
                    share = core_share(device)
                    less = beside(core, pace.beside(short))
                    more = None if long is None else beside(core, pace.beside(long))
                    entry = fit(part, less, more, layers, lasting=on_cpu)
                    disturbed = (lost_core(share()) or _unstable(entry, short())) if on_cpu else noisy()
                if not disturbed:
                    return entry
                tried.append(entry)
        if not on_cpu:
            return min(tried, key=lambda entry: entry.ms)
        raise TableError(f"{part}: not measured well in {_TRIES} tries: {disturbed}")
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TableError(
            f"{part}: out of memory with {2 * layers} layers: {flat(error, at_most=200)}"
        ) from None


def stopwatches(
    part: Part, layers: int, device: Device
) -> tuple[Callable[[], float], Callable[[], float] | None]:
    """What times the shorter and the longer model (ms); None for a part that is timed by itself."""
    if isinstance(part.what, Layer | Rest):
        short, long = (stopwatch(part, stack, device) for stack in stacks(part, layers))
        return short, long
    return image_stopwatches(part, layers, device)


def stacks(part: Part, count: int) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """The layers of the shorter and of the longer model.

    part: the part to measure
    count: how many layers the shorter model has
    """
    company = _company(part.width)
    added = part.what if isinstance(part.what, Layer) else company
    beside = company if part.phase == "decode" else added
    return (beside,) * count, (added, beside) * count


def stopwatch(part: Part, layers: tuple[Layer, ...], device: Device) -> Callable[[], float]:
    """A function that times a model of these layers at the part's point (ms), in as many copies as needed."""
    rest = part.what if isinstance(part.what, Rest) else Rest(vocabulary=2, tied_embeddings=True)
    architecture = Architecture(
        width=part.width,
        vocabulary=rest.vocabulary,
        tied_embeddings=rest.tied_embeddings,
        normalized_head=rest.normalized_head,
        layers=layers,
        rope=Rope() if part.rope else None,
    )
    point, places = Point(part.phase, part.batch, part.context), 1
    if isinstance(part.what, Rest) and part.phase == "decode":
        places = copies(cost(architecture, batch=1, context=1, dtype=device.dtype).param_bytes, device)
    watches = [
        Stopwatch(random_model(architecture, device, backend="auto", seed=0), point, device)
        for _ in range(places)
    ]
    return lambda: fmean(watch.elapsed() for watch in watches)


def fit(
    part: Part,
    short: Callable[[], float],
    long: Callable[[], float] | None,
    layers: int,
    lasting: bool = False,
    clock: Callable[[], float] = perf_counter,
) -> Entry:
    """Times two models by turns, until the median is known to 1 % or a second has passed.

    part: what the models measure
    short: times the shorter model (ms)
    long: times the longer model (ms); None where the shorter one is the part itself
    layers: how many layers the shorter model has
    lasting: see `timing.sample`
    clock: returns the time (s)
    """

    def added() -> float:
        one = short()
        if long is None:
            return one
        two = long()
        return 2 * one - two if isinstance(part.what, Rest) else (two - one) / layers

    for _ in range(_WARMUP):
        added()
    costs: list[float] = []
    started = clock()
    while True:
        costs.append(added())
        if len(costs) < _MIN_ROUNDS:
            continue
        error_ms = lasting_error(costs) if lasting else standard_error(sorted(costs))
        if error_ms <= _RELATIVE_ERROR * median(costs) or clock() - started >= _MAX_SECONDS:
            # Nothing takes less than no time: a noisy difference below zero means that the part is cheap.
            return Entry(**dict(part), ms=max(0.0, median(costs)), error_ms=error_ms, rounds=len(costs))


def _unstable(entry: Entry, model_ms: float) -> str:
    """Why an entry is not clean by its own rounds; empty where it is clean or hardly counts in its model."""
    off = 2 * entry.error_ms
    if off <= max(MOST_ERROR * entry.ms, _NEGLIGIBLE * model_ms):
        return ""
    percent = f"{off / entry.ms:.0%} of {entry.ms:.3g} ms" if entry.ms else f"{off:.3g} ms of nothing"
    return f"unstable: ± {percent}, expected at most ± {MOST_ERROR:.0%}"


def layers_for(part: Part, device: Device) -> int:
    """How many layers k the shorter model has."""
    if not isinstance(part.what, Layer | Rest):
        return _halves_for(part, device)
    company, itemsize, on_gpu = (
        _company(part.width),
        device.dtype.itemsize,
        device.torch_device.type == "cuda",
    )
    layer = part.what if isinstance(part.what, Layer) else company
    weights = registry.get(company.operator).parameters(part.width, company.shape) * itemsize
    state = sum(
        spec.bytes
        for spec in registry.get(layer.operator)
        .state(layer.shape, part.batch, part.context, device.dtype)
        .values()
    )
    added = registry.get(layer.operator).parameters(part.width, layer.shape) * itemsize + state
    # Bytes of both models together, for each layer of the shorter one.
    both = added + 2 * weights if part.phase == "decode" else 3 * added
    if isinstance(part.what, Rest) and not (on_gpu and part.phase == "decode"):
        # The fewer layers, the less of their noise. No cache has to be emptied here.
        wanted = 1
    elif not on_gpu:
        wanted = _CPU_LAYERS
    elif part.phase == "prefill":
        wanted = min(max(_PREFILL_TOKENS // (part.batch * part.context), 2), _MOST_PREFILL_LAYERS)
    else:
        cache = torch.cuda.get_device_properties(device.torch_device).L2_cache_size
        fewest = 2 if isinstance(part.what, Rest) else _FEWEST_LAYERS
        wanted = min(max(ceil(_CACHES * cache / weights), fewest), _MOST_LAYERS)
    return max(1, min(wanted, memory_for_models(device) // both))


def _halves_for(part: Part, device: Device) -> int:
    """How many halves of blocks the shorter tower has; 1 for other parts before the language model."""
    if not isinstance(part.what, PatchAttention | PatchNetwork):
        return 1
    if device.torch_device.type == "cpu":
        return _CPU_LAYERS
    return min(max(_PREFILL_TOKENS // (part.batch * part.context), 2), _MOST_PREFILL_LAYERS)


def memory_for_models(device: Device) -> int:
    """Bytes that weights and state of a table's models may take; the rest is for temporaries."""
    if device.torch_device.type == "cpu":
        return _CPU_MEMORY
    return int(torch.cuda.get_device_properties(device.torch_device).total_memory // 2)


def _company(width: int) -> Layer:
    return Layer(operator="swiglu", shape=registry.get("swiglu").shape.make(width))
