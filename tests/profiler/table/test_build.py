"""What is measured for the latency table, and how."""

import numpy as np
import pytest

from operators import registry
from operators.architecture import Layer
from operators.base.errors import TableError
from operators.model import HybridLM
from profiler.device.device import Device
from profiler.table import build as table_build
from profiler.table.build import build, fit, layers_for, stopwatch
from profiler.table.latency_table import LatencyTable
from profiler.table.parts import Entry, Part, Point, Rest
from profiler.table.stopwatch import Stopwatch
from tests.helpers.made_up_device import DECODE, MadeUpStopwatch, hybrid, seeming_gpu

pytestmark = pytest.mark.usefixtures("own_locks")


@pytest.mark.usefixtures("made_up")
def test_recurrent_and_feedforward_layers_are_measured_once_for_all_contexts(
    table: LatencyTable, cpu: Device
) -> None:
    contexts = [Point("decode", 1, context) for context in (64, 256, 4096)]
    build(table, [hybrid("m f")], contexts, device=cpu)
    assert [(entry.name, entry.context) for entry in table.entries] == [
        ("mamba2", 1),
        ("rest", 1),
        ("swiglu", 1),
    ]


@pytest.mark.usefixtures("made_up")
def test_only_what_is_missing_is_measured(table: LatencyTable, cpu: Device) -> None:
    seen: list[tuple[str, int, int]] = []
    build(
        table,
        [hybrid()],
        [DECODE],
        device=cpu,
        on_entry=lambda entry, done, total: seen.append((entry.name, done, total)),
    )
    assert seen == [
        ("attention", 1, 5),
        ("attention", 2, 5),
        ("mamba2", 3, 5),
        ("rest", 4, 5),
        ("swiglu", 5, 5),
    ]
    before = MadeUpStopwatch.timed
    build(table, [hybrid("f m a")], [DECODE], device=cpu)
    assert MadeUpStopwatch.timed == before
    assert table.missing([hybrid()], [DECODE]) == ()
    wider = table.missing([hybrid(), hybrid("f r")], [DECODE])
    assert [(part.name, part.phase) for part in wider] == [("relu2", "decode")]


