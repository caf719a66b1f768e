"""Measuring in llama.cpp: what is timed, and what becomes of a file that it cannot run."""

import sys
from pathlib import Path

import pytest

from operators.base.errors import CrashError, DeviceError
from operators.published.gguf_export import homes
from operators.published.gguf_export.outline import Outline
from operators.published.gguf_export.writing import write_gguf
from profiler.engines.llama_cpp import measure_gguf
from profiler.engines.llama_cpp_process import Reply, _server, _together
from profiler.profile import ProfileSettings
from tests.helpers.gguf_members import MEMBERS, random_model

pytest.importorskip("gguf")
QUICK = {"warmup": 0, "min_samples": 5, "min_seconds": 0.0, "max_seconds": 0.01}


def written(path: Path, member: str) -> Path:
    model = random_model(MEMBERS[member][1])
    write_gguf(model.architecture, model.state_dict(), None, path)
    return path


def test_each_batch_at_each_context_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    settings = ProfileSettings(batch_sizes=(1, 3), contexts=(8, 600), threads=1, **QUICK)
    profile = measure_gguf(written(tmp_path / "x.gguf", "granitehybrid"), settings)
    assert [(point.batch, point.context) for point in profile.points] == [
        (1, 8),
        (3, 8),
        (1, 600),
        (3, 600),
    ]
    assert all(min(point.decode.n, point.prefill.n) >= 5 for point in profile.points)
    assert all(point.memory_bytes > 100_000 for point in profile.points)
    few, _, many, all_rows = (point.prefill.median_ms for point in profile.points)
    assert few < many < all_rows
    assert profile.engine.startswith("llama.cpp (xllamacpp 20")


def test_a_file_that_ends_the_engine_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xllamacpp")
    right = homes.outline(MEMBERS["qwen35"][1])
    wrong = Outline(right.family, {**right.keys, "rope.dimension_sections": [0, 0, 0, 0]}, right.tensors)
    monkeypatch.setattr("operators.published.gguf_export.writing.outline", lambda _: wrong)
    path = written(tmp_path / "x.gguf", "qwen35")
    with pytest.raises(CrashError, match=r"the llama.cpp process ended by SIG\w+ while measuring ") as error:
        measure_gguf(path, ProfileSettings(batch_sizes=(1,), contexts=(8,), **QUICK))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_loaded_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    with pytest.raises(DeviceError, match=r"x\.gguf: llama\.cpp does not load it: "):
        _server(str(tmp_path / "x.gguf"), batch=1, context=8, threads=1)


def test_a_missing_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(DeviceError, match=r"llama\.cpp: needs the package xllamacpp"):
        _server("x.gguf", batch=1, context=8, threads=1)


def test_steps_count_while_every_row_decodes() -> None:
    """The second row begins after the first row's third token, and ends with its sixth."""
    first = Reply(arrived=[0, 1, 2, 3, 4, 5, 6], decoded_ms=[0, 10, 21, 33, 46, 60, 75])
    second = Reply(arrived=[2.5, 3, 4, 5], decoded_ms=[0, 1, 2, 3])
    assert _together([first, second]) == [46 - 33, 60 - 46]
    assert _together([first]) == [11, 12, 13, 14, 15]
