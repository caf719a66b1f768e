import os
import random
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from operators.base.errors import ConfigError, OutOfMemoryError, RunError
from profiler.process.worker import ProfilingWorker
from search.cluster.executor import Lost
from search.config import run as config_module
from search.config.searcher import SearcherSettings
from search.evaluation.outcome import Evaluation, Outcome
from search.runs import ledger as ledger_module
from search.runs import preflight
from search.runs.folder import RunFolder
from search.runs.frontier import hypervolume_gain, scored
from search.runs.loop import drive
from search.runs.preflight import prepare_run
from search.runs.status import complete
from tests.helpers.made_up_profile import measure_on_made_up_device
from tests.helpers.pretended_evaluations import PretendExecutor, pretended
from tests.helpers.pretended_search import searched

pytestmark = pytest.mark.usefixtures("ledgers_in_memory")


def larger(prepared, **changes):
    config = prepared.config.model_copy(update=changes)
    return type(prepared)(config, prepared.corpus, prepared.space)


def test_every_candidate_is_new_and_evaluated_once(tmp_path, prepared):
    executor = PretendExecutor(capacity=3, rng=random.Random(0))
    entries = searched(tmp_path / "run", larger(prepared, candidates=30), executor)
    assert len({entry.architecture.digest() for entry in entries}) == 30
    assert sorted(executor.answered) == list(range(30))
    assert any(entry.parents for entry in entries)


def test_the_same_answers_in_the_same_order_give_the_same_search(tmp_path, prepared):
    many = larger(prepared, candidates=25)
    first = searched(tmp_path / "a", many, PretendExecutor(capacity=3, rng=random.Random(5)))
    second = searched(tmp_path / "b", many, PretendExecutor(capacity=3, rng=random.Random(5)))
    assert [entry.architecture for entry in first] == [entry.architecture for entry in second]


@pytest.mark.parametrize("searcher", ["guided", "random"])  # whose proposals never have parents
def test_the_frontier_outgrows_the_first_candidates(tmp_path, prepared, searcher):
    many = larger(prepared, candidates=20, searcher=SearcherSettings(name=searcher))
    entries = searched(tmp_path / "run", many, PretendExecutor())
    objectives = prepared.config.parsed_objectives()
    gain = hypervolume_gain(entries, objectives, first=4)
    assert gain.final > gain.initial == hypervolume_gain(entries, objectives, first=4).initial > 0
    everything = hypervolume_gain(entries, objectives, first=20)
    assert everything.initial == everything.final == gain.final


def test_failed_and_infeasible_candidates_are_no_frontier(tmp_path, prepared):
    def answer(job):
        if job.number % 2:
            return Outcome(
                Evaluation(
                    status="infeasible", reason="too slow", metrics={"loss": 0.0, "decode_ms@b1": 0.0}, seed=0
                )
            )
        return pretended(job)

    entries = searched(tmp_path / "run", larger(prepared, candidates=12), PretendExecutor(answer=answer))
    frontier = scored(entries, prepared.config.parsed_objectives()).frontier()
    assert {entry.number % 2 for entry in frontier} == {0}


def test_an_unexpected_failure_is_recorded_and_raised_and_the_run_goes_on_without_it(tmp_path, prepared):
    def answer(job):
        return (
            Outcome(Evaluation(status="error", reason="KeyError: 'x'", seed=0))
            if job.number == 2
            else pretended(job)
        )

    with pytest.raises(RunError, match="candidate 2 failed in an unexpected way: KeyError"):
        searched(tmp_path / "run", prepared, PretendExecutor(answer=answer))
    folder = RunFolder(tmp_path / "run")
    ledger = ledger_module.open_ledger(folder.ledger)
    executor = PretendExecutor()
    drive(prepared, folder, ledger, executor)
    assert executor.answered == [3, 4, 5]


def test_a_small_space_ends_the_search_early(tmp_path, tiny_config, corpus):
    space = {"operators": ["attention", "swiglu"], "widths": [16], "min_depth": 2, "max_depth": 2}
    genes = {
        "attention": {"head_dim": [8], "group": [1], "qk_norm": ["none"], "window": [None]},
        "swiglu": {"ratio": [2]},
    }
    data = {**tiny_config.model_dump(mode="json"), "space": {**space, "genes": genes}, "candidates": 50}
    config = config_module.parse(data, where="small")
    entries = searched(tmp_path / "run", prepare_run(config), PretendExecutor())
    assert {entry.architecture.shorthand for entry in entries} == {"a a", "a f", "f a"}


