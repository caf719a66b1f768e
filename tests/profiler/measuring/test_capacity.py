"""The largest batch against limits that are known, the energy of a counter that is known, and figures against
their definitions.
"""

import pytest
import torch

from operators import Architecture
from operators.cost import cost
from profiler.device.device import Device, open_device
from profiler.measuring import capacity
from profiler.measuring.capacity import PRECISION, largest, largest_decoder
from profiler.measuring.decode_energy import decode_energy
from profiler.measuring.decoder import random_model
from profiler.profile import REPEATABILITY, Profile
from profiler.timing import SamplingSettings, Timing, sample
from tests.helpers import quick_profile
from tests.helpers.made_up_profile import exactly as all_alike
from tests.helpers.made_up_profile import made_up_profile

SMALL = Architecture.from_shorthand("a f m r", width=32, vocabulary=64)
QUICK = quick_profile.QUICK.model_copy(update={"batch_sizes": (2,), "contexts": (16,)})

pytestmark = pytest.mark.usefixtures("own_locks")


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Garbage is not collected before each batch: it takes long, and no memory is short here."""
    monkeypatch.setattr(capacity, "collect", lambda: None)


@pytest.mark.parametrize("limit", [1, 2, 7, 63, 64, 65, 1000, 5000])
@pytest.mark.parametrize("guess", [1, 60, 64, 4000])
@pytest.mark.parametrize("upper", [64, 5000])
def test_the_largest_batch_is_found_from_any_guess(limit: int, guess: int, upper: int) -> None:
    tried: list[int] = []

    def fits(batch: int) -> bool:
        tried.append(batch)
        return batch <= limit

    found, most = largest(guess, upper, fits), min(limit, upper)
    assert (1 - PRECISION) * most - 1 <= found <= most
    assert found in tried
    assert max(tried) <= upper
    assert len(tried) <= 15
    assert len(tried) == len(set(tried))


def test_a_good_guess_is_confirmed_and_nothing_fits_is_zero() -> None:
    tried: list[int] = []
    assert largest(100, 100, lambda batch: not tried.append(batch)) == 100  # type: ignore[func-returns-value]
    assert tried == [100]
    assert largest(100, 200, lambda batch: False) == 0


def test_the_batch_fits_the_memory_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of what a CPU has free holds so many states, and their temporaries."""
    cpu, context = open_device("cpu"), 64
    row = cost(SMALL, batch=1, context=context).state_bytes
    monkeypatch.setattr(cpu, "free_memory", lambda: 80 * row)
    with torch.inference_mode():
        model = random_model(SMALL, cpu, backend="auto", seed=0)
        decoder = largest_decoder(model, context, cpu, seed=0)
        batch = decoder.tokens.shape[0]
        temporaries = cpu.peak_memory(decoder.step_eagerly)
    assert decoder.state.length == context
    # The memory stays as free as it was, and a step takes its temporaries three times from the half that is
    # not kept back.
    assert 3 * temporaries <= 40 * row
    assert 20 <= batch <= 40


def test_a_row_that_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = open_device("cpu")
    model = random_model(SMALL, cpu, backend="auto", seed=0)
    monkeypatch.setattr(cpu, "free_memory", lambda: 1000)
    with pytest.raises(MemoryError, match=r"^one row of 64 tokens needs .* GB of state, 0.00 GB are free$"):
        largest_decoder(model, 64, cpu, seed=0)


def test_an_allocation_that_fails_counts_as_not_fitting(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, most, real = open_device("cpu"), 13, capacity.filled_decoder

    def limited(model, batch, context, **rest):  # type: ignore[no-untyped-def]
        if batch > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, batch, context, **rest)

    monkeypatch.setattr(capacity, "filled_decoder", limited)
    model = random_model(SMALL, cpu, backend="auto", seed=0)
    with torch.inference_mode():
        assert largest_decoder(model, 16, cpu, seed=0).tokens.shape[0] == most


