"""The gates of a search for models that see: arithmetic, the latency table, and what trades keep."""

from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators import VisionLanguage
from operators.base.errors import ConfigError
from operators.vision.cost import vision_cost
from profiler.device.device import open_device
from profiler.table.latency_table import LatencyTable, Validation
from profiler.table.parts import Entry, Point
from search.config.run import RunConfig, parse
from search.gates import table as table_gate
from search.gates.arithmetic import arithmetic
from search.gates.table import digest_of
from search.runs.preflight import prepare_run
from search.runs.table_for_space import default_points, held_out, space_of
from search.spaces.vision import EQUAL_WORK, VisionSpace
from tests.helpers.image_sources import colours
from tests.search.runs.test_vision_run import config_of

pytest.importorskip("PIL")

FIRST = Point("first_token", 1, 16, 1)


def config(tiny: RunConfig, folder: Path, *constraints: str, **changes: Any) -> RunConfig:
    data = config_of(tiny, colours(folder / "data"), constraints=list(constraints), **changes)
    return parse(data, where="run")


def members(space: VisionSpace, count: int) -> list[VisionLanguage]:
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(count)]


def test_arithmetic_counts_the_whole_model_behind_its_images(tiny_config: RunConfig, tmp_path: Path) -> None:
    run = config(tiny_config, tmp_path)
    names = ("params", "param_bytes", "state_bytes@b1", "image_tokens", "ttft_ms@b1")
    compute = arithmetic(names, run.profile, "cpu")
    for member in members(_space(run), 5):
        costs = vision_cost(member, text_tokens=16, images=1)
        assert compute(member) == {
            "params": costs.params,
            "param_bytes": 4 * costs.params,
            "state_bytes@b1": costs.language.state_bytes,
            "image_tokens": costs.image_tokens,
        }


def _space(run: RunConfig) -> VisionSpace:
    space = space_of(run)
    assert isinstance(space, VisionSpace)
    return space


def test_no_member_breaks_what_arithmetic_knows(tiny_config: RunConfig, tmp_path: Path) -> None:
    run = config(tiny_config, tmp_path, "image_tokens <= 1", "params <= 25e3")
    prepared = prepare_run(run)
    prepared.check_constraints(measured_here=False)
    space, rng = prepared.seeing, np.random.default_rng(1)
    assert space is not None
    some = [*space.seeds(), *members(space, 20)]
    some += [child for member in some if (child := space.crossover(member, some[-1], rng)) is not None]
    some += [mutated[0] for member in some if (mutated := space.mutate(member, rng)) is not None]
    assert len(some) > 60
    for member in some:
        costs = vision_cost(member)
        assert costs.image_tokens == 1
        assert costs.params <= 25e3
    seen, rejected = prepared.screen.take_counts()["arithmetic"]
    assert seen > rejected > 0
    for shallow in space.shallow():
        assert shallow.tower.depth == 1
        assert shallow.image_tokens == 1


def test_what_no_member_meets_is_one_line(tiny_config: RunConfig, tmp_path: Path) -> None:
    run = config(tiny_config, tmp_path, "params <= 10")
    says = "constraint 'params <= 10': no sample of the space meets it, the closest of "
    with pytest.raises(ConfigError, match=says):
        prepare_run(run).check_constraints(measured_here=False)


@pytest.fixture
def tabled(tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A run with a table in which a layer of the decoder takes 0.3 ms and every other part 0.1."""
    monkeypatch.setattr(table_gate, "default_path", lambda device: tmp_path / "table.json")
    space = {**tiny_config.space.model_dump(mode="json"), "max_depth": 8, "widths": [16]}
    run = config(tiny_config, tmp_path, "ttft_ms@b1 <= 2.5", gates={"table": True, "audit": 0}, space=space)
    table = LatencyTable.open(tmp_path / "table.json", open_device("cpu"))
    names = run.space.operators
    parts = table.missing(_space(run).covering(), [FIRST])
    table.add(
        Entry(**dict(part), ms=0.3 if part.name in names else 0.1, error_ms=0.0, rounds=9) for part in parts
    )
    return run


def _validated(run: RunConfig, p95: float = 0.05) -> LatencyTable:
    table = LatencyTable.read(table_gate.default_path(open_device("cpu")))
    assert run.vision is not None
    digest = digest_of(run.space, run.vision.space)
    table.add((), [Validation(space=digest, **FIRST._asdict(), models=40, p95=p95)])
    return table


def test_the_table_has_every_part_of_the_space(tabled: RunConfig) -> None:
    table = LatencyTable.read(table_gate.default_path(open_device("cpu")))
    drawn = members(_space(tabled), 150)
    assert table.missing(drawn, [FIRST]) == ()
    assert len({(m.tower, m.projector) for m in drawn}) > 100


def test_a_table_that_was_not_validated_on_these_towers_is_refused(tabled: RunConfig) -> None:
    with pytest.raises(
        ConfigError, match=r"validated on 0 models of this space where constraint 'ttft_ms@b1"
    ):
        prepare_run(tabled)
    _validated(tabled)
    assert tabled.vision is not None
    settings = tabled.vision.space.model_copy(update={"max_image_tokens": 8})
    other = tabled.model_copy(update={"vision": tabled.vision.model_copy(update={"space": settings})})
    with pytest.raises(ConfigError, match="validated on 0 models"):
        prepare_run(other)
    wider = tabled.vision.space.model_copy(update={"ratios": (1.0,)})
    other = tabled.model_copy(update={"vision": tabled.vision.model_copy(update={"space": wider})})
    with pytest.raises(ConfigError, match=r"lacks \d+ entries of this space; expected all"):
        prepare_run(other)


def test_no_member_is_predicted_to_be_too_slow_and_trades_keep_the_predicted_time(tabled: RunConfig) -> None:
    table = _validated(tabled)
    prepared = prepare_run(tabled)
    space, rng, kinds = prepared.seeing, np.random.default_rng(2), list[str]()
    assert space is not None
    for parent in members(space, 60):
        assert table.latency(parent, FIRST).ms <= 2.5 * 1.05
        mutated = space.mutate(parent, rng)
        assert mutated is not None
        kinds.append(mutated[1])
        if mutated[1] == "trade":
            times = [log(table.latency(each, FIRST).ms) for each in (parent, mutated[0])]
            assert abs(times[1] - times[0]) < EQUAL_WORK
    assert "trade" in kinds
    seen, rejected = prepared.screen.take_counts()["table"]
    assert seen > rejected > 0


def test_a_table_is_validated_from_the_pictures_on(tabled: RunConfig) -> None:
    points = default_points(tabled.profile, tabled.parsed_constraints())
    assert points == (Point("decode", 1, 16, 1), FIRST)
    drawn = held_out(_space(tabled), 5, seed=0, points=points, device=open_device("cpu"))
    assert len({model.digest() for model in drawn}) == 5
    assert all(isinstance(model, VisionLanguage) for model in drawn)
