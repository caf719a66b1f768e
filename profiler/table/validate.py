"""How well a latency table predicts whole models that it was not built from."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from operators.base.errors import TableError
from operators.vision.cost import parameters_of
from operators.vision.vision_language import Model, VisionLanguage
from profiler.device.device import Device
from profiler.device.lock import exclusive, shared
from profiler.device.memory import memory_errors
from profiler.measuring.anchor import Anchor
from profiler.measuring.conditions import core_share, lost_core
from profiler.measuring.decoder import random_model
from profiler.measuring.pace import Pace
from profiler.measuring.quiet_core import QuietCore, beside, held
from profiler.measuring.vision import Session, core_of_pictures
from profiler.measuring.vision import random_model as random_seeing_model
from profiler.profile import instability
from profiler.table.latency_table import Estimate, LatencyTable
from profiler.table.parts import Point, language_point
from profiler.table.stopwatch import Stopwatch
from profiler.timing import SamplingSettings, Timing, sample

_SETTINGS = SamplingSettings(warmup=3, min_samples=10, min_seconds=0.1, max_seconds=0.5)
_DRIFT, _TRIES = 0.01, 3


@dataclass(frozen=True)
class Case:
    """One model at one point, predicted and measured.

    architecture: of the model
    point: at which it was measured
    params: its number of parameters
    predicted: by the table
    measured: its samples
    drift: the relative change of the anchor model's time from before the measurement to after it
    tainted: whether every try was tainted, behind all other models too. On a GPU that is a drift above 1 %,
        or a core that took longer to prepare pictures. A CPU always drifts more, and its times are corrected
        for that (see `profiler.measuring.pace`). There it is unsteady samples, or a core that other programs
        used.
    """

    architecture: Model
    point: Point
    params: int
    predicted: Estimate
    measured: Timing
    drift: float
    tainted: bool


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of predictions at one point.

    models: how many models were measured well
    tainted: how many others were not, and are left out
    mape, p95: mean and 95th percentile of |predicted / measured − 1|
    bias: mean of predicted / measured − 1
    tau: Kendall's τ between predicted and measured times
    params_tau: Kendall's τ between numbers of parameters and measured times
    """

    models: int
    tainted: int
    mape: float
    p95: float
    bias: float
    tau: float
    params_tau: float


def validate(
    table: LatencyTable, architectures: Iterable[Model], points: Sequence[Point], device: Device
) -> Iterator[Case]:
    """Measures each model at each point; what is tainted once more, behind all others.

    Others' work on the device or its host may last for half a minute, longer than all tries of one model.
    It takes the device's locks itself.

    Raises TableError before a model with a missing entry is measured.
    """
    with shared(device.label):
        anchor = Anchor(device)
    pace = Pace(anchor)
    core = core_of_pictures(device) if any(point.phase == "first_token" for point in points) else None

    def cases(architecture: Model, points: Sequence[Point]) -> Iterator[Case]:
        predicted = {point: table.latency(architecture, point) for point in points}
        with shared(device.label), torch.inference_mode(), memory_errors():
            stopwatch_at = _stopwatches(architecture, device)
        for point in points:
            of_core = core if point.phase == "first_token" else None
            measured, drift, tainted = _measured(stopwatch_at(point), device, anchor, pace, of_core)
            yield Case(
                architecture, point, parameters_of(architecture), predicted[point], measured, drift, tainted
            )

    tainted: list[Case] = []
    for architecture in architectures:
        for case in cases(architecture, points):
            if case.tainted:
                tainted.append(case)
            else:
                yield case
    for case in tainted:
        yield from cases(case.architecture, [case.point])


def _stopwatches(model: Model, device: Device) -> Callable[[Point], Callable[[], Callable[[], float]]]:
    """From a point to what builds, under the device's lock, what times the model there (ms)."""
    if not isinstance(model, VisionLanguage):
        decoder = random_model(model, device, backend="auto", seed=0)
        return lambda point: lambda: Stopwatch(decoder, point, device).elapsed
    seeing = random_seeing_model(model, device, "auto", 0)

    def first_token(point: Point) -> Callable[[], float]:
        session = Session(seeing, point.images, point.picture, point.batch, point.context, device, 0)
        return lambda: device.timed(session.first_token)

    def at(point: Point) -> Callable[[], Callable[[], float]]:
        if point.phase == "first_token":
            return lambda: first_token(point)
        return lambda: Stopwatch(seeing.language, language_point(model, point), device).elapsed

    return at


def _measured(
    build: Callable[[], Callable[[], float]],
    device: Device,
    anchor: Anchor,
    pace: Pace,
    core: QuietCore | None,
) -> tuple[Timing, float, bool]:
    """One timing between two timings of the anchor model, again where it was tainted, see `Case`."""
    with torch.inference_mode(), memory_errors():
        with shared(device.label):
            elapsed = build()
        on_gpu = device.torch_device.type == "cuda"
        with exclusive(device.label):
            for _ in range(_TRIES):
                before = anchor.time().median_ms
                share = core_share(device)
                with held(core) as disturbed:
                    timing = sample(
                        beside(core, pace.beside(elapsed)), settings=_SETTINGS, lasting=not on_gpu
                    )
                    slower = disturbed()
                lost = lost_core(share())
                drift = anchor.time().median_ms / before - 1
                tainted = (
                    bool(slower) or abs(drift) > _DRIFT
                    if on_gpu
                    else bool(lost or instability(timing, "cpu"))
                )
                if not tainted:
                    break
    return timing, drift, tainted


def accuracy(cases: Sequence[Case]) -> Accuracy:
    """The accuracy over cases at one point.

    Raises TableError where more than half are tainted, because the remaining ones were selected by chance.
    """
    kept = [case for case in cases if not case.tainted]
    if 2 * len(kept) < max(1, len(cases)):
        raise TableError(
            f"{len(cases) - len(kept)} of {len(cases)} models could not be measured well, "
            "expected at most half: the device was not quiet "
            "(it drifted, or other programs had it); try again when it is"
        )
    predicted, measured, params = (
        np.array(values)
        for values in zip(*((c.predicted.ms, c.measured.median_ms, c.params) for c in kept), strict=True)
    )
    error = predicted / measured - 1
    return Accuracy(
        models=len(kept),
        tainted=len(cases) - len(kept),
        mape=float(np.abs(error).mean()),
        p95=float(np.percentile(np.abs(error), 95)),
        bias=float(error.mean()),
        tau=kendall_tau(predicted, measured),
        params_tau=kendall_tau(params, measured),
    )


def kendall_tau(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Kendall's τ-b (1945), which takes account of ties; NaN where all values of one side are equal."""
    from scipy import stats  # takes a second to import

    # The p-value is not used, and is cheapest by its asymptotic formula.
    return float(stats.kendalltau(a, b, method="asymptotic").statistic)