@pytest.mark.usefixtures("made_up")
def test_an_interrupted_build_keeps_what_it_measured(table: LatencyTable, cpu: Device) -> None:
    def interrupt(entry: Entry, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(table, [hybrid()], [DECODE], device=cpu, on_entry=interrupt)
    again = LatencyTable.open(table.path, cpu)
    assert len(again.entries) == 2
    seen: list[int] = []
    build(again, [hybrid()], [DECODE], device=cpu, on_entry=lambda entry, done, total: seen.append(total))
    assert seen == [3, 3, 3]


def test_fitting_takes_turns_and_stops_at_precision_or_time() -> None:
    part = Part(phase="decode", batch=1, context=1, width=64, rope=True, what=hybrid("f").layers[0])
    order: list[str] = []
    rng = np.random.default_rng(0)

    def timing(name: str, ms: float, noise: float) -> float:
        order.append(name)
        drift = 0.1 * len(order)  # a device that gets slower and slower, which neighbouring samples share
        return float(ms + drift + noise * rng.standard_normal())

    exact = fit(part, lambda: timing("k", 5.0, 0), lambda: timing("2k", 7.0, 0), 4, clock=lambda: 0.0)
    assert order[4:] == ["k", "2k"] * exact.rounds
    assert exact.rounds == 10
    assert exact.ms == pytest.approx((2.0 + 0.1) / 4)
    noisy = fit(
        part, lambda: timing("k", 5.0, 2), lambda: timing("2k", 7.0, 2), 4, clock=lambda: len(order) / 400
    )
    assert noisy.rounds == pytest.approx(200, abs=1)  # a second of this clock
    assert noisy.error_ms > 0.01 * noisy.ms
    assert abs(noisy.ms - 2.1 / 4) < 5 * noisy.error_ms


def test_a_difference_below_zero_is_no_time() -> None:
    part = Part(phase="decode", batch=1, context=1, width=64, rope=True, what=hybrid("f").layers[0])
    found = fit(part, lambda: 5.0, lambda: 4.9, 4, clock=iter(range(1000)).__next__)
    assert (found.ms, found.error_ms) == (0.0, 0.0)


def test_the_shorter_model_fits_memory(cpu: Device) -> None:
    attention = hybrid("a", width=1024).layers[0]
    counts = [
        layers_for(
            Part(phase="decode", batch=batch, context=1 << 15, width=1024, rope=True, what=attention), cpu
        )
        for batch in (1, 8, 1024)
    ]
    assert counts[0] == 4  # 128 MiB of state in each of k + 2k layers, of 2 GiB
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1


@pytest.mark.parametrize(
    ("operator", "width", "layers"),
    [("swiglu", 1024, 16), ("short_conv", 640, 29), ("swiglu", 64, 32), ("swiglu", 8192, 11)],
)
def test_on_a_gpu_the_shorter_model_does_not_fit_into_the_cache(
    monkeypatch: pytest.MonkeyPatch, operator: str, width: int, layers: int
) -> None:
    gpu = seeming_gpu(monkeypatch)
    layer = Layer(operator=operator, shape=registry.get(operator).shape.make(width))
    part = Part(phase="decode", batch=1, context=1, width=width, rope=True, what=layer)
    assert layers_for(part, gpu) == layers
    networks = 2 * registry.get("swiglu").parameters(width, registry.get("swiglu").shape.make(width))
    rest = part.model_copy(update={"what": Rest(vocabulary=2, tied_embeddings=True)})
    assert layers_for(rest, gpu) <= layers
    assert layers_for(rest, gpu) * networks >= 4 * (50 << 20) or layers == 32
    reading = [
        layers_for(part.model_copy(update={"phase": "prefill", "context": context}), gpu)
        for context in (1024, 8192, 1 << 20)
    ]
    assert reading == [8, 8, 2]


def test_memory_that_ran_out_is_an_error_that_names_the_entry(table: LatencyTable, cpu: Device) -> None:
    with pytest.raises(TableError, match=r"mamba2 \(.*batch 1000000000000, context 1: out of memory"):
        build(table, [hybrid("m f")], [Point("decode", 10**12, 16)], device=cpu)


def test_a_real_stopwatch_times_steps_at_the_end_of_the_context(cpu: Device) -> None:
    model = table_build.random_model(hybrid(meta_tokens=3), cpu, backend="auto", seed=0)
    stopwatch = Stopwatch(model, Point("decode", 2, 16), cpu)
    state = stopwatch._decoder.state
    assert all((tensor != 0).all() for layer in state.layers for tensor in layer.values())
    assert stopwatch.elapsed() > 0
    assert state.lengths == [19, 19]  # 16 and 3 meta tokens: the step was the last that fits
    reading = Stopwatch(model, Point("prefill", 2, 16), cpu)
    assert reading.elapsed() > 0
    assert reading._decoder.state.lengths == [19, 19]


def test_the_rest_of_a_decode_step_is_timed_in_several_places(
    monkeypatch: pytest.MonkeyPatch, cpu: Device
) -> None:
    """Its time is a small difference of long ones, which the place in memory changes."""
    times = iter([1.0, 2.0, 6.0])

    class Timed:
        def __init__(self, model: HybridLM, point: Point, device: Device) -> None:
            pass

        def elapsed(self) -> float:
            return next(times)

    monkeypatch.setattr(table_build, "Stopwatch", Timed)
    monkeypatch.setattr(table_build, "copies", lambda size, device: 3 if size == stored else 1)
    layer = hybrid("f").layers[0]
    rest = Part(
        phase="decode",
        batch=1,
        context=1,
        width=64,
        rope=False,
        what=Rest(vocabulary=2, tied_embeddings=True),
    )
    parameters = 64 * 2 + 64 + registry.get("swiglu").parameters(64, layer.shape) + 64  # with both norms
    stored = 4 * parameters
    assert stopwatch(rest, (layer,), cpu)() == 3.0
    assert next(times, None) is None
    times = iter([7.0, 8.0])
    monkeypatch.setattr(table_build, "copies", lambda size, device: 3)
    assert stopwatch(rest.model_copy(update={"what": layer}), (layer,), cpu)() == 7.0
    assert stopwatch(rest.model_copy(update={"phase": "prefill", "context": 4}), (layer,), cpu)() == 8.0