def test_a_search_ends_when_its_time_is_up_and_does_not_begin_again(tmp_path, prepared):
    def answer(job):
        time.sleep(0.1)
        return pretended(job)

    limited = larger(prepared, candidates=1000, time_s=0.5)
    entries = searched(tmp_path / "run", limited, PretendExecutor(answer=answer))
    assert 1 <= len(entries) <= 5  # fewer than five where the machine is busy
    assert all(entry.evaluation for entry in entries)
    ledger = ledger_module.open_ledger(RunFolder(tmp_path / "run").ledger)
    assert complete(ledger, ledger.entries())
    drive(limited, RunFolder(tmp_path / "run"), ledger, PretendExecutor(answer=answer))
    assert len(ledger.entries()) == len(entries)


@dataclass
class Losing(PretendExecutor):
    """Loses the first evaluations of some candidates: number -> how."""

    losses: dict = field(default_factory=dict)

    def next(self):
        job, outcome = super().next()
        return (job, self.losses[job.number].pop(0)) if self.losses.get(job.number) else (job, outcome)


MACHINE, WORKER = (
    Lost("machine", "the node of 10.0.0.7 was lost"),
    Lost("worker", "the worker process died: signal 11"),
)


def test_what_was_lost_is_made_again_within_its_bound(tmp_path, prepared):
    losses = {
        0: [MACHINE, MACHINE],
        1: [WORKER],
        2: [WORKER, WORKER],
        3: [MACHINE, WORKER, MACHINE],
        4: [WORKER, MACHINE],
    }
    executor = Losing(capacity=3, losses=losses)
    entries = searched(tmp_path / "run", prepared, executor)
    assert [entry.evaluation.status for entry in entries] == ["ok", "ok", "crashed", "crashed", "ok", "ok"]
    assert entries[2].evaluation.reason == "2 times: the worker process died: signal 11"
    assert entries[3].evaluation.reason == "3 times: the node of 10.0.0.7 was lost"
    assert [len(entry.attempts) for entry in entries] == [3, 2, 2, 3, 3, 1]
    assert sorted(entry.order for entry in entries) == list(range(6))


def test_nothing_is_made_again_where_that_is_not_wanted(tmp_path, prepared):
    entries = searched(tmp_path / "run", larger(prepared, retries=0), Losing(losses={1: [MACHINE]}))
    assert [entry.evaluation.status for entry in entries] == ["ok", "crashed", "ok", "ok", "ok", "ok"]
    assert entries[1].evaluation.reason == "the node of 10.0.0.7 was lost"


@pytest.mark.parametrize(("keep", "kept"), [("all", 12), ("none", 0)])
def test_weights_are_kept_as_asked(tmp_path, prepared, keep, kept):
    executor = PretendExecutor(answer=lambda job: Outcome(pretended(job).evaluation, b"weights"))
    searched(tmp_path / "run", larger(prepared, candidates=12, keep_weights=keep), executor)
    assert len(list((tmp_path / "run").glob("weights/*"))) == kept


def test_workers_of_this_machine_are_told_where_to_write_weights(tmp_path, prepared):
    told = {}

    def answer(job):
        told[job.number, job.seed] = (job.keeps_weights, job.weights_file)
        return pretended(job)

    searched(tmp_path / "here", larger(prepared, keep_weights="all"), PretendExecutor(answer=answer))
    assert told[2, prepared.config.seed] == (True, str(tmp_path / "here" / "weights" / "00002.safetensors"))
    far = larger(prepared, keep_weights="all")
    searched(tmp_path / "far", far, PretendExecutor(answer=answer), here=False)
    assert told[2, prepared.config.seed] == (True, "")
    searched(tmp_path / "none", larger(prepared, keep_weights="none"), PretendExecutor(answer=answer))
    assert told[2, prepared.config.seed] == (False, "")


