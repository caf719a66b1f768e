"""The benchmark beside transformers: what it makes of profiles."""

import pytest

from operators import Architecture
from profiler.engines.in_transformers import COMPILED
from profiler.profile import Profile
from search.benchmarks.library.compiled import SETTINGS, compared
from search.view.profiles import Profiled
from tests.helpers.made_up_profile import made_up_profile

MODEL = Architecture.from_shorthand("a f", width=32, vocabulary=64)


def slower(times: float, how: str) -> Profile:
    """The made-up profile with steps that take so many times as long."""
    profile = made_up_profile(MODEL, SETTINGS)
    points = [
        point.model_copy(
            update={"decode": point.decode.model_copy(update={"median_ms": point.decode.median_ms * times})}
        )
        for point in profile.points
    ]
    return profile.model_copy(update={"points": tuple(points), "backends": {"transformers": how}})


def test_only_what_was_compiled_is_compared() -> None:
    figures = compared(
        [
            Profiled("compiled", slower(1, "")),
            Profiled("compiled", slower(3, f"LlamaForCausalLM, {COMPILED}"), engine="transformers"),
            Profiled("eager", slower(1, "")),
            Profiled("eager", slower(3, "BambaForCausalLM, eager"), engine="transformers"),
            Profiled("unheld", slower(1, "")),
            Profiled("unheld", None, "unbuildable: no class", engine="transformers"),
            Profiled("ours fails", None, "out_of_memory: why"),
            Profiled("ours fails", slower(3, COMPILED), engine="transformers"),
        ]
    )
    steps = {point.context: point.decode.median_ms for point in slower(1, "").points}
    assert figures["compiled.decode_ms"] == pytest.approx(steps[8192])
    assert figures["compiled.short_transformers_ms"] == pytest.approx(3 * steps[160])
    assert figures["compiled.speedup"] == pytest.approx(3) == figures["compiled.short_speedup"]
    assert figures["eager.transformers_refused"] == "BambaForCausalLM, eager"
    assert figures["unheld.transformers_refused"] == "unbuildable: no class"
    assert figures["ours fails.refused"] == "out_of_memory: why"
    assert "ours fails.transformers_ms" in figures
    assert not {f"{name}.speedup" for name in ("eager", "unheld", "ours fails")} & figures.keys()
