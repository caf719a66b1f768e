from io import StringIO

import pytest
from rich.console import Console

from operators.errors import DeviceError
from profiler.measure import Profile, ProfileSettings
from search.details import print_profiles
from search.profiling import Failure, profile_all
from tests.faulty_operators import architecture_with

QUICK = ProfileSettings(batch_sizes=(1,), context=12, warmup=1, min_samples=5, min_seconds=0, max_seconds=0.05, relative_error=0.1)


def test_an_architecture_that_crashes_is_a_line_among_the_others():
    names = ["broken", "first", "second"]
    found = profile_all([architecture_with(fault) for fault in ("illegal_address", "none", "none")], QUICK, device="cpu", backend="auto")
    assert [type(one) for one in found] == [Failure, Profile, Profile]
    assert found[0].status == "crashed"
    printed = StringIO()
    print_profiles(Console(file=printed, width=160), names, found)
    lines = [line.strip() for line in printed.getvalue().splitlines()]
    assert [line.split()[0] for line in lines if line.startswith(tuple(names))] == ["first", "second", "broken:"]
    assert lines[-1].startswith("broken: crashed: the profiling process ended by SIGSEGV")
    assert next(line for line in lines if line.startswith("first")).endswith("1.000")


def test_a_device_that_cannot_be_used_is_an_error_for_all():
    with pytest.raises(DeviceError, match="expected cpu, cuda or cuda:N"):
        profile_all([architecture_with("none")], QUICK, device="tpu", backend="auto")
