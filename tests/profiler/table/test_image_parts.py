"""Models that see in the latency table: sums by hand, what is missing, and a real table on the CPU."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from operators import VisionLanguage
from operators.base.errors import TableError
from profiler.device.device import Device
from profiler.measuring import conditions
from profiler.table import build as table_build
from profiler.table import validate as table_validate
from profiler.table.build import build
from profiler.table.image_stopwatch import _launches
from profiler.table.latency_table import LatencyTable, Validation
from profiler.table.parts import Entry, Part, Point, image_parts_of
from profiler.table.validate import validate
from tests.helpers.made_up_device import seeming_gpu
from tests.helpers.vision_models import vision_language

POINT = Point("first_token", 2, 7, 3)
MIXED = vision_language(
    depth=3,
    rope_theta=100,
    norms=[{"repeat": 1}, {"repeat": 2, "norm": "rmsnorm", "norm_position": "after"}],
    language={"layers": "f f a"},
)
MS = {
    **{
        "pictures": 100.0,
        "tower ends": 20.0,
        "patch attention": 3.0,
        "patch network": 0.5,
        "projector": 0.07,
    },
    **{"attention": 1000.0, "swiglu": 300.0, "rest": 5000.0},
}

pytestmark = pytest.mark.usefixtures("own_locks")


def entry(part: Part) -> Entry:
    return Entry(**dict(part), ms=MS[part.name], error_ms=0.01, rounds=9)


def made_up_core(taints: Iterator[str]) -> Any:
    return SimpleNamespace(held=lambda: nullcontext(lambda: next(taints)), beside=lambda elapsed: elapsed)


def filled(table: LatencyTable, model: VisionLanguage, point: Point = POINT) -> LatencyTable:
    table.add(map(entry, table.missing([model], [point])))
    return table


def test_the_time_to_the_first_token_is_the_sum_of_all_parts(table: LatencyTable) -> None:
    estimate = filled(table, MIXED).latency(MIXED, POINT)
    of_tower = 100 + 20 + 3 * (3.0 + 0.5) + 0.07
    assert estimate.ms == pytest.approx(of_tower + 2 * 300 + 1000 + 5000)
    # Equal layers have one error: of one half of a block twice, of the other normalization's once.
    squares = [1, 1, 1, 1, 4, 4, 1, 4, 1, 1]
    assert estimate.error_ms == pytest.approx(0.01 * sum(squares) ** 0.5)


def test_parts_say_what_they_depend_on(table: LatencyTable) -> None:
    parts = {(part.name, part.details): (part, count) for part, count in image_parts_of(MIXED, POINT)}
    assert len(parts) == 7
    for part, _ in parts.values():
        assert part.batch == 2 * 3  # images
        assert (part.context, part.width) == ((1, 0) if part.name == "pictures" else (16, 24))
    rotated = {details for name, details in parts if name == "patch attention"}
    assert rotated == {"heads=3 bias=True layernorm before rope", "heads=3 bias=True rmsnorm after rope"}
    reading = {part.context for part in table.missing([MIXED], [POINT]) if part.phase == "prefill"}
    assert reading == {7 + 3 * MIXED.image_tokens}


def test_decoding_and_reading_are_those_of_the_decoder_behind_its_images(table: LatencyTable) -> None:
    for phase in ("decode", "prefill"):
        filled(table, MIXED, Point(phase, 2, 7, 3))
        behind = Point(phase, 2, 7 + 3 * MIXED.image_tokens)
        assert table.latency(MIXED, Point(phase, 2, 7, 3)) == table.latency(MIXED.language, behind)


def test_a_table_of_images_is_read_back(table: LatencyTable, cpu: Device) -> None:
    filled(table, MIXED)
    kept = Validation(space="x", **POINT._asdict(), models=40, p95=0.1)
    table.add((), [kept])
    again = LatencyTable.open(table.path, cpu)
    assert again.entries == table.entries
    assert again.latency(MIXED, POINT) == table.latency(MIXED, POINT)
    assert again.validation("x", POINT) == kept
    assert again.validation("x", POINT._replace(images=1)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"qk_norm": "head"},
        {"heads": 6},
        {"hidden": 41},
        {"feedforward": "swiglu"},
        {"bias": False},
        {"norms": {"norm": "layernorm"}},
        {"rope_theta": None},
        {"position_bias": False},
        {"final_norm": "rmsnorm"},
        {"patch_size": 8},
        {"image_size": 32},
        {"projector": {"hidden": [9]}},
        {"language": {"layers": "f a", "width": 48}},
    ],
)
def test_another_model_needs_other_entries_and_the_error_names_them(
    table: LatencyTable, change: dict[str, object]
) -> None:
    norms = [{"repeat": 2, "norm": "rmsnorm", "norm_position": "after"}]
    first = vision_language(**{"rope_theta": 100, "norms": norms, "language": {"layers": "f a"}})
    other = vision_language(**{"rope_theta": 100, "norms": norms, "language": {"layers": "f a"}, **change})
    filled(table, first)
    assert table.missing([other], [POINT])
    with pytest.raises(TableError, match=r"entries are missing, which `frontrunner table build` measures: "):
        table.latency(other, POINT)


@torch.inference_mode()
def test_the_parts_in_a_row_are_what_a_tower_computes(cpu: Device) -> None:
    """Shapes and counts of what is timed: as many patches, halves and image tokens as the model has."""
    for part, _ in image_parts_of(MIXED, Point("first_token", 1, 7, 2)):
        if part.name == "pictures":
            continue
        short, long = _launches(part, 2, cpu)
        if part.name == "projector":
            assert short().shape == (2, MIXED.image_tokens, MIXED.language.width)
        elif part.name == "tower ends":
            assert short().shape == (2, 4, 4, 24)
        else:
            assert long is not None
            assert short().shape == long().shape == (2, 16, 24)
            assert not torch.equal(short(), long())  # the longer one goes through more
        assert (long is None) == (part.name in ("projector", "tower ends"))


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(("at_last", "tainted"), [([""], False), (["slower"] * 3, True)])
def test_a_first_token_is_measured_again_where_the_core_was_slower_then_behind_all_others(
    table: LatencyTable, monkeypatch: pytest.MonkeyPatch, at_last: list[str], tainted: bool
) -> None:
    """Decode steps are the GPU's alone: they do not ask the core."""
    told = iter([*["slower"] * 3, "slower", "", *at_last])
    core = made_up_core(told)
    monkeypatch.setattr(table_validate, "core_of_pictures", lambda device: core)
    monkeypatch.setattr(table_validate, "_stopwatches", lambda model, device: lambda at: lambda: lambda: 1.0)
    decode = Point("decode", 1, 8, 1)
    filled(filled(table, MIXED), MIXED, decode)
    found = validate(table, [MIXED, MIXED], [POINT, decode], seeming_gpu(monkeypatch))
    assert [(case.point, case.tainted) for case in found] == [
        (decode, False),
        (POINT, False),
        (decode, False),
        (POINT, tainted),
    ]
    assert next(told, None) is None


