import re
from io import StringIO

import pytest
from rich.console import Console

from operators.base.errors import DeviceError
from search.view.profiles import print_profiles, profile_each, tell
from tests.helpers.faulty_operators import architecture_with
from tests.helpers.quick_profile import QUICK


def test_an_architecture_that_crashes_is_a_line_among_the_others():
    names = ["broken", "first", "second"]
    named = [(name, architecture_with("illegal_address" if name == "broken" else "none")) for name in names]
    lines_after = StringIO()
    found = profile_each(
        named, QUICK, device="cpu", backend="auto", on_measured=tell(Console(file=lines_after))
    )
    assert [re.sub(r"\d+ s$", "", line) for line in lines_after.getvalue().splitlines()] == [
        "broken: not measured, ",
        "first: measured, ",
        "second: measured, ",
    ]
    assert [one.profile is None for one in found] == [True, False, False]
    printed = StringIO()
    print_profiles(Console(file=printed, width=160), found)
    lines = [line.strip() for line in printed.getvalue().splitlines()]
    assert [line.split()[0] for line in lines if line.startswith(tuple(names))] == [
        "first",
        "second",
        "broken:",
    ]
    assert lines[-1].startswith("broken: crashed: the profiling process ended by SIGSEGV")


def test_a_device_that_cannot_be_used_is_an_error_for_all():
    with pytest.raises(DeviceError, match="expected cpu, cuda or cuda:N"):
        profile_each([("one", architecture_with("none"))], QUICK, device="tpu", backend="auto")
