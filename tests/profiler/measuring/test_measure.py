"""Measuring on the CPU: complete, repeatable where it can be, and without a trace left behind."""

import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from operators import Architecture, HybridLM, registry
from operators.base.errors import BackendError, DeviceError
from operators.base.threads import torch_threads
from operators.cost import cost
from operators.model import ModelState
from profiler.device.device import Device, open_device
from profiler.device.lock import exclusive, shared
from profiler.device.memory import memory_errors
from profiler.measuring import anchor as anchoring
from profiler.measuring import capacity, conditions, pace
from profiler.measuring import measure as measuring
from profiler.measuring.measure import measure
from profiler.profile import METRICS, Profile, ProfileSettings
from tests.helpers import quick_profile

QUICK = quick_profile.QUICK.model_copy(update={"batch_sizes": (1, 3), "contexts": (12, 20)})
SMALL = Architecture.from_shorthand("a f a r", width=32, vocabulary=64, meta_tokens=2)

pytestmark = pytest.mark.usefixtures("own_locks")


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps of the anchor: what a busy machine does to that has its tests beside this file."""
    monkeypatch.setattr(pace, "_STEPS", 1)
    few = {"min_samples": 5, "min_seconds": 0.0, "max_seconds": 0.01}
    monkeypatch.setattr(anchoring, "_SETTINGS", anchoring._SETTINGS.model_copy(update=few))


def test_metrics_are_complete_and_positive() -> None:
    profile = measure(SMALL, QUICK)
    measured = {name: metric for name, metric in METRICS.items() if not metric.needs}
    expected = {
        f"{name}@b{batch}{at}"
        for name, metric in measured.items()
        if metric.per == "batch"
        for batch in (1, 3)
        for at in ("", ".c20")
    }
    assert set(profile.metrics()) == expected | {"params", "param_bytes"}
    assert all(
        value > 0 for name, value in profile.metrics().items() if not name.startswith("recurrent_bytes")
    )
    arithmetic = cost(SMALL, batch=3, context=20)
    assert (profile.params, profile.param_bytes) == (arithmetic.params, arithmetic.param_bytes)
    assert profile.metrics()["state_bytes@b3.c20"] == arithmetic.state_bytes
    assert profile.metrics()["decode_tokens_per_s@b3"] == pytest.approx(
        3e3 / profile.metrics()["decode_ms@b3"]
    )
    assert profile.backends == {"attention": "sdpa", "swiglu": "reference", "relu2": "reference"}
    assert (profile.device, profile.dtype, profile.threads, profile.contexts) == (
        "cpu",
        "float32",
        1,
        (12, 20),
    )
    assert {"python", "torch", "frontrunner"} <= set(profile.versions)
    assert profile.lock_s > profile.conditions.busy_s > 0
    assert profile.datasheet_bytes_per_s is None
    assert profile.usual_anchor_ms is not None
    assert profile.metrics()["anchor_ratio@b3"] == pytest.approx(
        profile.metrics()["decode_ms@b3"] / profile.usual_anchor_ms
    )
    assert "nvml: a CPU has no NVML" in profile.conditions.notes


def test_the_state_has_a_part_that_grows_and_one_that_does_not() -> None:
    hybrid = Architecture.from_shorthand(
        "a m", width=64, vocabulary=64, genes={"attention": {"head_dim": 16, "group": 2}}
    )
    shape = hybrid.layers[1].shape
    metrics = measure(hybrid, QUICK).metrics()
    heads = hybrid.layers[0].shape.model_dump()
    assert (
        metrics["kv_bytes@b3"] == 2 * 3 * 12 * heads["kv_heads"] * 16 * 4
    )  # keys and values, rows, tokens, heads of 16, float32
    assert metrics["kv_bytes@b3.c20"] == metrics["kv_bytes@b3"] / 12 * 20
    specs = registry.get("mamba2").state(shape, 3, 99, torch.float32)
    assert (
        metrics["recurrent_bytes@b3"]
        == metrics["recurrent_bytes@b3.c20"]
        == sum(spec.bytes for spec in specs.values())
        > 0
    )
    assert metrics["state_bytes@b3"] == metrics["kv_bytes@b3"] + metrics["recurrent_bytes@b3"]


def test_the_largest_batch_is_decoded_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(capacity._CAP, "cpu", 5)
    alone = measure(SMALL, QUICK.model_copy(update={"largest_batch": True, "batch_sizes": ()}))
    assert alone.points == ()
    assert set(alone.metrics()) == {"params", "param_bytes", "largest_batch", "throughput_tokens_per_s"} | {
        f"{name}@c20" for name in ("largest_batch", "throughput_tokens_per_s")
    }
    profile = measure(SMALL, QUICK.model_copy(update={"largest_batch": True, "batch_sizes": (1,)}))
    metrics = profile.metrics()
    assert (metrics["largest_batch"], metrics["largest_batch@c20"]) == (5, 5)
    assert metrics["throughput_tokens_per_s@c20"] == pytest.approx(5e3 / profile.largest[1].decode.median_ms)
    assert set(profile.errors()) >= {
        "throughput_tokens_per_s",
        "throughput_tokens_per_s@c20",
        "decode_ms@b1.c20",
        "prefill_ms@b1",
    }
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


def test_energy_is_absent_with_its_reason() -> None:
    profile = measure(
        SMALL, QUICK.model_copy(update={"energy_seconds": 5.0, "batch_sizes": (1,), "contexts": (12,)})
    )
    assert set(profile.absent) == {"energy_j_per_token", "power_w"}
    assert "a CPU has none here" in profile.absent["power_w"]
    assert "power_w@b1" not in profile.metrics()


def test_every_operator_can_be_measured() -> None:
    everything = Architecture.from_shorthand(" ".join(registry.names()), width=64, vocabulary=64)
    assert set(measure(everything, QUICK).backends) == set(registry.names())


def test_json_round_trip() -> None:
    profile = measure(SMALL, QUICK)
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


def test_twice_the_depth_is_slower() -> None:
    # Four times as deep, a margin of 1.3 and three tries: a sanity check that a busy machine does not upset.
    for _ in range(3):
        shallow, deep = (
            measure(Architecture.from_shorthand("a f " * depth, width=128, vocabulary=64), QUICK).metrics()
            for depth in (2, 8)
        )
        ratios = [deep[name] / shallow[name] for name in ("decode_ms@b1", "prefill_ms@b3")]
        if min(ratios) > 1.3:
            return
    assert min(ratios) > 1.3


def test_every_step_sees_the_same_context(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, list[int]]] = []
    step = HybridLM.step

    def recording(
        self: HybridLM, tokens: torch.Tensor, state: ModelState, chosen: Any = None
    ) -> torch.Tensor:
        seen.append((state.length, state.position.tolist()))
        return step(self, tokens, state, chosen)

    monkeypatch.setattr(HybridLM, "step", recording)
    measure(SMALL, QUICK)
    anchor = (anchoring.CONTEXT - 1, [anchoring.CONTEXT - 1])
    held = [
        (context + 2 - 1, batch) for context in (12, 20) for batch in (1, 3)
    ]  # with meta tokens, without the token that the step reads
    assert {str(entry) for entry in seen} == {str((length, [length] * batch)) for length, batch in held} | {
        str(anchor)
    }
    assert len(seen) > 20


def test_inputs_come_from_the_seed_and_are_not_zero(cpu: Device) -> None:
    def weights_and_tokens(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        model = measuring.random_model(SMALL, cpu, backend="auto", seed=seed)
        session = measuring._session(
            [model], 3, 12, cost(SMALL, batch=3, context=12), cpu, lambda: 0.0, seed=seed, pool=None
        )
        return torch.cat([parameter.flatten() for parameter in model.parameters()]), session.prompt.tokens

    first, again, other = (weights_and_tokens(seed) for seed in (1, 1, 2))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(first, other, strict=True))
    assert all((tensor != 0).float().mean() > 0.9 for tensor in first)


def test_nothing_is_left_changed() -> None:
    random = torch.get_rng_state()
    with torch_threads(2):
        profile = measure(SMALL, QUICK)
        assert torch.get_num_threads() == 2
    assert profile.threads == 1
    assert torch.equal(torch.get_rng_state(), random)
    assert not torch.is_inference_mode_enabled()


def test_timing_holds_the_device_alone_and_building_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    places = {
        "shared": measuring,
        "random_model": measuring,
        "Decoder": measuring,
        "point": measuring._Measurer,
        "exclusive": conditions,
    }
    for name, module in places.items():
        function = getattr(module, name)

        def recording(
            *arguments: object, _name: str = name, _function: object = function, **named: object
        ) -> object:
            order.append(_name)
            return _function(*arguments, **named)  # type: ignore[operator]

        monkeypatch.setattr(module, name, recording)
    measure(SMALL, QUICK.model_copy(update={"contexts": (12,)}))
    assert order == [
        "shared",
        "random_model",
        "Decoder",
        "Decoder",
        "exclusive",
        "point",
        "point",
    ]


def test_who_wants_the_device_does_not_wait_until_a_whole_model_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    had = threading.Event()

    def alone() -> None:
        with exclusive("cpu"):
            had.set()

    waiting, known, build = threading.Thread(target=alone), list[bool](), measuring.Decoder

    def building(*arguments: Any) -> Any:
        if not known:
            waiting.start()
            with suppress(DeviceError):  # raised once the other one keeps newcomers out
                while True:
                    with shared("cpu", timeout_s=0.0):
                        time.sleep(0.001)
        known.append(had.is_set())
        return build(*arguments)

    monkeypatch.setattr(measuring, "Decoder", building)
    measure(SMALL, QUICK.model_copy(update={"contexts": (12,)}))
    waiting.join()
    assert known == [False, True]


def test_peak_memory_is_exact_and_repeatable(cpu: Device) -> None:
    def allocate() -> torch.Tensor:
        first = torch.randn(1000)  # 4000 bytes
        second = torch.cat([first, first])  # 12000 together
        del first
        return torch.cat([second, second])  # 8000 + 16000, the most at one moment

    assert [cpu.peak_memory(allocate) for _ in range(3)] == [24_000] * 3
    first, again = (measure(SMALL, QUICK) for _ in range(2))
    for batch, same in zip(first.points, again.points, strict=True):
        assert batch.peak_memory_bytes == same.peak_memory_bytes > first.param_bytes + batch.state_bytes


def test_peak_memory_says_nothing_on_its_own() -> None:
    # Kineto reads how much to say at its first use, so nothing may have used it in this process before.
    code = (
        "import torch; from profiler.device.device import open_device;"
        "open_device('cpu').peak_memory(lambda: torch.ones(3))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")


@pytest.mark.parametrize(
    "change", [{"batch_sizes": (1, 10**13)}, {"contexts": (12, 10**13), "batch_sizes": (1,)}]
)
def test_running_out_of_memory_names_the_batch_and_the_context(change: dict[str, tuple[int, ...]]) -> None:
    batch, context = max(change.get("batch_sizes", (1,))), max(change.get("contexts", (12,)))
    with pytest.raises(MemoryError, match=f"^batch {batch}, context {context}: weights .* that are free$"):
        measure(SMALL, QUICK.model_copy(update=change))


def test_an_allocation_that_fails_is_named_too() -> None:
    with (
        pytest.raises(MemoryError, match=r"^batch 7, context 9: .*can't allocate memory"),
        memory_errors("batch 7, context 9"),
    ):
        torch.empty(10**17)


def test_the_cpu_describes_itself(cpu: Device) -> None:
    cpu.synchronize()
    assert cpu.describe() == {"device": "cpu", "name": cpu.name, **cpu.versions()}
    assert cpu.name
    assert cpu.timed(lambda: sum(range(10_000))) > 0


def test_the_mean_time_leaves_out_what_comes_before(cpu: Device) -> None:
    calls: list[str] = []

    def before() -> None:
        calls.append("before")
        time.sleep(0.01)

    assert 0 < cpu.mean_time(lambda: calls.append("run"), before=before, count=3) < 5
    assert calls == ["before", "run"] * 3


@pytest.mark.parametrize("name", ["tpu", "", "CPU", "cuda:x", "cuda:", "cpu:0"])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(
        DeviceError, match=f"^unknown device '{name}': expected cpu, cuda or cuda:N, or an engine"
    ):
        measure(SMALL, QUICK, device=name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:99"])
def test_an_absent_gpu_is_refused_with_the_reason(name: str) -> None:
    if name != "cuda:99" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(DeviceError, match=f"^device {name}: .{{20}}") as caught:
        measure(SMALL, QUICK, device=name)
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_measured_in_bfloat16() -> None:
    profile = measure(SMALL, QUICK, device="cuda")
    assert (profile.device, profile.dtype) == ("cuda:0", "bfloat16")
    assert {name for name, value in profile.metrics().items() if not value > 0} == {
        key for key in profile.metrics() if key.startswith("recurrent_bytes")
    }
    assert profile.versions["driver"][0].isdigit()
    assert all(batch.peak_memory_bytes > profile.param_bytes + batch.state_bytes for batch in profile.points)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_tells_its_conditions_its_energy_and_its_largest_batch() -> None:
    wide = Architecture.from_shorthand("a f m f", width=2048, vocabulary=32_768)
    settings = ProfileSettings(batch_sizes=(1,), contexts=(32_768,), energy_seconds=5, largest_batch=True)
    profile = measure(wide, settings, device="cuda")
    after, metrics = profile.conditions.after, profile.metrics()
    assert after.sm_clock_mhz is not None
    assert after.sm_clock_mhz > 1000  # busy, not idle
    assert 50 < metrics["power_w@b1"] < 1500
    assert 0 < metrics["bandwidth_fraction@b1"] < 1
    row = cost(wide, batch=1, context=32_768, dtype=torch.bfloat16).state_bytes
    total = torch.cuda.get_device_properties(0).total_memory
    assert 0.7 * total < metrics["largest_batch"] * row < total
    again = measure(
        wide, settings.model_copy(update={"energy_seconds": 0.0, "largest_batch": False}), device="cuda"
    )
    assert again.points  # the process is whole after every allocation that failed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_left_as_it_was() -> None:
    random = torch.cuda.get_rng_state()
    first, again = (
        measuring.random_model(SMALL, open_device("cuda"), backend="auto", seed=3) for _ in range(2)
    )
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), again.parameters(), strict=True))
    assert torch.equal(torch.cuda.get_rng_state(), random)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(BackendError):
        measure(SMALL, QUICK, backend="none_such")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_sizes": []}, "batch_sizes: expected at least one, or largest_batch"),
        ({"batch_sizes": [0]}, "greater than or equal to 1"),
        ({"batch_sizes": [2, 2]}, "without repetition"),
        ({"contexts": 0}, "greater than or equal to 1"),
        ({"contexts": [2, 2]}, "contexts without repetition"),
        ({"energy_seconds": 2}, "expected 0 .not measured. or at least 5"),
        ({"threads": 0}, "greater than or equal to 1"),
        ({"device": "cpu"}, "unknown key device"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ProfileSettings.model_validate(change)