def test_weights_of_the_frontier_alone(tmp_path, prepared):
    executor = PretendExecutor(answer=lambda job: Outcome(pretended(job).evaluation, b"weights"))
    entries = searched(tmp_path / "run", larger(prepared, candidates=20, keep_weights="frontier"), executor)
    frontier = scored(entries, prepared.config.parsed_objectives()).frontier()
    best = {f"{entry.number:05d}" for entry in frontier}
    assert {path.stem for path in (tmp_path / "run" / "weights").iterdir()} == best


@pytest.mark.parametrize(
    ("constraints", "says"),
    [
        (
            ["params <= 1000"],
            "constraint 'params <= 1000': no sample of the space meets it, the closest of .* has",
        ),
        (["params >= 1e12"], "no sample of the space meets it"),
        (["params <= 12000", "state_bytes@b1 >= 8000"], "no sample of the space meets them together"),
        (
            ["loss <= 5", "params <= 1e9", "loss >= 6"],
            "constraints 'loss >= 6' and 'loss <= 5' contradict each other",
        ),
        (["decode_ms@b1 < 1", "decode_ms@b1 >= 1"], "contradict each other: no decode_ms@b1 meets both"),
        # At least 2 layers of width 16, with a batch of 1 and a context of 16, on the made-up device.
        (["decode_ms@b1 <= 2.39"], r"no sample meets it; of \d+ measured, .* the closest has 2\.391$"),
    ],
)
def test_a_constraint_that_nothing_meets_is_found_before_any_work(
    tiny_config, constraints, says, monkeypatch
):
    measure_on_made_up_device(monkeypatch)
    config = config_module.parse(
        {**tiny_config.model_dump(mode="json"), "constraints": constraints}, where="x"
    )
    with pytest.raises(ConfigError, match=says):
        prepare_run(config).check_constraints()


def test_a_constraint_that_could_not_be_measured_is_not_refused(tiny_config, monkeypatch):
    probes = []

    def too_large(worker, architecture, settings, **further):
        probes.append(architecture)
        raise OutOfMemoryError("batch 1, context 16: too little memory")

    monkeypatch.setattr(ProfilingWorker, "profile", too_large)
    changed = {**tiny_config.model_dump(mode="json"), "constraints": ["decode_ms@b1 <= 1e-6"]}
    prepare_run(config_module.parse(changed, where="x")).check_constraints()
    assert len(probes) >= 3


def test_arithmetic_constraints_hold_for_every_candidate(tmp_path, tiny_config):
    config = config_module.parse(
        {
            **tiny_config.model_dump(mode="json"),
            "constraints": ["params <= 14000"],
            "candidates": 20,
            "searcher": {"name": "evolution"},
        },
        where="x",
    )
    entries = searched(tmp_path / "run", prepare_run(config), PretendExecutor())
    from operators.cost import parameters

    assert max(parameters(entry.architecture) for entry in entries) <= 14000


def test_two_drivers_on_one_run_are_refused(tmp_path):
    folder = RunFolder(tmp_path)
    with (
        folder.driving(),
        pytest.raises(RunError, match=f"being driven by process {os.getpid()}"),
        RunFolder(tmp_path).driving(),
    ):
        pass
    assert folder.driver() is None


def test_a_target_that_only_one_mixer_meets_is_not_refused(tiny_config, monkeypatch):
    """The smallest by parameters need not be the fastest."""
    operators = ["attention", "deltanet", "short_conv", "swiglu"]
    space = {**tiny_config.space.model_dump(mode="json"), "operators": operators, "genes": {}, "widths": [32]}
    config = config_module.parse(
        {**tiny_config.model_dump(mode="json"), "space": space, "constraints": ["decode_ms@b1 <= 1"]},
        where="x",
    )

    def profiled(worker, architecture, *rest, **options):
        slow = sum(layer.operator in ("attention", "deltanet") for layer in architecture.layers)
        return SimpleNamespace(
            metrics=lambda: {"decode_ms@b1": slow + 0.5, "decode_tokens_per_s@b1": 2.0 - slow}
        )

    monkeypatch.setattr(preflight, "profiled", profiled)
    prepare_run(config).check_constraints()
    for impossible, closest in (("decode_ms@b1 <= 0.1", 0.5), ("decode_tokens_per_s@b1 >= 3", 2)):
        with pytest.raises(
            ConfigError, match=f"no sample meets it; of .* measured, .* the closest has {closest}"
        ):
            prepare_run(config.model_copy(update={"constraints": (impossible,)})).check_constraints()
