"""The latency table on a device whose times are known: what it measures, stores and predicts."""

import json
import multiprocessing
import tempfile
import time
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from operators import Architecture, registry
from operators.architecture import Layer, Rope
from operators.errors import TableError
from profiler import table_build, table_validate
from profiler.device import Device, open_device, torch_threads
from profiler.latency_table import LatencyTable, conditions, default_path
from profiler.stopwatch import Stopwatch
from profiler.table_build import build, fit, layers_for
from profiler.table_parts import Entry, Part, Point, Rest
from profiler.table_validate import accuracy, kendall_tau, validate
from profiler.timing import SamplingSettings, Timing, sample

WINDOW = 64
DECODE, PREFILL = Point("decode", 1, 256), Point("prefill", 1, 256)


@pytest.fixture(autouse=True)
def _locks_of_this_test_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def cpu() -> Device:
    return open_device("cpu")


@pytest.fixture
def table(tmp_path: Path, cpu: Device) -> LatencyTable:
    return LatencyTable.open(tmp_path / "table.json", cpu)


def layer_ms(layer: Layer, architecture: Architecture, point: Point) -> float:
    """What a layer costs on the made-up device; every part of the key changes it."""
    tokens = point.context + architecture.meta_tokens
    base = {"attention": 0.3, "mamba2": 0.21, "swiglu": 0.11}[layer.operator] * architecture.width / 64 + 0.01 * point.batch
    base += 0.02 * (layer.norm == "layernorm") + 0.03 * (layer.norm_position == "after") + 0.04 * (architecture.rope is None)
    if layer.operator == "swiglu":
        base *= layer.shape.hidden / 128  # type: ignore[attr-defined]
    if point.phase == "prefill":
        return base * tokens / 7
    if layer.operator == "attention":
        base += 0.002 * min(tokens, layer.shape.window or tokens)  # type: ignore[attr-defined]
    return base


def rest_ms(architecture: Architecture, point: Point) -> float:
    tokens = point.context + architecture.meta_tokens if point.phase == "prefill" else 0
    return 1e-4 * architecture.vocabulary + 0.05 * (not architecture.tied_embeddings) + 1e-3 * tokens


def model_ms(architecture: Architecture, point: Point) -> float:
    return rest_ms(architecture, point) + sum(layer_ms(layer, architecture, point) for layer in architecture.layers)


class MadeUpStopwatch:
    """Stands where models are timed: the time of a model is exactly the sum of its layers and its rest."""

    timed = 0

    def __init__(self, model: Architecture, point: Point, device: Device) -> None:
        self.ms = model_ms(model, point)

    def elapsed(self) -> float:
        MadeUpStopwatch.timed += 1
        return self.ms


class MadeUpAnchor:
    """The anchor model of a device whose clocks change: its times, one after the other, then the last for ever."""

    times: ClassVar[list[float]] = [1.0]

    def __init__(self, device: Device) -> None:
        self._times = list(MadeUpAnchor.times)

    def time(self) -> Timing:
        ms = self._times.pop(0) if len(self._times) > 1 else self._times[0]
        return Timing(median_ms=ms, iqr_ms=0, p90_ms=ms, n=10, stopped_by="precision", samples_ms=(ms,) * 10)


