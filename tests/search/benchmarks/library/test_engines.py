"""The benchmark of engines: which models it draws, and what it makes of their times."""

import pytest

from operators.published.folding import folded
from operators.published.gguf_export.homes import outline
from operators.published.held import hold
from profiler.profile import Profile
from search.benchmarks.library import engines
from search.benchmarks.library.engines import compared, drawn
from search.view.profiles import Profiled
from tests.helpers.made_up_profile import made_up_profile
from tests.helpers.quick_profile import QUICK

NAMES = [f"model {number}" for number in range(6)]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_models_are_those_that_the_engines_hold(kind: str) -> None:
    models = dict(drawn(kind, engines.MODELS))
    assert len(set(models.values())) == engines.MODELS
    for model in models.values():
        outline(model)
        hold(folded(model, {})[0])
    assert models == dict(drawn(kind, engines.MODELS))


def timed(architecture_number: int, decode_ms: float, *, tainted: bool = False) -> Profile:
    profile = made_up_profile(drawn("cpu", 6)[architecture_number][1], QUICK)
    point = profile.points[0]
    decode = point.decode.model_copy(
        update={"median_ms": decode_ms, "samples_ms": (decode_ms,) * 10, "n": 10, "iqr_ms": 0.0}
    )
    conditions = profile.conditions.model_copy(update={"tainted": ("drift: too much",) if tainted else ()})
    points = (point.model_copy(update={"decode": decode}),)
    return profile.model_copy(update={"points": points, "conditions": conditions})


def test_ranks_are_compared_over_models_that_both_measured_well() -> None:
    here, there = [1.0, 2.0, 3.0, 4.0, 5.0, 100.0], [2.0, 4.0, 8.0, 6.0, 10.0, 1.0]
    results = [
        *(Profiled(name, timed(number, here[number])) for number, name in enumerate(NAMES)),
        *(
            Profiled(name, timed(number, there[number], tainted=number == 5), engine="llama.cpp")
            for number, name in enumerate(NAMES)
        ),
        *(Profiled(name, None, "unbuildable: why", engine="transformers") for name in NAMES),
    ]
    figures = compared(results, "llama.cpp", "decode_ms@b1")
    assert figures["llama.cpp.decode_ms@b1.models"] == 5
    # One of ten pairs is turned round: tau is (9 - 1) / 10, rho 1 - 6 * (1 + 1) / (5 * 24).
    assert figures["llama.cpp.decode_ms@b1.kendall"] == pytest.approx(0.8)
    assert figures["llama.cpp.decode_ms@b1.spearman"] == pytest.approx(0.9)
    ratios = (2 * 2 * (8 / 3) * 1.5 * 2) ** 0.2
    assert figures["llama.cpp.decode_ms@b1.of_ours"] == pytest.approx(ratios)
    assert compared(results, "transformers", "decode_ms@b1") == {"transformers.decode_ms@b1.models": 0}
