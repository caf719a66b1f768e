"""docs/gpus.md against the bounds that the code has for a measurement."""

from profiler.measuring.conditions import LEAST_SHARE, MAX_DRIFT, MAX_PACE
from profiler.measuring.quiet_core import MOST_DISTURBED, MOST_SLOWER
from profiler.profile import MOST_ERROR, ProfileSettings
from tests.docs.pages import ROOT, rows, section

CONDITIONS = section((ROOT / "docs" / "gpus.md").read_text(encoding="utf-8"), "Conditions of a measurement")


def percent(share: float) -> str:
    return f"more than {share * 100:g} %"


def test_bounds_of_a_measurement_are_those_of_the_code() -> None:
    drift, others, clocks, unstable = ([on_gpu, on_cpu] for _, on_gpu, on_cpu in rows(CONDITIONS))
    for cell, kind in zip(drift, ("cuda", "cpu"), strict=True):
        assert percent(MAX_DRIFT[kind]) in cell
    assert percent(round(1 - LEAST_SHARE, 6)) in others[1]
    assert MAX_PACE == 2
    assert "less than half or more than twice as long" in clocks[1]
    assert all(percent(MOST_ERROR) in cell for cell in unstable)
    assert f"{percent(MOST_SLOWER)} longer than at its fastest" in CONDITIONS.replace("\n", " ")
    assert f"such samples are {percent(MOST_DISTURBED)} of all" in CONDITIONS.replace("\n", " ")
    assert ProfileSettings().attempts == 3
    assert "up to three attempts in all" in CONDITIONS
