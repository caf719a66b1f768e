"""Measuring in llama.cpp: what is timed, and what becomes of a file that it cannot run."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from operators.architecture import Architecture
from operators.base.errors import ArchitectureError, BackendError, CrashError, DeviceError
from operators.cost import cost
from operators.published.gguf_export import homes
from operators.published.gguf_export.outline import Outline
from operators.published.gguf_export.sizes import gguf_cost
from operators.published.gguf_export.writing import write_gguf
from profiler.device.device import open_device
from profiler.engines import llama_cpp, llama_cpp_process
from profiler.engines.llama_cpp import LlamaCpp, more_steps
from profiler.engines.llama_cpp_messages import Decoding, Opening, Reading
from profiler.engines.llama_cpp_process import Loaded, Reply, _server, during
from profiler.engines.measure import measure_in_engine
from profiler.engines.sessions import steps_around
from profiler.measuring.measure import measure
from profiler.profile import ProfileSettings
from tests.helpers.gguf_members import MEMBERS, random_model

gguf = pytest.importorskip("gguf")
QUICK = {"warmup": 0, "min_samples": 5, "min_seconds": 0.0, "max_seconds": 0.01, "attempts": 1}
ONE = MEMBERS["granitehybrid"][1]


def written(path: Path, member: str) -> Path:
    model = random_model(MEMBERS[member][1])
    write_gguf(model.architecture, model.state_dict(), None, path)
    return path


@pytest.fixture
def engine() -> Iterator[LlamaCpp]:
    pytest.importorskip("xllamacpp")
    engine = LlamaCpp()
    yield engine
    engine.close()


def test_each_batch_at_each_context_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xllamacpp")
    opened: list[tuple[int, int, int]] = []

    class Watched(LlamaCpp):
        def _asked(self, request: Reading | Decoding | Opening, phase: str) -> Any:
            if isinstance(request, Opening):
                opened.append((request.batch, request.context, request.prompt))
            return super()._asked(request, phase)

    monkeypatch.setattr(llama_cpp, "LlamaCpp", Watched)
    settings = ProfileSettings(batch_sizes=(1, 3), contexts=(8, 300), quantization="F16", **QUICK)
    profile = measure(ONE, settings, device="llama.cpp")
    assert [(point.batch, point.context) for point in profile.points] == [
        (1, 8),
        (3, 8),
        (1, 300),
        (3, 300),
    ]
    assert all(min(point.decode.n, point.prefill.n) >= 5 for point in profile.points)
    # Weights, a cache and buffers of such a model, and not what libraries keep.
    assert all(100_000 < point.peak_memory_bytes < 50_000_000 for point in profile.points)
    assert opened == [(batch, context, steps_around(context)[0]) for context in (8, 300) for batch in (1, 3)]
    assert (profile.device, profile.dtype) == ("llama.cpp", "F16")
    assert profile.versions["xllamacpp"].startswith("20")
    assert "CPU" in profile.versions["llama.cpp"]
    assert profile.errors().keys() >= {"decode_ms@b1", "prefill_ms@b3.c300"}


def test_every_row_reads_all_tokens_of_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a server that keeps what it is asked for."""
    asked: list[tuple[int, int]] = []

    class Server:
        def handle_completions(self, request: dict[str, Any]) -> dict[str, Any]:
            asked.append((len(request["prompt"]), request["n_predict"]))
            return {"timings": {"predicted_n": request["n_predict"], "predicted_ms": 1e9}}

    monkeypatch.setattr(llama_cpp_process, "_server", lambda _: Server())
    loaded = Loaded(Opening("x.gguf", batch=3, context=300, prompt=9, steps=4, more=5, threads=1))
    asked.clear()
    loaded.read()
    assert asked == [(300, 1)] * 3
    asked.clear()
    loaded.decode()
    assert sorted(asked) == [(9, 4), (9, 9), (9, 9)]


def test_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    """The sizes of every tensor are read back, by the package that other programs read GGUF files with."""
    for member in ("llama", "llama-tied", "granitehybrid-with-holes"):
        architecture = MEMBERS[member][1]
        for dtype in ("F32", "Q8_0"):
            path = tmp_path / f"{member}-{dtype}.gguf"
            write_gguf(architecture, random_model(architecture).state_dict(), None, path, dtype=dtype)
            stored = {tensor.name: int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors}
            found = gguf_cost(architecture, batch=1, context=10, dtype=dtype)
            assert found.param_bytes == sum(stored.values())
            row = stored["token_embd.weight"] // architecture.vocabulary
            unread = stored["token_embd.weight"] if "output.weight" in stored else 0
            moved = found.kv_bytes + 2 * found.recurrent_bytes
            assert found.decode_bytes == found.param_bytes - unread + row + moved


