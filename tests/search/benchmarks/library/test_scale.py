"""The benchmark of large searches, at a small scale."""

from io import StringIO

import pytest
from rich.console import Console

from search.benchmarks.library import scale


def test_what_is_timed_is_a_search_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "EVALUATIONS", 60)
    monkeypatch.setattr(scale, "ASKED", 3)
    out = StringIO()
    measured = scale.scale("cpu", Console(file=out))
    figures = measured.figures
    assert figures["evaluations"] == 60
    assert 0 < figures["frontier"] <= 60
    assert 0 < figures["ask_tell_ms"] <= figures["ask_tell_largest_ms"]
    assert 0 <= figures["screened"] <= 3
    assert figures["screened_ms"] <= figures["ask_tell_largest_ms"]
    assert len(measured.samples["ask_tell_ms"]) == 3
    assert figures["resume_s"] < 60
    assert f"{figures['peak_memory_mib']}" in out.getvalue()
