"""Energy by the counter and by readings of the power, on a made-up device and clock."""

import pytest

from operators import Architecture
from operators.base.errors import DeviceError
from profiler.energy import Energy
from profiler.measuring.decode_energy import decode_energy, unlike_energies
from profiler.measuring.measure import warm_cache
from profiler.profile import ProfileSettings
from tests.helpers.made_up_profile import made_up_profile


def profile_of_a_small_model():
    architecture = Architecture.from_shorthand("a f", width=64, vocabulary=512)
    return made_up_profile(architecture, ProfileSettings(batch_sizes=(1,)))


class Meter:
    """A device whose power rises by 10 W a second; each burst takes 0.2 s.

    scale: of the counter
    """

    def __init__(self, scale: float = 1.0, *, blind: bool = False) -> None:
        self.now, self.scale, self.blind = 0.0, scale, blind

    def burst(self) -> None:
        self.now += 0.2

    def power_w(self) -> float:
        if self.blind:
            raise DeviceError("NVML: Not Supported")
        return 100 + 10 * self.now

    def energy_j(self) -> float:
        return self.scale * (100 * self.now + 5 * self.now**2)

    def used(self):
        return decode_energy(self.burst, device=self, seconds=5.0, tokens=8, clock=lambda: self.now)


def test_the_integral_of_the_power_is_the_energy():
    energy = Meter().used()
    # From 0.2 s on, after the burst that warms up, to 5.2 s.
    assert energy.integral_j == pytest.approx(5 * (102 + 152) / 2, rel=0.05)
    assert energy.integral_j == pytest.approx(energy.energy_j)
    assert energy.disagreement == ""


@pytest.mark.parametrize(("scale", "agree"), [(0.88, False), (0.95, True), (1.08, True), (1.2, False)])
def test_a_counter_that_differs_from_the_power_is_said(scale, agree):
    energy = Meter(scale).used()
    assert (energy.disagreement == "") == agree
    if not agree:
        assert energy.disagreement == (
            f"energy: {energy.energy_j:.4g} J by the counter, {energy.integral_j:.4g} J by the power, "
            "expected within 10%"
        )


def test_without_readings_of_the_power_the_counter_stands_alone():
    energy = Meter(blind=True).used()
    assert energy.integral_j is None
    assert energy.disagreement == ""


def test_energies_that_differ_are_noted_with_their_point():
    point = profile_of_a_small_model().points[0]
    energy = Energy(energy_j=1000, seconds=5, tokens=10, integral_j=1300)
    (note,) = unlike_energies([point, point.model_copy(update={"energy": energy})])
    assert note.startswith("energy: 1000 J by the counter, 1300 J by the power")
    assert note.endswith(f"at batch {point.batch}, context {point.context}")
    assert Energy.model_validate({"energy_j": 1, "seconds": 5, "tokens": 1}).disagreement == ""  # of before


def test_a_step_that_the_cache_holds_is_said_to_be_warm():
    point = profile_of_a_small_model().points[0]
    assert warm_cache([point], point.decode_bytes - 1) == ()
    note = warm_cache([point], point.decode_bytes)
    assert len(note) == 1
    assert note[0].startswith(
        f"L2: warm at batch {point.batch}, context {point.context}, where a decode step"
    )