class Counter:
    """A device of 300 W whose time goes on with each burst of 0.2 s."""

    def __init__(self) -> None:
        self.now = 0.0

    def burst(self) -> None:
        self.now += 0.2

    def energy_j(self) -> float:
        return 1000 + 300 * self.now

    def power_w(self) -> float:
        return 300.0


def test_energy_is_that_of_the_tokens_in_the_window() -> None:
    counter = Counter()
    device: Device = counter  # type: ignore[assignment]
    found = decode_energy(counter.burst, device=device, seconds=5, tokens=40, clock=lambda: counter.now)
    assert found.seconds == pytest.approx(5.0, abs=0.21)
    assert found.power_w == pytest.approx(300)
    assert found.j_per_token == pytest.approx(300 * 0.2 / 40)


@pytest.fixture
def profile() -> Profile:
    return made_up_profile(SMALL, QUICK)


# What a decode step of SMALL takes on the made-up device, with 2 rows of 16 tokens (ms).
STEP_MS = 4 + 32 / 64 + 2 / 8 + 16 / 1024


def test_bandwidth_is_bytes_over_time(profile: Profile) -> None:
    metrics, decode_bytes = profile.metrics(), cost(SMALL, batch=2, context=16).decode_bytes
    assert metrics["decode_ms@b2"] == STEP_MS
    assert metrics["achieved_bytes_per_s@b2"] == pytest.approx(decode_bytes / (STEP_MS / 1e3))
    assert metrics["bandwidth_fraction@b2"] == pytest.approx(decode_bytes / (STEP_MS / 1e3) / 1e9)


def test_the_anchor_ratio_is_to_the_unit_of_the_times_and_to_both_anchors_without_one(
    profile: Profile,
) -> None:
    assert profile.metrics()["anchor_ratio@b2"] == pytest.approx(STEP_MS / 0.4)
    conditions = profile.conditions.model_copy(
        update={"anchor_before": all_alike(0.5), "anchor_after": all_alike(0.7)}
    )
    without = profile.model_copy(update={"usual_anchor_ms": None, "conditions": conditions})
    assert without.metrics()["anchor_ratio@b2"] == pytest.approx(STEP_MS / 0.6)


def exactly(*samples_ms: float) -> Timing:
    times = iter(samples_ms)
    return sample(
        lambda: next(times),
        settings=SamplingSettings(warmup=0, min_samples=len(samples_ms), max_seconds=1e-9, min_seconds=0),
    )


def test_errors_are_those_of_the_samples_but_never_less_than_processes_differ(profile: Profile) -> None:
    def error_of(decode: Timing) -> float:
        point = profile.points[0].model_copy(update={"decode": decode})
        errors = profile.model_copy(update={"points": (point,)}).errors()
        assert errors["decode_ms@b2"] == errors["decode_tokens_per_s@b2"] == errors["bandwidth_fraction@b2"]
        return errors["decode_ms@b2"]

    noisy = [1.0 + 0.1 * number for number in range(11)]
    assert error_of(exactly(*[2.0] * 11)) == REPEATABILITY["cpu"] == 0.09
    # Eight parts, one after the other, of 2, 2, 2 and five times 1 sample: their second and seventh medians,
    # 1.25 and 1.9, are 2 z apart, with z = 5 / √8.
    assert error_of(exactly(*noisy)) == pytest.approx(2 * (1.9 - 1.25) / (2 * 5 / 8**0.5) / 1.5)
    # Alike from part to part, so that the error is that of independent samples: the fourth and the thirteenth
    # of 16 are 2 z apart, with z = 9 / 4.
    assert error_of(exactly(*[1.0, 2.0] * 8)) == pytest.approx(2 * (2.0 - 1.0) / (2 * 9 / 4) / 1.5)


def test_seconds_of_the_device_count_every_run() -> None:
    times = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    settings = SamplingSettings(warmup=0, min_samples=5, min_seconds=0, max_seconds=1e-9)
    assert sample(lambda: next(times), settings=settings, runs=8).device_s == pytest.approx(15 * 8 / 1e3)