@pytest.mark.slow
def test_a_real_table_on_the_cpu_predicts_a_model_that_sees(
    table: LatencyTable, cpu: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(table_build, "_MAX_SECONDS", 0.02)
    monkeypatch.setattr(conditions, "LEAST_SHARE", 0.0)
    monkeypatch.setattr(table_build, "MOST_ERROR", 1e9)  # on a busy machine too
    points = [Point("first_token", 1, 8, 1), Point("decode", 1, 8, 1)]
    model = vision_language(language={"layers": "a f"})
    build(table, [model], points, device=cpu)
    assert table.missing([model], points) == ()
    cases = {case.point: case for case in validate(table, [model], points, cpu)}
    first, decode = (cases[point] for point in points)
    assert all(case.measured.n > 1 and case.measured.median_ms > 0 for case in (first, decode))
    assert min(first.predicted.ms, decode.predicted.ms) > 0


@pytest.mark.parametrize(
    ("told", "times", "ms"), [(["slower", ""], [9, 6], 6), (["slower"] * 3, [6, 5, 7], 5)]
)
def test_pictures_are_measured_until_the_core_was_quiet_or_the_fastest_try_counts(
    table: LatencyTable,
    monkeypatch: pytest.MonkeyPatch,
    told: list[str],
    times: list[float],
    ms: float,
) -> None:
    """The other parts are the GPU's alone: they do not ask the core."""
    left = iter(told)
    core = made_up_core(left)
    of_pictures = iter(times)

    def fit(part: Part, *_: object, **__: object) -> Entry:
        return entry(part).model_copy(update={"ms": next(of_pictures)} if part.name == "pictures" else {})

    monkeypatch.setattr(table_build, "_pace", lambda _: SimpleNamespace(beside=lambda run: run))
    monkeypatch.setattr(table_build, "core_of_pictures", lambda device: core)
    monkeypatch.setattr(table_build, "layers_for", lambda part, device: 1)
    monkeypatch.setattr(table_build, "stopwatches", lambda part, layers, device: (None, None))
    monkeypatch.setattr(table_build, "fit", fit)
    build(table, [MIXED], [POINT], device=seeming_gpu(monkeypatch))
    assert [entry.ms for entry in table.entries if entry.name == "pictures"] == [ms]
    assert next(left, None) is next(of_pictures, None) is None
