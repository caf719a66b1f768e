import dataclasses
import os
import shutil
from types import SimpleNamespace

import pytest

from operators.base.errors import ConfigError, DeviceError, RunError
from proxy_train.images.image_settings import ImageSettings
from proxy_train.images.prepare import prepare_images
from proxy_train.images.stage_settings import StageSettings
from proxy_train.task_settings import TaskSettings
from proxy_train.tasks import train_task
from search.cluster.connect import _start_here
from search.cluster.executor import InlineExecutor
from search.cluster.ray_executor import RayExecutor
from search.evaluation.evaluate import evaluate
from search.objectives import Objective, RunMetrics
from tests.helpers.faulty_operators import architecture_with
from tests.helpers.image_sources import colours
from tests.helpers.processes import alive, gone
from tests.helpers.vision_models import vision_language

pytestmark = pytest.mark.slow


class Fatal:
    """Ends the process that unpickles it, as a segmentation fault in a kernel would."""

    def __reduce__(self):
        return os._exit, (11,)


@pytest.fixture(scope="module")
def ray_executor(tmp_path_factory):
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("workers-cache")))
        executor = RayExecutor(workers=2, device="cpu", deadline_s=120)
        yield executor
        executor.close()


def giving_up(job):
    """A model whose training breaks the device."""
    return architecture_with("broken_device").model_copy(update={"vocabulary": job.corpus.vocabulary})


def deterministic(outcome):
    """What of an outcome does not depend on the clock."""
    evaluation = outcome.evaluation
    return (
        evaluation.status,
        evaluation.proxy.loss,
        evaluation.proxy.curve,
        evaluation.metrics["params"],
        outcome.weights,
    )


def test_an_evaluation_has_every_metric_of_profile_and_proxy(job, profiler):
    evaluation = evaluate(job, profiler).evaluation
    assert evaluation.status == "ok"
    assert {
        "loss",
        "perplexity",
        "bits_per_byte",
        "params",
        "prefill_ms@b1",
        "decode_ms@b1",
    } <= evaluation.metrics.keys()
    assert evaluation.profile.points[0].decode.samples_ms
    assert evaluation.backends["attention"] in ("sdpa", "reference")
    assert evaluation.seconds["train"] > 0
    assert evaluation.versions["torch"]


def test_what_a_device_cannot_measure_is_no_candidates_fault(job, profiler, monkeypatch):
    profile = evaluate(job, profiler).evaluation.profile
    lacking = profile.model_copy(
        update={"absent": {"energy_j_per_token": "no counter", "power_w": "no counter"}}
    )
    monkeypatch.setattr("search.evaluation.evaluate.profiled", lambda *args, **kwargs: lacking)
    frugal = dataclasses.replace(job, objectives=(Objective("energy_j_per_token@b1", maximize=False),))
    with pytest.raises(DeviceError, match=r"device cpu cannot measure energy_j_per_token@b1: no counter"):
        evaluate(frugal, profiler)
    assert evaluate(job, profiler).evaluation.status == "ok"


def test_a_broken_constraint_is_found_before_training(job, profiler):
    slow = dataclasses.replace(job, constraints=(RunMetrics(job.profile).constraint("decode_ms@b1 <= 1e-9"),))
    evaluation = evaluate(slow, profiler).evaluation
    assert evaluation.status == "infeasible"
    assert "decode_ms@b1 is" in evaluation.reason
    assert evaluation.proxy is None
    assert "decode_ms@b1" in evaluation.metrics


def test_a_constraint_on_the_loss_is_checked_after_training(job, profiler):
    evaluation = evaluate(
        dataclasses.replace(job, constraints=(RunMetrics(job.profile).constraint("loss <= 1e-9"),)), profiler
    ).evaluation
    assert evaluation.status == "infeasible"
    assert evaluation.proxy is not None


def test_tasks_are_trained_after_the_text_unless_a_constraint_is_broken(job, profiler):
    asked = dataclasses.replace(job, tasks=TaskSettings(names=("copy",), tokens=1024))
    evaluation = evaluate(asked, profiler).evaluation
    assert evaluation.status == "ok"
    assert (
        evaluation.metrics["copy_accuracy"]
        == train_task("copy", job.architecture, asked.tasks, seed=job.seed).accuracy
    )
    assert evaluation.seconds["tasks"] >= evaluation.tasks[0].seconds > 0
    never = RunMetrics(job.profile, asked.tasks).constraint("copy_accuracy >= 1.01")
    assert (
        evaluate(dataclasses.replace(asked, constraints=(never,)), profiler).evaluation.status == "infeasible"
    )
    broken = dataclasses.replace(asked, constraints=(RunMetrics(job.profile).constraint("loss <= 1e-9"),))
    assert evaluate(broken, profiler).evaluation.tasks == ()


