"""What the latency table tells a guided search of its objectives beforehand."""

import numpy as np
import pytest

from operators import Architecture
from operators.base.errors import TableError
from profiler.device.device import open_device
from profiler.table.latency_table import LatencyTable
from profiler.table.parts import Entry, Point
from search.config import run as config_module
from search.evaluation.outcome import Evaluation, Outcome
from search.gates import table as table_gate
from search.gates.table import device_table, known_costs, predicted_points
from search.runs import ledger as ledger_module
from search.runs import loop as driver
from search.runs.folder import RunFolder
from search.runs.loop import drive
from search.runs.preflight import prepare_run
from search.spaces.free import ArchitectureSpace
from tests.helpers.pretended_evaluations import PretendExecutor
from tests.helpers.small_spaces import ONE_SHAPE

RUN = {
    "objectives": ["decode_ms@b2", "loss", "decode_tokens_per_s@b1"],
    "profile": {"batch_sizes": [1, 2], "contexts": [24]},
    "space": ONE_SHAPE,
    "evolution": {"population": 12},
}
POINTS = [Point("decode", 1, 24), Point("decode", 2, 24)]


@pytest.fixture
def table(tmp_path, monkeypatch):
    """One whose layers each take 3 ms if they are attention and 1 ms if not, embedding and head 2."""
    monkeypatch.setattr(table_gate, "default_path", lambda device: tmp_path / "table.json")
    return LatencyTable.open(tmp_path / "table.json", open_device("cpu"))


def fill(table, config, vocabulary=300):
    ms = {"rest": 2.0, "attention": 3.0, "swiglu": 1.0}
    parts = table.missing(ArchitectureSpace(config.space, vocabulary).covering(), POINTS)
    table.add(Entry(**dict(part), ms=ms[part.name], error_ms=0.0, rounds=9) for part in parts)


def step_ms(architecture):
    return 2.0 + sum(3.0 if layer.operator == "attention" else 1.0 for layer in architecture.layers)


def known_to(config, space):
    """The costs that the device's table knows of a run's objectives."""
    table = device_table(config.device, config.device_kind, threads=config.profile.threads)
    objectives = config.parsed_objectives()
    costs = known_costs(table, predicted_points(objectives, config.profile), space.covering())
    return {objectives.index(objective): cost for objective, cost in costs.items()}


@pytest.mark.parametrize("normalized_head", [False, True])
def test_costs_are_what_the_table_sums_up(table, normalized_head):
    config = config_module.parse(
        {**RUN, "space": {**RUN["space"], "normalized_head": normalized_head}}, where="x"
    )
    fill(table, config)
    space = ArchitectureSpace(config.space, 300)
    known, rng = known_to(config, space), np.random.default_rng(0)
    assert set(known) == {0, 2}
    for architecture in [space.sample(rng) for _ in range(20)]:
        assert known[0](architecture) == pytest.approx(step_ms(architecture))
        assert known[2](architecture) == pytest.approx(
            -1000 / step_ms(architecture)
        )  # a throughput is to be large, a cost small


def test_nothing_is_known_without_a_table_of_the_space_and_the_device(table, text_folder, corpus):
    config = config_module.parse(RUN, where="x")
    space = ArchitectureSpace(config.space, 300)
    assert known_to(config, space) == {}
    fill(table, config)
    assert known_to(config, space)
    assert known_to(config, ArchitectureSpace(config.space, 299)) == {}
    assert known_to(config.model_copy(update={"objectives": ("loss", "params")}), space) == {}
    data = {"source": str(text_folder), "vocabulary": 300, "validation_fraction": 0.2}
    elsewhere = config_module.parse({**RUN, "data": data, "device": "cuda:77"}, where="x")
    assert prepare_run(elsewhere).known == {}  # as where the driver has no GPU
    table.path.write_text("{")
    with pytest.raises(TableError, match="no latency table, or a damaged one"):
        known_to(config, space)


def evaluated(job):
    ms = step_ms(job.architecture)
    metrics = {"loss": 3.0, "decode_ms@b2": ms, "decode_tokens_per_s@b1": 1000 / ms}
    return Outcome(Evaluation(status="ok", metrics=metrics, seed=0))


@pytest.mark.usefixtures("ledgers_in_memory")
def test_a_search_gives_its_searcher_the_costs_of_the_table(
    tmp_path, monkeypatch, table, text_folder, corpus
):
    """Whatever its candidates are: what a searcher makes of known costs is tested beside it."""
    data = {"source": str(text_folder), "vocabulary": 300, "validation_fraction": 0.2}
    config = config_module.parse({**RUN, "data": data, "candidates": 2}, where="x")
    fill(table, config, corpus.vocabulary)
    given, searcher = [], driver.searcher

    def noted(*arguments, known, **options):
        given.append(known)
        return searcher(*arguments, known=known, **options)

    monkeypatch.setattr(driver, "searcher", noted)
    folder = RunFolder(tmp_path)
    ledger = ledger_module.create(folder.ledger, config, started="now")
    drive(prepare_run(config), folder, ledger, PretendExecutor(answer=evaluated))
    (known,) = given
    assert set(known) == {0, 2}
    for pairs in range(12, 20):  # deeper than anything that the search evaluated
        deep = Architecture.from_shorthand("a f " * pairs, width=64, vocabulary=300, genes=GENES)
        assert known[0](deep) == pytest.approx(2 + 4 * pairs)
        assert known[2](deep) == pytest.approx(-1000 / (2 + 4 * pairs))


GENES = {"attention": {"head_dim": 16, "group": 1, "qk_norm": "none"}, "swiglu": {"ratio": 2}}
