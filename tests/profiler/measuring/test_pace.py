"""Times at one pace, on a machine whose anchor is made up."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from operators.base.errors import DeviceError
from profiler.device.device import Device
from profiler.measuring import pace
from profiler.measuring.pace import Pace, kept_in, usual_ms
from profiler.profile import MOST_ERROR, error_of, instability
from profiler.timing import SamplingSettings, lasting_error, sample, standard_error

pytestmark = pytest.mark.usefixtures("own_locks")


class Machine:
    """Runs at `pace` times its usual one; a step of its anchor usually takes 0.5 ms."""

    def __init__(self, device: Device) -> None:
        self.device, self.pace = device, 1.0

    def step(self) -> float:
        return 0.5 / self.pace


@pytest.fixture
def machine(cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pace, "Anchor", Machine)
    monkeypatch.setattr(pace, "_FIRST_S", 0.0)
    return Machine(cpu)


def test_a_time_is_the_same_at_any_pace(machine: Machine) -> None:
    timed = Pace(machine).beside(lambda: 3.0 / machine.pace)  # type: ignore[arg-type]
    for machine.pace in (1.0, 0.5, 0.5, 2.0, 2.0):
        timed()
        assert timed() == pytest.approx(3.0)


def test_the_unit_is_kept_for_the_processes_to_come(machine: Machine, cpu: Device) -> None:
    assert usual_ms(cpu) == 0.5
    machine.pace = 0.1
    assert Pace(machine).usual_ms == usual_ms(cpu) == 0.5  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content", ["", "{}", '{"anchor_ms": "fast"}', '{"anchor_ms": 0}', "[1]", '{"anchor_ms": NaN}']
)
def test_a_damaged_unit_is_refused(machine: Machine, cpu: Device, content: str) -> None:
    usual_ms(cpu)
    kept_in(cpu).write_text(content)
    with pytest.raises(DeviceError, match="remove the file") as caught:
        usual_ms(cpu)
    assert str(kept_in(cpu)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named(
    machine: Machine, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", __file__)
    with pytest.raises(DeviceError, match=r"^the pace of this machine cannot be kept: .*set XDG_CACHE_HOME"):
        usual_ms(cpu)


def test_a_gpus_times_are_left_as_they_are() -> None:
    gpu = SimpleNamespace(device=SimpleNamespace(torch_device=SimpleNamespace(type="cuda")))
    run = lambda: 1.0  # noqa: E731
    assert Pace(gpu).beside(run) is run  # type: ignore[arg-type]


def test_what_outlasts_a_sample_shows_in_the_error() -> None:
    steady = np.random.default_rng(0).normal(1.0, 0.02, 400)
    disturbed = np.where(
        np.arange(400) % 200 < 100, steady, 2 * steady
    )  # every other quarter at half the pace
    assert 2 * lasting_error(steady.tolist()) < 0.01
    assert standard_error(sorted(np.random.default_rng(1).permutation(steady))) <= lasting_error(
        steady.tolist()
    )
    assert 2 * lasting_error(disturbed.tolist()) / np.median(disturbed) > MOST_ERROR
    settings = SamplingSettings(warmup=0, min_samples=400, min_seconds=0, max_seconds=0.001)
    values = iter(disturbed.tolist())
    clock = iter((0.0, 1.0))
    timing = sample(lambda: next(values), settings=settings, lasting=True, clock=lambda: next(clock))
    assert instability(timing, "cpu").startswith("unstable: ± ")
    assert error_of(timing, "cpu") >= error_of(timing, "cuda")
