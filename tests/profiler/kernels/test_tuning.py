"""Choosing the few configurations of a kernel that are worth trying."""

import sys
from math import inf
from types import ModuleType
from typing import Any

import pytest

from operators.kernels.libraries import autotuners
from profiler.kernels.tuning import choose, slowdown


def config(block: int) -> dict[str, Any]:
    return {"kwargs": {"BLOCK": block}, "num_warps": 4, "num_stages": 3}


def case(*times: float) -> list[tuple[dict[str, Any], float]]:
    return [(config(16 << number), ms) for number, ms in enumerate(times)]


def test_one_configuration_that_is_good_everywhere_is_enough() -> None:
    assert choose({"kernel": [case(1.00, 1.03, 2.0), case(2.0, 1.03, 1.00)]}) == {"kernel": [config(32)]}


def test_cases_that_need_their_own_get_them() -> None:
    assert choose({"kernel": [case(1.0, 2.0), case(2.0, 1.0)]}) == {"kernel": [config(16), config(32)]}


def test_what_does_not_run_is_never_chosen() -> None:
    assert choose({"kernel": [case(inf, 3.0), case(1.0, 1.02)]}) == {"kernel": [config(32)]}
    assert choose({"kernel": [case(inf, inf)]}) == {}


def test_small_kernels_may_differ_by_microseconds() -> None:
    assert choose({"kernel": [case(0.005, 0.006), case(0.0055, 0.005)]}) == {"kernel": [config(16)]}


def test_what_is_kept_costs_what_the_worst_case_loses() -> None:
    timings = {
        "first": [case(1.0, 1.1, inf), case(2.0, 3.0, inf)],
        "second": [case(1.0, 4.0)],
        "small": [case(0.005, 0.006)],
    }
    kept = {"first": [config(32)], "small": [config(32)]}
    assert slowdown(timings, kept) == {
        "first": 0.5,
        "second": 0.0,
        "small": 0.0,
    }  # the second keeps everything
    assert slowdown(timings, {"first": [config(64)]})["first"] == inf
    assert max(slowdown(timings, choose(timings)).values()) <= 0.05


def test_kernels_of_the_same_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    class Autotuner:
        def __init__(self) -> None:
            self.base_fn = lambda: None
            self.base_fn.__name__ = "kernel"

    gated, plain = Autotuner(), Autotuner()
    contents = {
        "triton.runtime.autotuner": Autotuner,
        "lib.gated": gated,
        "lib.plain": plain,
        "lib.user": plain,
        "other": Autotuner(),
    }
    for name, value in contents.items():
        module = ModuleType(name)
        module.Autotuner = value  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    assert autotuners("lib") == [("kernel", gated), ("kernel", plain)]
