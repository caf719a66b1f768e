"""Profiles as people read them, and the arguments that ask for them."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from operators import Architecture
from operators.base.errors import ArchitectureError, ConfigError, DeviceError, OutOfMemoryError
from profiler.process.worker import ProfilingWorker
from profiler.profile import Energy, LargestBatch, Profile, ProfileSettings
from search.cli.arguments import joined, whole_numbers
from search.runs.sources import architecture_of
from search.view.profiles import (
    Profiled,
    print_conditions,
    print_profiles,
    profile_each,
    profiles_json,
    timings,
)
from tests.helpers import quick_profile
from tests.helpers.made_up_profile import made_up_profile

QUICK = quick_profile.QUICK.model_copy(update={"batch_sizes": (1, 2), "contexts": (8, 32)})
SMALL = Architecture.from_shorthand("a f m r", width=32, vocabulary=64)


@pytest.fixture
def profile() -> Profile:
    return made_up_profile(SMALL, QUICK)


def slower(profile: Profile, factor: float) -> Profile:
    """The same with a decode time larger by `factor`, tainted, its energy known."""
    points = tuple(
        point.model_copy(
            update={
                "decode": point.decode.model_copy(update={"median_ms": point.decode.median_ms * factor}),
                "energy": Energy(energy_j=3000.0, seconds=10.0, tokens=12_000),
            }
        )
        for point in profile.points
    )
    tainted = profile.conditions.model_copy(update={"tainted": ("drift: too much",), "attempts": 3})
    return profile.model_copy(update={"points": points, "conditions": tainted})


def printed(*profiled: Profiled) -> list[str]:
    console = Console(width=100, record=True, file=io.StringIO())
    print_profiles(console, profiled)
    return console.export_text().splitlines()


def test_a_line_for_each_point_with_the_ratio_to_the_first(profile: Profile) -> None:
    lines = printed(
        Profiled("one", profile),
        Profiled("two", slower(profile, 1.5)),
        Profiled("three", None, "out of memory: batch 2"),
    )
    cells = [line.split() for line in lines]
    assert [row[-1] for row in cells if row and row[-1] == "1.000"] == ["1.000"] * 4
    assert [row[-2:] for row in cells if row and row[-1] == "0.25!"] == [
        ["1.500", "0.25!"]
    ] * 4  # 3000 J for 12,000 tokens
    marked = [[cell for cell in row if cell.endswith("!")] for row in cells if row and row[-1] == "0.25!"]
    decode_ms = slower(profile, 1.5).points[0].decode.median_ms
    assert {len(row) for row in marked} == {5}  # prefill, decode, tokens a second, share of a copy, energy
    assert f"{decode_ms:.3f}!" in marked[0]
    assert "! two, not to be trusted after 3 attempts: drift: too much" in lines
    assert "three: out of memory: batch 2" in lines
    assert sum("!" in line for line in lines) == 4 + 1


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits_the_terminal(profile: Profile, width: int) -> None:
    largest = LargestBatch(context=32_768, batch=1024, decode=profile.points[0].decode)
    table = timings(
        [
            (
                "nemotron-flash-1b",
                profile.model_copy(update={"largest": (largest,), "largest_conditions": profile.conditions}),
            )
        ]
    )
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert sum(line.endswith("1.000") for line in text.splitlines()) == 5
    assert "1024 32768 largest" in " ".join(text.split())


def test_conditions_are_told(profile: Profile) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    print_conditions(console, slower(profile, 2))
    text = console.export_text()
    assert "anchor 0.5 ms before, 0.5 ms after (drift 0.0%, at most 50%), attempts 3, " in text
    assert "device held 0.2 s, 0.1 s of them in samples" in text
    assert "not known: nvml: a CPU has no NVML" in text
    assert "tainted by drift: too much" in text


def test_json_holds_figures_errors_and_ratios(profile: Profile) -> None:
    first, missing, second = profiles_json(
        [Profiled("one", profile), Profiled("x", None, "why"), Profiled("two", slower(profile, 1.5))]
    )
    assert missing == {"architecture": "x", "engine": "", "problem": "why"}
    assert second["ratios"]["decode_ms@b2.c32"] == pytest.approx(1.5)
    assert second["ratios"]["params"] == 1
    assert second["tainted"] == ("drift: too much",)
    assert set(first["errors"]) <= set(first["metrics"])


def test_one_that_does_not_fit_leaves_the_others(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(
        self: ProfilingWorker, architecture: Architecture, settings: ProfileSettings, **rest: object
    ) -> Profile:
        if architecture.width == 64:
            raise OutOfMemoryError("batch 2, context 8: CUDA out of memory")
        return profile

    monkeypatch.setattr(ProfilingWorker, "profile", fake)
    found = profile_each([("big", SMALL.resized(64)), ("small", SMALL)], QUICK, device="cpu", backend="auto")
    assert [(entry.title, entry.profile is not None) for entry in found] == [("big", False), ("small", True)]
    assert found[0].problem == "out_of_memory: batch 2, context 8: CUDA out of memory"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("profile a --batch 1 8 64 --context 8192", "profile a --batch 1,8,64 --context 8192"),
        ("profile --batch 1 8 a.yaml --batch 64 b", "profile --batch 1,8 a.yaml --batch 64 b"),
        ("profile a --batch 1,8 64", "profile a --batch 1,8,64"),
        ("profile a --batch=1 8 64", "profile a --batch=1,8,64"),
        ("profile --batch=1 a 8", "profile --batch=1 a 8"),
        ("profile a --batch", "profile a --batch"),
        ("profile a --batch --context 3 4", "profile a --batch --context 3,4"),
        ("profile a --engine llama.cpp transformers", "profile a --engine llama.cpp,transformers"),
        ("profile --engine llama.cpp a 8", "profile --engine llama.cpp a 8"),
        ("profile --engine llama.cpp --batch 1 8", "profile --engine llama.cpp --batch 1,8"),
        ("show first 17 18", "show first 17 18"),
        ("profile --threads 2 7", "profile --threads 2 7"),
    ],
)
def test_several_values_after_one_option(given: str, expected: str) -> None:
    assert joined(given.split()) == expected.split()


def test_numbers_are_whole() -> None:
    assert whole_numbers("--batch", ["1,8", "64"]) == (1, 8, 64)
    for bad in ("1.5", "", "1,,2", "-3", "0", "x"):
        with pytest.raises(ConfigError, match=r"^--batch: expected whole numbers"):
            whole_numbers("--batch", [bad])


def test_an_architecture_is_a_file_a_name_or_a_candidate(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("{width: 32, vocabulary: 64, layers: a f}")
    assert architecture_of(str(tmp_path / "own.yaml"), tmp_path)[0] == str(tmp_path / "own.yaml")
    assert architecture_of("smollm2-135m", tmp_path) == ("smollm2-135m", Architecture.load("smollm2-135m"))
    with pytest.raises(ArchitectureError, match="neither a file nor a shipped architecture"):
        architecture_of("nonsense", tmp_path)


def test_engines_stand_behind_our_runtime_with_what_they_ran(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each device gets its own worker, and only llama.cpp a quantization."""
    asked: list[tuple[str, str, str | None]] = []

    def measured(
        worker: ProfilingWorker, architecture: Architecture, settings: ProfileSettings, **rest: object
    ) -> Profile:
        asked.append((worker.device, str(rest["backend"]), settings.quantization))
        return profile.model_copy(
            update={"device": worker.device, "versions": {"xllamacpp": "1", "gguf": "2"}}
        )

    monkeypatch.setattr(ProfilingWorker, "profile", measured)
    monkeypatch.setattr("search.view.profiles.open_device", lambda name, *, engines: None)
    settings = QUICK.model_copy(update={"quantization": "F16"})
    named = [("one", SMALL), ("two", SMALL)]
    found = profile_each(
        named, settings, device="cpu", backend="reference", engines=["llama.cpp", "llama.cpp"]
    )
    assert asked == [("cpu", "reference", None)] * 2 + [("llama.cpp", "auto", "F16")] * 2
    assert [(each.title, each.engine) for each in found] == [
        ("one", ""),
        ("one", "llama.cpp"),
        ("two", ""),
        ("two", "llama.cpp"),
    ]
    lines = printed(*found)
    assert lines[1].endswith("(llama.cpp), float32, 1 thread: xllamacpp 1, gguf 2")
    assert sum(line.startswith("one in llama.cpp") for line in lines) == 1
    assert [each["engine"] for each in profiles_json(found)] == ["", "llama.cpp"] * 2


def test_an_engine_that_is_none_ends_the_command_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ProfilingWorker, "profile", None)
    with pytest.raises(DeviceError, match=r"^unknown engine 'nonsense': expected one of llama\.cpp, "):
        profile_each([("one", SMALL)], QUICK, device="cpu", backend="auto", engines=["nonsense"])
    with pytest.raises(DeviceError, match=r"^engine llama\.cpp: expected device cpu, got cuda:0$"):
        profile_each([("one", SMALL)], QUICK, device="cuda:0", backend="auto", engines=["llama.cpp"])
