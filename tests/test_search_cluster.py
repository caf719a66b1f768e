import dataclasses
import os

import pytest

from operators.errors import ConfigError
from search.cluster import InlineExecutor, RayExecutor
from search.evaluate import evaluate
from search.objectives import parse_constraint


class Fatal:
    """Ends the process that unpickles it, as a segmentation fault in a kernel would."""

    def __reduce__(self):
        return os._exit, (11,)


@pytest.fixture(scope="module")
def ray_executor():
    executor = RayExecutor(workers=2, device="cpu", deadline_s=120)
    yield executor
    executor.close()


def deterministic(outcome):
    """What of an outcome does not depend on the clock."""
    evaluation = outcome.evaluation
    return evaluation.status, evaluation.proxy.loss, evaluation.proxy.curve, evaluation.metrics["params"], outcome.weights


def test_an_evaluation_has_every_metric_of_profile_and_proxy(job):
    evaluation = evaluate(job).evaluation
    assert evaluation.status == "ok"
    assert {"loss", "perplexity", "bits_per_byte", "params", "prefill_ms@b1", "decode_ms@b1"} <= evaluation.metrics.keys()
    assert evaluation.profile.points[0].decode.samples_ms
    assert evaluation.backends["attention"] in ("sdpa", "reference")
    assert evaluation.seconds["train"] > 0
    assert evaluation.versions["torch"]


def test_a_broken_constraint_is_found_before_training(job):
    slow = dataclasses.replace(job, constraints=(parse_constraint("decode_ms@b1 <= 1e-9", job.profile),))
    evaluation = evaluate(slow).evaluation
    assert evaluation.status == "infeasible"
    assert "decode_ms@b1 is" in evaluation.reason
    assert evaluation.proxy is None
    assert "decode_ms@b1" in evaluation.metrics


def test_a_constraint_on_the_loss_is_checked_after_training(job):
    evaluation = evaluate(dataclasses.replace(job, constraints=(parse_constraint("loss <= 1e-9", job.profile),))).evaluation
    assert evaluation.status == "infeasible"
    assert evaluation.proxy is not None


def test_divergence_is_a_failed_evaluation_with_its_reason(job):
    wild = job.proxy.model_copy(update={"learning_rate": 1e5})
    evaluation = evaluate(dataclasses.replace(job, proxy=wild)).evaluation
    assert evaluation.status == "diverged"
    assert "step" in evaluation.reason
    assert "loss" not in evaluation.metrics


def test_running_out_of_memory_is_a_failed_evaluation(job):
    huge = job.profile.model_copy(update={"batch_sizes": (2**40,)})
    evaluation = evaluate(dataclasses.replace(job, profile=huge)).evaluation
    assert evaluation.status == "out_of_memory"


def test_a_defect_keeps_its_traceback(job):
    evaluation = evaluate(dataclasses.replace(job, device="nonsense")).evaluation
    assert evaluation.status == "error"
    assert "Traceback" in evaluation.traceback


def test_workers_answer_as_this_process_does(job, ray_executor):
    inline = InlineExecutor()
    inline.submit(job)
    ray_executor.submit(job)
    assert deterministic(ray_executor.next()[1]) == deterministic(inline.next()[1])


def test_a_dead_worker_fails_its_candidate_alone_and_is_replaced(job, ray_executor):
    ray_executor.submit(dataclasses.replace(job, number=1, corpus=Fatal()))
    ray_executor.submit(dataclasses.replace(job, number=2))
    outcomes = {done.number: outcome for done, outcome in (ray_executor.next(), ray_executor.next())}
    assert outcomes[1].evaluation.status == "crashed"
    assert "died" in outcomes[1].evaluation.reason
    assert outcomes[2].evaluation.status == "ok"
    for number in (3, 4):
        ray_executor.submit(dataclasses.replace(job, number=number))
    assert {ray_executor.next()[1].evaluation.status for _ in range(2)} == {"ok"}


def test_a_late_worker_is_killed_and_replaced(job, ray_executor):
    endless = job.proxy.model_copy(update={"tokens": 10**10})
    ray_executor._deadline_s = 3.0
    try:
        ray_executor.submit(dataclasses.replace(job, number=5, proxy=endless))
        done, outcome = ray_executor.next()
    finally:
        ray_executor._deadline_s = 120.0
    assert (done.number, outcome.evaluation.status) == (5, "timeout")
    assert "3 s" in outcome.evaluation.reason
    ray_executor.submit(dataclasses.replace(job, number=6))
    assert ray_executor.next()[1].evaluation.status == "ok"


def test_an_address_where_nobody_answers_is_said():
    with pytest.raises(ConfigError, match="no Ray cluster answers there"):
        RayExecutor(workers=1, device="cpu", deadline_s=1, address="127.0.0.1:1")


def test_the_local_cluster_listens_on_loopback_alone(ray_executor):
    import ray

    assert ray.util.get_node_ip_address() == "127.0.0.1"