def test_keys_and_values_have_two_bytes_and_other_state_four() -> None:
    ours = cost(ONE, batch=2, context=10)
    theirs = gguf_cost(ONE, batch=2, context=10, dtype="Q8_0")
    assert theirs.kv_bytes == ours.kv_bytes // 2
    assert theirs.recurrent_bytes == ours.recurrent_bytes


def test_what_no_file_holds_is_named() -> None:
    pytest.importorskip("xllamacpp")
    other = Architecture.from_shorthand(
        "a f", width=64, vocabulary=64, genes={"attention": {"qk_norm": "full"}}
    )
    with pytest.raises(ArchitectureError, match=r"^layers\.0\.shape\.qk_norm: expected .* got full"):
        measure(other, ProfileSettings(**QUICK), device="llama.cpp")


def test_a_file_that_ends_the_engine_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: LlamaCpp
) -> None:
    right = homes.outline(MEMBERS["qwen35"][1])
    wrong = Outline(right.family, {**right.keys, "rope.dimension_sections": [0, 0, 0, 0]}, right.tensors)
    monkeypatch.setattr("operators.published.gguf_export.writing.outline", lambda _: wrong)
    path = written(tmp_path / "x.gguf", "qwen35")
    with pytest.raises(CrashError, match=r"the llama.cpp process ended by SIG\w+ while loading ") as error:
        engine.session(path, 1, 8, cost(ONE, batch=1, context=8), threads=1)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_loaded_is_one_line_and_the_next_one_is_measured(
    tmp_path: Path, engine: LlamaCpp
) -> None:
    damaged, whole = tmp_path / "x.gguf", written(tmp_path / "y.gguf", "llama")
    damaged.write_bytes(whole.read_bytes()[:5000])
    point = {"batch": 2, "context": 8, "cost": cost(ONE, batch=1, context=8), "threads": 1}
    with pytest.raises(BackendError, match=r"x\.gguf: llama\.cpp does not load it: ") as error:
        engine.session(damaged, **point)
    assert "\n" not in str(error.value)
    milliseconds, steps = engine.session(whole, **point).decode()
    assert milliseconds > 0
    assert steps == steps_around(8)[1] - 1


def test_a_context_beyond_the_file_s_is_one_line(tmp_path: Path, engine: LlamaCpp) -> None:
    model = random_model(MEMBERS["llama"][1])
    write_gguf(model.architecture, model.state_dict(), None, tmp_path / "x.gguf", context=64)
    with pytest.raises(BackendError, match=r"^llama\.cpp does not read 300 tokens and decode 1: ") as error:
        engine.session(tmp_path / "x.gguf", 1, 300, cost(ONE, batch=1, context=8), threads=1)
    assert "\n" not in str(error.value)


def test_a_missing_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(DeviceError, match=r"^llama\.cpp: needs the package xllamacpp \(`pip install"):
        _server(Opening("x.gguf", 1, 8, 4, 4, 0, 1))
    with pytest.raises(DeviceError, match=r"^llama\.cpp: needs the package xllamacpp \(`pip install"):
        open_device("llama.cpp", engines=True)


def test_memory_that_is_not_there_is_named_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("xllamacpp")
    device = open_device("llama.cpp", engines=True)
    monkeypatch.setattr(device, "free_memory", lambda: 1000)
    monkeypatch.setattr("profiler.engines.llama_cpp.write_gguf", None)
    with pytest.raises(MemoryError, match=r"need 0\.\d+ GB in llama\.cpp, 1e-06 GB are free"):
        measure_in_engine(ONE, ProfileSettings(**QUICK), device=device)


@pytest.mark.parametrize(
    ("others", "counts"),
    [
        ([], True),
        ([Reply(end=12.0, decoding_s=9.0)], True),  # from 3 to 12
        ([Reply(end=12.0, decoding_s=7.7)], True),  # from 4.3: not in 5 of 100 parts of the time
        ([Reply(end=12.0, decoding_s=7.0)], False),  # from 5
        ([Reply(end=12.0, decoding_s=9.0), Reply(end=8.0, decoding_s=9.0)], False),  # until 8
    ],
)
def test_a_step_counts_while_every_row_decodes(others: list[Reply], counts: bool) -> None:
    """The last row decodes from 4 to 10."""
    assert during(Reply(end=10.0, decoding_s=6.0), others) == counts


def test_the_context_is_in_the_middle_of_the_steps() -> None:
    for context in (4, 8, 100, 8192):
        prompt, steps = steps_around(context)
        assert abs(prompt + steps / 2 - context) <= 1
        assert prompt >= 1
        assert steps >= 4
    assert more_steps(1, 8192) == 0
    assert more_steps(8, 8192) - more_steps(8, 256) == 31  # 64 k tokens are read in 32 parts, 2 k in one
