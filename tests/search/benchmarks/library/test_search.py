"""The benchmark of a whole search: what it makes of candidates, times and designs."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from operators import Architecture
from operators.cost import parameters
from search.benchmarks.library.scaling import rate, slower
from search.benchmarks.library.search import Design, gain, volumes_over_time
from search.benchmarks.runs import row
from search.config import run as config_module
from search.evaluation.outcome import Evaluation
from search.objectives import RunMetrics
from search.runs.entry import Attempt, Entry
from search.spaces.seeds import designs_of
from search.spaces.staged import make_space

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
ARCHITECTURE = Architecture.from_shorthand("a f", width=64, vocabulary=512)
CONFIG = config_module.parse({"objectives": ["loss", "decode_ms@b1"]}, where="test")


def candidate(
    number: int, loss: float, ms: float, *, seconds: tuple[float, float], status: str = "ok"
) -> Entry:
    evaluation = Evaluation.model_validate(
        {"status": status, "metrics": {"loss": loss, "decode_ms@b1": ms}, "seed": 0}
    )
    begun, ended = (BEGIN + timedelta(seconds=moment) for moment in seconds)
    return Entry(
        number, ARCHITECTURE, (), "random", evaluation, number, (Attempt(at=begun, place="here"),), ended
    )


FAST = candidate(0, 4.0, 1.0, seconds=(0, 10))
GOOD = candidate(1, 3.0, 2.0, seconds=(10, 20))
STOPPED = candidate(2, 2.0, 0.5, seconds=(20, 30), status="stopped")


@pytest.mark.parametrize(("ms", "expected"), [(0.9, None), (1.0, -0.5), (1.9, -0.5), (2.5, 0.5)])
def test_a_design_is_compared_with_the_best_that_is_no_slower(ms: float, expected: float | None) -> None:
    design = Design("llama", 64, 2, 1000, loss=3.5, ms=ms)
    assert gain(design, [FAST, GOOD, STOPPED], CONFIG) == expected


def test_volumes_are_of_what_had_ended_by_equal_times_on_one_scale() -> None:
    slow = [
        candidate(0, 3.0, 2.0, seconds=(0, 35)),
        candidate(1, 4.0, 1.0, seconds=(100, 105)),
    ]  # between which nobody searched
    found = volumes_over_time({"guided": [FAST, GOOD, STOPPED], "random": slow}, CONFIG)
    # Scaled, FAST is at (1, 0) and adds 0.1 x 1.1 below (1.1, 1.1), GOOD at (0, 1) as much; both 0.21. The
    # shorter time is 30 s.
    assert {moment: volumes["guided"] for moment, volumes in found.items()} == pytest.approx(
        {0.25: 0.0, 0.5: 0.11, 0.75: 0.21, 1.0: 0.21}
    )
    assert {moment: volumes["random"] for moment, volumes in found.items()} == pytest.approx(
        {0.25: 0.0, 0.5: 0.0, 0.75: 0.0, 1.0: 0.0}
    )


def test_a_rate_is_that_between_two_counts_of_candidates_however_long_the_search_rested() -> None:
    alone = [candidate(number, 3.0, 1.0, seconds=(10 * number, 10 * number + 10)) for number in range(4)]
    two = [
        candidate(number, 3.0, 1.0, seconds=(begun, begun + took))
        for number, begun, took in ((0, 0, 25), (1, 0, 30), (2, 25, 11), (3, 30, 11))
    ]
    rested = [
        *alone[:2],
        *(candidate(number, 3.0, 1.0, seconds=(10 * number + 500, 10 * number + 510)) for number in (2, 3)),
    ]
    assert rate(alone, (1, 4)) == rate(rested, (1, 4)) == pytest.approx(3 / 30)
    assert rate(two, (2, 4)) == pytest.approx(2 / 11)
    assert rate(two, (1, 4)) == pytest.approx(3 / 16)
    assert slower(two, alone, (2, 4)) == pytest.approx(1.1)
    assert slower(two, alone, (1, 4)) == pytest.approx((30 + 11 + 11) / 30)


def test_designs_are_members_at_widths_in_proportion() -> None:
    config = config_module.load(Path("h100_small"))
    constraint = RunMetrics(config.profile, config.tasks).constraint("params <= 300e6")
    space = make_space(
        config.space, 8192, accepts=lambda found: not constraint.broken_by({"params": parameters(found)})
    )
    designs = space.designs()
    assert {design.name for design in designs} == {
        f"{design.name} rescaled" for design in designs_of(config.space.operators)
    }
    for design in designs:
        assert space.contains(design) is None
        original = Architecture.load(design.name.removesuffix(" rescaled"))
        assert design.depth == min(max(round(design.width * original.depth / original.width), 8), 36)
        assert {layer.operator for layer in design.layers} <= {layer.operator for layer in original.layers}
        assert parameters(design) <= 300e6


def test_an_architecture_can_be_built_again_from_its_row() -> None:
    genes = {"attention": {"head_dim": 32, "window": 16, "qk_norm": "head"}, "mamba2": {"expand": 1}}
    model = Architecture.from_shorthand("a f m", width=64, vocabulary=512, genes=genes)
    found = row(dataclasses.replace(GOOD, model=model))
    again = Architecture.parse(
        {"width": found["width"], "vocabulary": 512, "layers": json.loads(json.dumps(found["layers"]))}
    )
    assert again.digest() == model.digest() != ARCHITECTURE.digest()