def test_a_candidate_that_sees_is_evaluated_by_a_worker_as_here(ray_executor, job, profiler, tmp_path):
    pytest.importorskip("PIL")
    stages = StageSettings(align_examples=16, tune_examples=16, batch_size=8, validation_examples=8)
    settings = ImageSettings(source=str(colours(tmp_path / "data", 24)), image_size=8)
    images = prepare_images(settings, job.corpus.folder / "tokenizer.json", cache=tmp_path / "cache")
    value = vision_language(
        image_size=8,
        language={"width": 16, "vocabulary": job.corpus.vocabulary, "layers": "a f"},
        image_token=job.corpus.vocabulary - 1,
    )
    profile = job.profile.model_copy(update={"images": 1})
    sees = dataclasses.replace(job, architecture=value, profile=profile, images=images, stages=stages)
    ray_executor.submit(sees)
    there, outcome = ray_executor.next()
    here = evaluate(sees, profiler)
    assert there.number == job.number
    assert outcome.evaluation.status == here.evaluation.status == "ok"
    scores = [each.evaluation.vision.model_dump(exclude={"seconds"}) for each in (outcome, here)]
    assert scores[0] == scores[1]
    assert outcome.weights == here.weights
    assert outcome.evaluation.metrics["ttft_ms@b1"] > 0
    seeing = {"answer_loss", "answer_accuracy", "text_loss", "preprocess_ms@b1", "image_tokens"}
    assert seeing <= outcome.evaluation.metrics.keys()


def test_divergence_is_a_failed_evaluation_with_its_reason(job, profiler):
    wild = job.proxy.model_copy(update={"learning_rate": 1e5})
    evaluation = evaluate(dataclasses.replace(job, proxy=wild), profiler).evaluation
    assert evaluation.status == "diverged"
    assert "step" in evaluation.reason
    assert "loss" not in evaluation.metrics


def test_a_context_larger_than_memory_is_a_failed_evaluation(job, profiler):
    huge = job.profile.model_copy(update={"batch_sizes": (3,), "contexts": (2**40,)})
    evaluation = evaluate(dataclasses.replace(job, profile=huge), profiler).evaluation
    assert evaluation.status == "out_of_memory"
    assert evaluation.reason.startswith("batch 3, context 1099511627776: ")


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("refused", "unbuildable", "operator faulty cannot be built"),
        ("out_of_memory", "out_of_memory", "can't allocate memory"),
        ("illegal_address", "crashed", "SIGSEGV"),
        ("hang", "timeout", "not finished after 2 s, while building"),
    ],
)
def test_a_candidate_that_goes_wrong_is_a_failed_evaluation_with_its_reason(
    job, profiler, fault, status, reason
):
    evaluation = evaluate(
        dataclasses.replace(job, architecture=architecture_with(fault), deadline_s=4.0), profiler
    ).evaluation
    assert evaluation.status == status
    assert reason in evaluation.reason
    assert evaluate(job, profiler).evaluation.status == "ok"


def test_a_defect_keeps_its_traceback(job, profiler):
    evaluation = evaluate(
        dataclasses.replace(job, architecture=architecture_with("defect")), profiler
    ).evaluation
    assert evaluation.status == "error"
    assert "KeyError: 'a defect'" in evaluation.reason
    assert "faulty_operators.py" in evaluation.traceback


def test_workers_answer_as_this_process_does(job, ray_executor):
    inline = InlineExecutor("cpu")
    inline.submit(job)
    ray_executor.submit(job)
    assert deterministic(ray_executor.next()[1]) == deterministic(inline.next()[1])
    inline.close()


def test_workers_here_have_the_priority_of_the_command(ray_executor, monkeypatch):
    """Ray's own is lower: what is measured would wait for every other process of the machine.

    Ray adds its setting to the niceness of the command, so the setting is 0 whatever that is.
    """
    started = {}
    monkeypatch.setattr(os, "getpriority", lambda which, who: 7)
    _start_here(SimpleNamespace(init=lambda **asked: started.update(asked)), 1, {})
    assert started["_system_config"] == {"worker_niceness": 0}
    monkeypatch.undo()
    while not ray_executor._idle:
        ray_executor._step()
    priorities = {os.getpriority(os.PRIO_PROCESS, member.home.pid) for member in ray_executor._idle}
    assert priorities == {os.getpriority(os.PRIO_PROCESS, 0)}


