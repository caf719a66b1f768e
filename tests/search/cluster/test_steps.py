"""Who does which part of an evaluation next: what must hold on any cluster, and that who trains does not
wait.
"""

import dataclasses
import heapq
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_train.task_settings import TaskSettings
from search.cluster.steps import Step, assignment, first_step, places
from search.config.evaluation import FidelitySettings
from search.evaluation.outcome import Job, Measured


@dataclasses.dataclass(frozen=True, eq=False)
class Worker:
    kinds: frozenset


def workers(**counts):
    """So many workers of each kind; `plain` ones have none."""
    return [Worker(frozenset({kind} - {"plain"})) for kind, count in counts.items() for _ in range(count)]


def job_on(kinds):
    return Job(
        0, None, None, None, None, (), "cpu", 0, 100.0, FidelitySettings(), TaskSettings(), kinds=kinds
    )


def simulated(job, everyone, *, jobs, measuring_s):
    """Every part that is made, as (worker, step, begun, ended), where as many jobs are under way as may be;
    trainings take 20 to 100 s.
    """
    rng = random.Random(5)
    waiting, idle, events, made = [], list(everyone), [], []
    now, submitted, running = 0.0, 0, 0
    while True:
        while submitted < jobs and running < places(everyone, job.kinds):
            waiting.append(first_step(dataclasses.replace(job, number=submitted)))
            submitted, running = submitted + 1, running + 1
        while found := assignment(waiting, idle, busy=[(worker, step) for _, _, worker, step in events]):
            step, worker = found
            waiting.remove(step)
            idle.remove(worker)
            ended = now + (measuring_s if step.kind else rng.uniform(20, 100))
            heapq.heappush(events, (ended, len(made), worker, step))
            made.append((worker, step, now, ended))
        if not events:
            return made
        now, _, worker, step = heapq.heappop(events)
        idle.append(worker)
        if step.kind:
            waiting.append(step.following(Measured(seconds={"profile": measuring_s})))
        else:
            running -= 1


@settings(deadline=None, max_examples=100)
@given(
    shape=st.fixed_dictionaries(
        {"H100": st.integers(1, 4), "A100": st.integers(0, 4), "plain": st.integers(0, 4)}
    ),
    jobs=st.integers(1, 20),
    measuring_s=st.sampled_from([1.0, 7.0, 30.0]),
)
def test_every_candidate_is_measured_on_each_kind_by_who_has_it_and_then_trained_once(
    shape, jobs, measuring_s
):
    kinds = tuple(kind for kind in ("H100", "A100") if shape[kind])
    made = simulated(job_on(kinds), workers(**shape), jobs=jobs, measuring_s=measuring_s)
    parts = {}
    for worker, step, begun, ended in made:
        assert not step.kind or step.kind in worker.kinds
        parts.setdefault(step.job.number, []).append((step.kind, begun, ended))
    assert sorted(parts) == list(range(jobs))
    for made_of_one in parts.values():
        assert [kind for kind, _, _ in made_of_one] == [*kinds, ""]
        assert all(ended <= begun for (_, _, ended), (_, begun, _) in pairwise(made_of_one))


@pytest.mark.parametrize(
    ("shape", "kinds", "trainers"),
    [
        ({"H100": 1, "plain": 7}, ("H100",), 6.7),  # the one that measures does hardly anything else
        ({"H100": 1, "plain": 20}, ("H100",), 19.0),
        ({"H100": 4, "plain": 4}, ("H100",), 7.3),
        ({"H100": 1, "plain": 1}, ("H100",), 1.8),
        ({"H100": 1, "A100": 1}, ("H100", "A100"), 1.6),
        ({"H100": 1, "A100": 7}, ("H100", "A100"), 6.6),
        ({"H100": 8}, ("H100",), 7.8),  # all are alike: who is free measures and trains
        ({"H100": 1}, ("H100",), 0.97),
    ],
)
def test_most_workers_train_most_of_the_time(shape, kinds, trainers):
    per_s = trainings_per_s(shape, kinds, measuring_s=1.0)
    assert trainers / 60 <= per_s <= 1.03 * sum(shape.values()) / 60


def test_where_measurements_are_what_takes_long_all_who_can_make_them():
    assert trainings_per_s({"H100": 4, "plain": 100}, ("H100",), measuring_s=3.0) == pytest.approx(
        4 / 3.0, rel=0.06
    )


def trainings_per_s(shape, kinds, *, measuring_s):
    made = simulated(job_on(kinds), workers(**shape), jobs=800, measuring_s=measuring_s)
    ended = sorted(ended for _, step, _, ended in made if not step.kind)
    return 400 / (ended[549] - ended[149])  # in the middle, where neither start nor end is felt


def test_who_is_kept_to_measure_trains_once_nobody_else_does():
    (fast,), (plain, *others) = workers(H100=1), workers(plain=4)
    job = job_on(("H100",))
    training, measuring = Step(job, "", Measured()), Step(job, "H100")
    everyone_else = [(worker, training) for worker in (plain, *others)]
    assert assignment([training], [fast], busy=everyone_else) is None
    assert assignment([training], [fast], busy=everyone_else[1:]) == (
        training,
        fast,
    )  # three lack what one has
    assert assignment([training], [fast, *others], busy=[]) == (training, others[-1])
    assert assignment([training, measuring], [fast], busy=everyone_else) == (measuring, fast)
    assert assignment([training], [fast], busy=[]) == (training, fast)


def test_one_candidate_is_measured_ahead_where_some_cannot_measure():
    assert places(workers(H100=2), ("H100",)) == places(workers(plain=2), ()) == 2
    assert (
        places(workers(H100=1, plain=1), ("H100",)) == places(workers(H100=1, A100=1), ("H100", "A100")) == 3
    )


def test_the_deadline_does_not_pass_while_a_candidate_waits_for_a_worker():
    step = Step(job_on(("H100",)), "", Measured(seconds={"profile": 10.0, "wait": 5.0, "queue": 500.0}))
    assert step.left_s(100.0) == 85.0


def test_metrics_name_their_kind_where_there_are_several():
    assert first_step(job_on(("H100",))).label == ""
    assert first_step(job_on(("H100", "A100"))).label == "H100"