def seeming_gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device that says it is an H100; what would run there is made up."""
    gpu = open_device("cpu")
    gpu.torch_device, gpu.dtype = torch.device("cuda"), torch.bfloat16
    properties = SimpleNamespace(L2_cache_size=50 << 20, total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    return gpu


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> type[MadeUpStopwatch]:
    monkeypatch.setattr(table_validate, "Anchor", MadeUpAnchor)
    monkeypatch.setattr(table_validate, "_SETTINGS", SamplingSettings(min_seconds=0))
    for module in (table_build, table_validate):
        monkeypatch.setattr(module, "Stopwatch", MadeUpStopwatch)
        monkeypatch.setattr(module, "random_model", lambda architecture, *_, **__: architecture)
    return MadeUpStopwatch


def hybrid(text: str = "a f m f f a m f", width: int = 64, window: int | None = None, **rest: object) -> Architecture:
    genes = {"attention": {"head_dim": 32, "window": window}}
    return Architecture.from_shorthand(text, width=width, vocabulary=512, genes=genes, **rest)


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(
    "architecture",
    [
        hybrid(),
        hybrid(window=WINDOW, width=128),
        hybrid(tied_embeddings=False, meta_tokens=5),
        hybrid(rope=None),
        Architecture.model_validate(
            {**hybrid().model_dump(), "layers": [{**layer.model_dump(), "norm": "layernorm"} for layer in hybrid().layers]}
        ),
    ],
)
@pytest.mark.parametrize("point", [DECODE, PREFILL, Point("decode", 3, 100)])
def test_where_costs_add_up_every_model_of_known_layers_is_predicted_exactly(
    table: LatencyTable, cpu: Device, architecture: Architecture, point: Point
) -> None:
    build(table, [architecture], [point], device=cpu)
    other = architecture.model_copy(update={"layers": (*architecture.layers[2:], *architecture.layers)})
    for model in (architecture, other):
        found = table.latency(model, point)
        assert found.ms == pytest.approx(model_ms(model, point), rel=1e-9)
        assert found.error_ms == pytest.approx(0, abs=1e-9)


def test_a_layer_costs_what_it_does_beside_feed_forward_networks(
    table: LatencyTable, cpu: Device, monkeypatch: pytest.MonkeyPatch, made_up: type[MadeUpStopwatch]
) -> None:
    def made_up_ms(architecture: Architecture, point: Point) -> float:
        """Attention takes longer where the layer before it, the last one being before the first, is something else."""
        layers = [layer.operator for layer in architecture.layers]
        disturbed = sum(layer == "attention" != before for before, layer in zip(layers[-1:] + layers[:-1], layers, strict=True))
        return model_ms(architecture, point) + 0.07 * disturbed

    monkeypatch.setattr(made_up, "__init__", lambda self, model, point, device: setattr(self, "ms", made_up_ms(model, point)))
    model = hybrid("a f a f f a f")
    build(table, [model], [DECODE], device=cpu)
    assert table.latency(model, DECODE).ms == pytest.approx(made_up_ms(model, DECODE), rel=1e-9)


@pytest.mark.usefixtures("made_up")
def test_attention_follows_a_line_up_to_its_window(table: LatencyTable, cpu: Device) -> None:
    full, windowed = hybrid("a f"), hybrid("a f", window=WINDOW)
    build(table, [full, windowed], [DECODE], device=cpu)
    for context in (128, 129, 200, 256, 270):
        point = Point("decode", 1, context)
        assert table.latency(full, point).ms == pytest.approx(model_ms(full, point))
        assert table.latency(windowed, point).ms == pytest.approx(model_ms(windowed, point))
    assert table.latency(windowed, Point("decode", 1, 100_000)).ms == pytest.approx(model_ms(windowed, DECODE))
    assert [part.context for part in table.missing([full], [Point("decode", 1, context) for context in (260, 1000, 1040)])] == [1000, 500]
    for context in (127, 300):  # a line says little about what lies far from it
        with pytest.raises(TableError, match="attention"):
            table.latency(full, Point("decode", 1, context))


@pytest.mark.usefixtures("made_up")
def test_recurrent_and_feedforward_layers_are_measured_once_for_all_contexts(table: LatencyTable, cpu: Device) -> None:
    contexts = [Point("decode", 1, context) for context in (64, 256, 4096)]
    build(table, [hybrid("m f")], contexts, device=cpu)
    assert [(entry.name, entry.context) for entry in table.entries] == [("mamba2", 1), ("rest", 1), ("swiglu", 1)]


@pytest.mark.usefixtures("made_up")
def test_only_what_is_missing_is_measured(table: LatencyTable, cpu: Device) -> None:
    seen: list[tuple[str, int, int]] = []
    build(table, [hybrid()], [DECODE], device=cpu, on_entry=lambda entry, done, total: seen.append((entry.name, done, total)))
    assert seen == [("attention", 1, 5), ("attention", 2, 5), ("mamba2", 3, 5), ("rest", 4, 5), ("swiglu", 5, 5)]
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


@pytest.mark.usefixtures("made_up")
def test_predicting_measures_nothing_and_sums_by_hand(table: LatencyTable, cpu: Device) -> None:
    architecture = hybrid("a f m f f")
    build(table, [architecture], [DECODE, PREFILL], device=cpu)
    before = MadeUpStopwatch.timed
    found = table.predict(architecture, batch=1, context=256)
    assert MadeUpStopwatch.timed == before
    # width 64, batch 1: attention 0.31 + 0.002 · 256, mamba2 0.22, swiglu (0.12 · 192 / 128) three times, rest 0.0512
    assert found.decode.ms == pytest.approx(0.31 + 0.512 + 0.22 + 3 * 0.18 + 0.0512)
    assert found.prefill.ms == pytest.approx((0.31 + 0.22 + 3 * 0.18) * 256 / 7 + 0.0512 + 0.256)
    assert found.decode_tokens_per_s == pytest.approx(1e3 / 1.6332)


def test_errors_of_equal_layers_add_up_and_those_of_different_ones_as_squares(table: LatencyTable) -> None:
    layers = hybrid("m f").layers
    given = {"phase": "decode", "batch": 1, "context": 1, "width": 64, "ms": 1.0, "rounds": 10}
    table.add(
        [
            Entry(**given, rope=True, what=layers[0], error_ms=0.01),
            Entry(**given, rope=True, what=layers[1], error_ms=0.02),
            Entry(**given, rope=False, what=Rest(vocabulary=512, tied_embeddings=True), error_ms=0.0),
        ]
    )
    assert table.latency(hybrid("m m m f f"), DECODE).error_ms == pytest.approx((0.03**2 + 0.04**2) ** 0.5)


def test_a_prediction_is_quick(table: LatencyTable, cpu: Device, made_up: object) -> None:
    deep = hybrid("a f m f f a " * 5)
    build(table, [deep], [DECODE, PREFILL], device=cpu)
    table.predict(deep, batch=1, context=256)

    def seconds() -> float:
        started = time.perf_counter()
        for _ in range(50):
            table.predict(deep, batch=1, context=256)
        return (time.perf_counter() - started) / 50

    assert min(seconds() for _ in range(10)) < 100e-6


@pytest.mark.usefixtures("made_up")
def test_missing_entries_are_named(table: LatencyTable, cpu: Device) -> None:
    build(table, [hybrid("m f")], [DECODE], device=cpu)
    with pytest.raises(TableError) as caught:
        table.latency(hybrid(), DECODE)
    said = str(caught.value)
    assert "2 entries are missing" in said
    assert "attention (heads=2 kv_heads=1 head_dim=32) at width 64, decode, batch 1, context 256" in said
    assert "frontrunner table build" in said
    assert "mamba2" not in said
    with pytest.raises(TableError, match="batch 7"):
        table.latency(hybrid("m f"), Point("decode", 7, 256))
    with pytest.raises(TableError, match="vocabulary=513"):
        table.latency(hybrid("m f").model_copy(update={"vocabulary": 513}), DECODE)


@pytest.mark.usefixtures("made_up")
def test_a_table_is_read_as_it_was_written(table: LatencyTable, cpu: Device) -> None:
    build(table, [hybrid(), hybrid(rope=Rope(theta=5e5))], [DECODE, PREFILL], device=cpu)
    again = LatencyTable.open(table.path, cpu)
    assert again.entries == table.entries
    assert len(again.entries) == 9  # the angle of rotary positions changes no kernel
    assert again.predict(hybrid(), batch=1, context=256) == table.predict(hybrid(), batch=1, context=256)
    assert again.conditions == conditions(cpu)


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("name", ["name", "torch", "threads", "code"])
def test_entries_of_other_conditions_are_never_mixed_in(table: LatencyTable, cpu: Device, name: str) -> None:
    build(table, [hybrid("m f")], [DECODE], device=cpu)
    stored = json.loads(table.path.read_text())
    stored["conditions"][name] = "other"
    table.path.write_text(json.dumps(stored))
    here = conditions(cpu)[name]
    with pytest.raises(TableError) as opened:
        LatencyTable.open(table.path, cpu)
    with pytest.raises(TableError) as extended:
        build(table, [hybrid()], [DECODE], device=cpu)
    for caught in (opened, extended):
        assert f"measured under other conditions: {name} other there, {here} here" in str(caught.value)
    assert json.loads(table.path.read_text()) == stored
    assert len(LatencyTable.read(table.path).entries) == 3


def test_threads_are_a_condition(cpu: Device, tmp_path: Path) -> None:
    one = default_path(cpu, folder=tmp_path)
    with torch_threads(2):
        assert default_path(cpu, folder=tmp_path) != one
    assert default_path(cpu, folder=tmp_path) == one


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 3, "entries": []}', '{"format": 4, "conditions": {}, "entries": []}', "\x00"]
)
def test_a_damaged_table_is_said_to_be_one(table: LatencyTable, cpu: Device, content: str) -> None:
    table.path.write_text(content)
    for read in (lambda: LatencyTable.read(table.path), lambda: LatencyTable.open(table.path, cpu), lambda: table.add([])):
        with pytest.raises(TableError, match="no latency table, or a damaged one: ") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_table_that_cannot_be_read_or_written_is_one_line(table: LatencyTable, tmp_path: Path, cpu: Device) -> None:
    with pytest.raises(TableError, match=r"none\.json: cannot be read: No such file"):
        LatencyTable.read(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(TableError, match="cannot be written: "):
        LatencyTable.open(tmp_path / "file" / "table.json", cpu).add([])


def _add(path: Path, widths: range) -> None:
    table = LatencyTable.open(path, open_device("cpu"))
    for width in widths:
        what = Rest(vocabulary=512, tied_embeddings=True)
        table.add([Entry(phase="decode", batch=1, context=1, width=width, rope=False, what=what, ms=1.0, error_ms=0.0, rounds=10)])


def test_processes_that_extend_a_table_at_once_lose_nothing(tmp_path: Path) -> None:
    path, fork = tmp_path / "table.json", multiprocessing.get_context("fork")
    processes = [fork.Process(target=_add, args=(path, range(first, first + 8))) for first in (0, 100, 200)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    widths = {entry.width for entry in LatencyTable.read(path).entries}
    assert widths == {first + number for first in (0, 100, 200) for number in range(8)}


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
    noisy = fit(part, lambda: timing("k", 5.0, 2), lambda: timing("2k", 7.0, 2), 4, clock=lambda: len(order) / 400)
    assert noisy.rounds == pytest.approx(200, abs=1)  # a second of this clock
    assert noisy.error_ms > 0.01 * noisy.ms
    assert abs(noisy.ms - 2.1 / 4) < 5 * noisy.error_ms


def test_the_shorter_model_fits_memory(cpu: Device) -> None:
    attention = hybrid("a", width=1024).layers[0]
    counts = [
        layers_for(Part(phase="decode", batch=batch, context=1 << 15, width=1024, rope=True, what=attention), cpu) for batch in (1, 8, 1024)
    ]
    assert counts[0] == 4  # 128 MiB of state in each of k + 2k layers, of 2 GiB
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1


def test_a_difference_below_zero_is_no_time() -> None:
    part = Part(phase="decode", batch=1, context=1, width=64, rope=True, what=hybrid("f").layers[0])
    found = fit(part, lambda: 5.0, lambda: 4.9, 4, clock=iter(range(1000)).__next__)
    assert (found.ms, found.error_ms) == (0.0, 0.0)


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
    reading = [layers_for(part.model_copy(update={"phase": "prefill", "context": context}), gpu) for context in (1024, 8192, 1 << 20)]
    assert reading == [8, 8, 2]


def test_memory_that_ran_out_is_an_error_that_names_the_entry(table: LatencyTable, cpu: Device) -> None:
    with pytest.raises(TableError, match=r"mamba2 \(.*batch 1000000000000, context 1: out of memory"):
        build(table, [hybrid("m f")], [Point("decode", 10**12, 16)], device=cpu)


def test_held_out_models_are_compared_with_their_sums(table: LatencyTable, cpu: Device, made_up: object) -> None:
    models = [hybrid("a f " * depth + "m " * (3 - depth)) for depth in (1, 2, 3)]
    build(table, models, [DECODE, PREFILL], device=cpu)
    cases = list(validate(table, models, [DECODE, PREFILL], cpu))
    assert [(case.architecture, case.point) for case in cases] == [(model, point) for model in models for point in (DECODE, PREFILL)]
    for case in cases:
        assert case.predicted.ms == pytest.approx(case.measured.median_ms)
        assert not case.tainted
    found = accuracy([case for case in cases if case.point == DECODE])
    assert (found.models, found.tainted) == (3, 0)
    assert (found.mape, found.bias, found.p95) == pytest.approx((0, 0, 0), abs=1e-9)
    assert found.tau == 1


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(
    ("anchor", "drift", "tainted"),
    [([1.0, 1.005], 0.005, False), ([1.0, 1.05, 1.05, 1.05], 0.0, False), ([1.0, 1.1, 1.2, 1.3, 1.4, 1.5], 1.5 / 1.4 - 1, True)],
)
def test_a_gpu_that_drifts_is_measured_again_and_at_last_reported(
    table: LatencyTable, monkeypatch: pytest.MonkeyPatch, anchor: list[float], drift: float, tainted: bool
) -> None:
    gpu = seeming_gpu(monkeypatch)
    build(table, [hybrid()], [DECODE], device=gpu)
    monkeypatch.setattr(MadeUpAnchor, "times", anchor)
    case = next(validate(table, [hybrid()], [DECODE], gpu))
    assert case.tainted == tainted
    assert case.drift == pytest.approx(drift)


@pytest.mark.usefixtures("made_up")
def test_figures_by_their_definitions_and_without_what_is_tainted(table: LatencyTable, cpu: Device) -> None:
    build(table, [hybrid()], [DECODE], device=cpu)
    case = next(validate(table, [hybrid()], [DECODE], cpu))
    measured = [10.0, 20.0, 40.0, 50.0]
    predicted = [11.0, 19.0, 40.0, 45.0]
    settings = SamplingSettings(min_samples=5, min_seconds=0)
    changed = [
        table_validate.Case(
            case.architecture,
            DECODE,
            params,
            table_validate.Estimate(guess, 0.0),
            sample(lambda ms=ms: ms, settings=settings),  # type: ignore[misc]
            0.0,
            tainted,
        )
        for ms, guess, params, tainted in zip([*measured, 1.0], [*predicted, 9.0], [4, 3, 2, 1, 9], [False] * 4 + [True], strict=True)
    ]
    found = accuracy(changed)
    assert (found.models, found.tainted) == (4, 1)
    assert found.mape == pytest.approx((0.1 + 0.05 + 0 + 0.1) / 4)
    assert found.bias == pytest.approx((0.1 - 0.05 + 0 - 0.1) / 4)
    assert found.p95 == pytest.approx(0.1)
    assert (found.tau, found.params_tau) == (1, -1)
    with pytest.raises(TableError, match="drifted"):
        accuracy(changed[-1:])


def test_kendalls_tau_counts_pairs() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = rng.integers(0, 6, 12).tolist(), rng.integers(0, 6, 12).tolist()
        pairs = list(combinations(range(12), 2))
        signs = [np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i, j in pairs]
        untied = [sum(x[i] != x[j] for i, j in pairs) for x in (a, b)]
        assert kendall_tau(a, b) == pytest.approx(sum(signs) / (untied[0] * untied[1]) ** 0.5)
    assert np.isnan(kendall_tau([1, 1], [1, 2]))


@pytest.mark.slow
def test_a_real_table_on_the_cpu_has_every_entry_it_needs(table: LatencyTable, cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_build, "_MAX_SECONDS", 0.05)
    models, points = [hybrid("a f m f", width=64), hybrid("m f")], [Point("decode", 2, 24), Point("prefill", 2, 24)]
    build(table, models, points, device=cpu)
    assert {(entry.name, entry.phase, entry.context) for entry in table.entries} == {
        *((name, "decode", context) for name, context in (("attention", 12), ("attention", 24), ("mamba2", 1), ("swiglu", 1), ("rest", 1))),
        *((name, "prefill", 24) for name in ("attention", "mamba2", "swiglu", "rest")),
    }
    cases = list(validate(table, models, points, cpu))
    assert len(cases) == 4
    assert all(case.measured.median_ms > 0 and case.measured.n >= 10 for case in cases)


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpus_table_is_built_and_close(tmp_path: Path) -> None:
    gpu, points = open_device("cuda"), [Point("decode", 1, 512), Point("prefill", 1, 512)]
    model = Architecture.from_shorthand("a f " * 6, width=1024, vocabulary=32_768)
    table = LatencyTable.open(tmp_path / "table.json", gpu)
    build(table, [model], points, device=gpu)
    for case in validate(table, [model], points, gpu):
        assert case.predicted.ms == pytest.approx(case.measured.median_ms, rel=0.1)