def test_a_dead_worker_loses_its_candidate_alone_and_is_replaced(job, ray_executor):
    ray_executor.submit(dataclasses.replace(job, number=1, corpus=Fatal()))
    ray_executor.submit(dataclasses.replace(job, number=2))
    outcomes = {done.number: outcome for done, outcome in (ray_executor.next(), ray_executor.next())}
    assert outcomes[1].blame == "worker"
    assert "died" in outcomes[1].reason
    assert outcomes[2].evaluation.status == "ok"
    for number in (3, 4):
        ray_executor.submit(dataclasses.replace(job, number=number))
    assert {ray_executor.next()[1].evaluation.status for _ in range(2)} == {"ok"}
    assert ray_executor.capacity == 2


def test_a_worker_whose_gpu_gave_up_is_replaced_and_its_candidate_may_be_to_blame(job, ray_executor):
    before = {member.home.pid for member in ray_executor._idle}
    ray_executor.submit(dataclasses.replace(job, number=1, architecture=giving_up(job)))
    done, lost = ray_executor.next()
    assert (done.number, lost.blame) == (1, "worker")
    assert "device cuda:0 gave up: an illegal memory access" in lost.reason
    ray_executor.submit(dataclasses.replace(job, number=2))
    assert ray_executor.next()[1].evaluation.status == "ok"
    while ray_executor._ready:
        ray_executor._step()
    assert len({member.home.pid for member in ray_executor._idle} - before) == 1
    assert ray_executor.capacity == 2


def test_a_gpu_that_gave_up_in_this_process_is_told_with_what_goes_on(job):
    inline = InlineExecutor("cpu")
    inline.submit(dataclasses.replace(job, number=4, architecture=giving_up(job)))
    with pytest.raises(RunError, match=r"^candidate 4 could not be .* gave up: .*`frontrunner resume`"):
        inline.next()
    inline.close()


def test_text_that_a_worker_lacks_is_sent_to_it(job, ray_executor, monkeypatch, tmp_path):
    monkeypatch.setattr(ray_executor, "_far", True)
    folder = tmp_path / "text"
    shutil.copytree(job.corpus.folder, folder)
    moved = dataclasses.replace(job, corpus=dataclasses.replace(job.corpus, folder=folder))
    assert ray_executor._shipped(moved)
    shutil.rmtree(folder)
    ray_executor.submit(job)
    ray_executor.submit(moved)
    (_, first), (_, second) = ray_executor.next(), ray_executor.next()
    assert deterministic(first) == deterministic(second)


def test_a_late_worker_is_killed_and_replaced(job, ray_executor):
    endless = job.proxy.model_copy(update={"tokens": 10**10})
    workers = [member.actor for member in ray_executor._idle]
    profiling = [
        ray_executor._ray.get(worker.__ray_call__.remote(lambda self: self._profiler.pid))
        for worker in workers
    ]
    ray_executor._deadline_s = 3.0
    try:
        ray_executor.submit(dataclasses.replace(job, number=5, proxy=endless))
        done, outcome = ray_executor.next()
    finally:
        ray_executor._deadline_s = 120.0
    assert (done.number, outcome.evaluation.status) == (5, "timeout")
    assert "3 s" in outcome.evaluation.reason
    assert gone(profiling[-1])
    assert alive(profiling[0])
    ray_executor.submit(dataclasses.replace(job, number=6))
    assert ray_executor.next()[1].evaluation.status == "ok"


def test_workers_that_cannot_use_the_device_say_why(ray_executor, monkeypatch):
    idle, ray_executor._idle = ray_executor._idle, []
    ray_executor._ray.kill(idle.pop().actor)  # makes room on the cluster for another
    monkeypatch.setattr(ray_executor, "_device", "cuda:99")
    try:
        ray_executor._start([""])
        with pytest.raises(DeviceError, match=r"^no worker is left: device cuda:99: "):
            ray_executor.next()
    finally:
        ray_executor._idle = idle


def test_a_machine_that_fails_is_given_up_and_its_candidate_is_lost(job, ray_executor):
    gone = dataclasses.replace(job.corpus, folder=job.corpus.folder / "absent")
    ray_executor.submit(dataclasses.replace(job, number=7, corpus=gone))
    done, lost = ray_executor.next()
    assert (done.number, lost.blame) == (7, "machine")
    assert "absent" in lost.reason
    assert ray_executor._idle == []
    with pytest.raises(DeviceError, match=r"^no worker is left: .*absent"):
        ray_executor.next()


def test_an_address_where_nobody_answers_is_said():
    with pytest.raises(ConfigError, match="no Ray cluster answers there"):
        RayExecutor(workers=1, device="cpu", deadline_s=1, address="127.0.0.1:1")


def test_the_local_cluster_listens_on_loopback_alone(ray_executor):
    import ray

    assert ray.util.get_node_ip_address() == "127.0.0.1"
