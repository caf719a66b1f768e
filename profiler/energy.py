"""The energy of decoding, by two ways that must agree."""

from operators.base.value import Value

# How far the energy by the counter and by readings of the power may be apart, relative to the counter's. NVML
# gives ± 5 % for a reading of power, and a reading is between two bursts.
MOST_ENERGY_GAP = 0.10


class Energy(Value):
    """The energy that a device used while it decoded.

    energy_j: the energy (J)
    seconds: how long it decoded (s)
    tokens: how many tokens it decoded in that time
    integral_j: the same energy as the integral of readings of its power (J); None where the driver has none,
        and in profiles that knew none
    """

    energy_j: float
    seconds: float
    tokens: int
    integral_j: float | None = None

    @property
    def disagreement(self) -> str:
        """How counter and power differ; empty where they agree."""
        if self.integral_j is None or abs(self.integral_j - self.energy_j) <= MOST_ENERGY_GAP * self.energy_j:
            return ""
        return (
            f"energy: {self.energy_j:.4g} J by the counter, {self.integral_j:.4g} J by the power, "
            f"expected within {MOST_ENERGY_GAP:.0%}"
        )

    @property
    def power_w(self) -> float:
        return self.energy_j / self.seconds

    @property
    def j_per_token(self) -> float:
        return self.energy_j / self.tokens
