"""A prefill on which nothing depends is timed briefly, and no measurement is made again for it."""

import pytest

from operators import Architecture
from profiler.measuring.conditions import unsteady
from profiler.measuring.measure import measure
from profiler.timing import Timing
from tests.helpers import quick_profile

QUICK = quick_profile.QUICK
SMALL = Architecture.from_shorthand("a f", width=32, vocabulary=64)

pytestmark = pytest.mark.usefixtures("own_locks")


def test_a_brief_prefill_has_five_samples_and_asks_for_no_second_measurement() -> None:
    thorough = QUICK.model_copy(update={"min_samples": 20, "brief_prefill": True, "attempts": 1})
    (point, *_) = measure(SMALL, thorough).points
    assert point.prefill.n == 5
    assert point.decode.n >= 20
    of_any = {"iqr_ms": 0.0, "p90_ms": 9.0, "n": 5, "stopped_by": "time"}
    jumping = Timing(median_ms=5.0, samples_ms=(1.0, 9.0, 1.0, 9.0, 5.0), **of_any)
    steady = Timing(median_ms=1.0, samples_ms=(1.0,) * 5, **of_any)
    point = point.model_copy(update={"prefill": jumping, "decode": steady})
    assert not unsteady(point, counts_prefill=False)
    assert unsteady(point, counts_prefill=True)
    assert unsteady(point.model_copy(update={"decode": jumping}), counts_prefill=False)
