"""The latency table against measured models: figures by their definitions, drift, and real tables."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from operators import Architecture
from operators.base.errors import TableError
from profiler.device.device import Device, open_device
from profiler.measuring import conditions
from profiler.table import build as table_build
from profiler.table import validate as table_validate
from profiler.table.build import build
from profiler.table.latency_table import LatencyTable
from profiler.table.parts import Point
from profiler.table.validate import accuracy, kendall_tau, validate
from profiler.timing import SamplingSettings, sample
from tests.helpers.made_up_device import DECODE, PREFILL, MadeUpAnchor, hybrid, seeming_gpu

pytestmark = pytest.mark.usefixtures("own_locks")


def test_held_out_models_are_compared_with_their_sums(
    table: LatencyTable, cpu: Device, made_up: object
) -> None:
    models = [hybrid("a f " * depth + "m " * (3 - depth)) for depth in (1, 2, 3)]
    build(table, models, [DECODE, PREFILL], device=cpu)
    cases = list(validate(table, models, [DECODE, PREFILL], cpu))
    assert [(case.architecture, case.point) for case in cases] == [
        (model, point) for model in models for point in (DECODE, PREFILL)
    ]
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
    [
        ([1.0, 1.005], 0.005, False),
        ([1.0, 1.05, 1.05, 1.05], 0.0, False),
        ([1.0, 1.1, 1.2, 1.3, 1.4, 1.5], 0.0, False),  # behind all others
        ([1.0 + 0.1 * count for count in range(12)], 2.1 / 2.0 - 1, True),
    ],
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
        for ms, guess, params, tainted in zip(
            [*measured, 1.0], [*predicted, 9.0], [4, 3, 2, 1, 9], [False] * 4 + [True], strict=True
        )
    ]
    found = accuracy(changed)
    assert (found.models, found.tainted) == (4, 1)
    assert found.mape == pytest.approx((0.1 + 0.05 + 0 + 0.1) / 4)
    assert found.bias == pytest.approx((0.1 - 0.05 + 0 - 0.1) / 4)
    assert found.p95 == pytest.approx(0.1)
    assert (found.tau, found.params_tau) == (1, -1)
    with pytest.raises(TableError, match=r"^1 of 1 models could not be measured well, expected at most half"):
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
def test_a_real_table_on_the_cpu_has_every_entry_it_needs(
    table: LatencyTable, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_build, "_MAX_SECONDS", 0.05)
    monkeypatch.setattr(conditions, "LEAST_SHARE", 0.0)
    monkeypatch.setattr(table_build, "MOST_ERROR", 1e9)  # on a busy machine too
    models, points = (
        [hybrid("a f m f", width=64), hybrid("m f")],
        [Point("decode", 2, 24), Point("prefill", 2, 24)],
    )
    build(table, models, points, device=cpu)
    assert {(entry.name, entry.phase, entry.context) for entry in table.entries} == {
        *(
            (name, "decode", context)
            for name, context in (
                ("attention", 12),
                ("attention", 24),
                ("mamba2", 1),
                ("swiglu", 1),
                ("rest", 1),
            )
        ),
        *((name, "prefill", 24) for name in ("attention", "mamba2", "swiglu", "rest")),
    }
    cases = list(validate(table, models, points, cpu))
    assert len(cases) == 4
    assert all(case.measured.median_ms > 0 and case.measured.n >= 10 for case in cases)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpus_table_is_built_and_close(tmp_path: Path) -> None:
    gpu, points = open_device("cuda"), [Point("decode", 1, 512), Point("prefill", 1, 512)]
    model = Architecture.from_shorthand("a f " * 6, width=1024, vocabulary=32_768)
    table = LatencyTable.open(tmp_path / "table.json", gpu)
    build(table, [model], points, device=gpu)
    for case in validate(table, [model], points, gpu):
        assert case.predicted.ms == pytest.approx(case.measured.median_ms, rel=0.1)
