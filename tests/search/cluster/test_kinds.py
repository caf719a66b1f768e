"""Candidates measured on declared kinds of device, on clusters of this machine that pretend to have them, and
trained by anyone.
"""

import dataclasses
import json
import random
from functools import partial

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from operators.base.errors import ConfigError, DeviceError
from proxy_train.cache import default_cache
from proxy_train.images.image_corpus import open_images
from proxy_train.images.train import train_vision
from search.cli import app as cli
from search.cluster import ray_executor
from search.cluster.connect import connect, living, types_of
from search.cluster.executor import Lost
from search.cluster.ray_executor import RayExecutor
from search.config import run as config_module
from search.config.searcher import SearcherSettings
from search.evaluation.figures import axis_label
from search.evaluation.outcome import Evaluation, Outcome
from search.objectives import RunMetrics, by_kind
from search.runs import ledger as ledger_module
from search.runs import run
from search.runs.folder import RunFolder
from search.runs.loop import drive
from search.runs.preflight import Prepared, prepare_run
from search.spaces.free import ArchitectureSpace
from search.view.candidate import print_candidate
from search.view.run import print_ended, write_plots
from tests.helpers.far_worker import FarWorker
from tests.helpers.image_sources import colours
from tests.helpers.local_cluster import nodes
from tests.helpers.pretend_worker import PretendWorker
from tests.helpers.pretended_evaluations import PretendExecutor
from tests.helpers.vision_runs import config_of

KINDS = ("H100", "A100")
BOTH = ["loss", "decode_ms@b1/H100", "decode_ms@b1/A100"]


@pytest.fixture(scope="module")
def cluster():
    """A node without an accelerator, one with each kind."""
    with nodes(*({"resources": {f"accelerator_type:{kind}": 1}} for kind in KINDS)) as found:
        yield found


@pytest.fixture(scope="module")
def two(tiny_config, corpus, tmp_path_factory):
    """A run on two kinds, of which each is fast where the other is slow, with 12 of its 13 candidates:
    results folder, entries.
    """
    changes = {"candidates": 13, "device_kind": KINDS, "objectives": tuple(BOTH)}
    config = tiny_config.model_copy(update={**changes, "searcher": SearcherSettings(name="evolution")})
    results = tmp_path_factory.mktemp("results")
    folder = RunFolder(results / "two")
    folder.path.mkdir()
    ledger = ledger_module.create(folder.ledger, config, started="now", corpus_digest=corpus.digest)
    rng = random.Random(3)

    def answer(job):
        metrics = {
            "loss": rng.random(),
            "decode_ms@b1/H100": (ms := rng.random()),
            "decode_ms@b1/A100": 1 - ms,
            "params": 1.0,
        }
        return Outcome(Evaluation(status="ok", metrics=metrics, seed=0))

    most = config.model_copy(update={"candidates": 12})
    drive(
        Prepared(most, corpus, ArchitectureSpace(config.space, corpus.vocabulary)),
        folder,
        ledger,
        PretendExecutor(answer=answer),
    )
    return results, ledger.entries()


def best_in(entries, *metrics):
    """Ids of those that no other dominates, by the definition."""
    points = {entry.number: [entry.evaluation.metrics[name] for name in metrics] for entry in entries}
    return {
        number
        for number, point in points.items()
        if not any(
            all(a <= b for a, b in zip(other, point, strict=True)) and other != point
            for other in points.values()
        )
    }


def called(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["frontrunner", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, *capsys.readouterr()


def test_each_kind_has_a_frontier_of_its_own(two, monkeypatch, capsys):
    results, entries = two
    assert len({frozenset(best_in(entries, "loss", f"decode_ms@b1/{kind}")) for kind in KINDS}) == 2

    def frontier(*arguments):
        code, out, _ = called(
            monkeypatch, capsys, "frontier", "two", "--results", results, "--json", *arguments
        )
        assert code == 0
        return {row["id"] for row in json.loads(out)}

    for kind in KINDS:
        assert frontier("--kind", kind) == best_in(entries, "loss", f"decode_ms@b1/{kind}")
        assert frontier("--kind", kind, "--objectives", "loss,decode_ms@b1/A100") == best_in(
            entries, "loss", f"decode_ms@b1/{kind}"
        )
    assert frontier() == best_in(entries, *BOTH)
    few = frontier("--all", "--where", "decode_ms@b1/A100 <= 0.5")
    assert few == {entry.number for entry in entries if entry.evaluation.metrics["decode_ms@b1/A100"] <= 0.5}

    code, out, err = called(monkeypatch, capsys, "frontier", "two", "--results", results, "--kind", "B200")
    assert (code, out, err) == (1, "", "error: --kind B200: expected a device_kind of the run: H100, A100\n")
    out = called(monkeypatch, capsys, "watch", "two", "--once", "--results", results)[1]
    for kind in KINDS:
        assert (
            f"frontier on {kind}: {len(best_in(entries, 'loss', f'decode_ms@b1/{kind}'))} candidates" in out
        )


def test_the_plot_of_a_kind_says_so():
    assert axis_label("decode_ms@b1.c512/H100") == "decode_ms [ms], batch 1, context 512, H100"
    assert axis_label("largest_batch/H100") == "largest_batch [rows], H100"


def test_one_kind_alone_is_in_no_name(tiny_config):
    config = tiny_config.model_copy(update={"device_kind": ("H100",)})
    assert [objective.metric for objective in config.parsed_objectives()] == ["loss", "decode_ms@b1"]
    assert by_kind(config.parsed_objectives(), config.device_kind) == {"": config.parsed_objectives()}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "decode_ms@b1",
            "measured on each device_kind: expected one of decode_ms@b1/H100, decode_ms@b1/A100",
        ),
        (
            "decode_ms@b1/B200",
            "measured on each device_kind: expected one of decode_ms@b1/H100, decode_ms@b1/A100",
        ),
        ("decode_ms@b3/H100", "at the profile's batch sizes and contexts"),
        ("loss/H100", "does not depend on the kind of device in this run: expected loss"),
        ("params/A100", "does not depend on the kind of device in this run: expected params"),
        ("state_bytes@b1/A100", "does not depend on the kind of device in this run: expected state_bytes@b1"),
        (
            "speed/A100",
            "unknown metric 'speed/A100': expected one of params, .*decode_ms@b1/H100, decode_ms@b1/A100",
        ),
    ],
)
def test_a_metric_of_another_kind_says_what_exists(name, says, tiny_config):
    with pytest.raises(ConfigError, match=says):
        RunMetrics(tiny_config.profile, kinds=KINDS).named(name)


def test_every_name_that_is_offered_on_several_kinds_is_accepted(tiny_config):
    offered = RunMetrics(tiny_config.profile, kinds=KINDS).names()
    for name in offered:
        assert RunMetrics(tiny_config.profile, kinds=KINDS).objective(name).metric == name
        assert RunMetrics(tiny_config.profile, kinds=KINDS).constraint(f"{name}<=3").metric == name
    assert len(set(offered)) == len(offered)


def test_a_ledger_of_before_there_were_several_kinds_is_still_read():
    assert config_module.parse({"device_kind": ""}, where="old").device_kind == ()
    assert config_module.parse({"device_kind": "H100"}, where="old").device_kind == ("H100",)


@pytest.mark.parametrize("command", [["search", "run.yaml"], ["resume", "two"]])
def test_several_kinds_are_refused_without_a_cluster(
    command, two, tiny_config, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    config = tiny_config.model_copy(update={"device_kind": KINDS, "objectives": tuple(BOTH)})
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    where = ["--results", two[0]] if command[0] == "resume" else []
    code, _, err = called(monkeypatch, capsys, *command, *where, "--executor", "inline")
    assert (code, err) == (
        1,
        "error: device_kind H100, A100: expected executor ray, which finds kinds, got inline\n",
    )


def test_one_kind_is_not_taken_for_granted_without_ray(tiny_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(tiny_config.model_copy(update={"device_kind": ("H100",)}).to_yaml())
    code, _, err = called(monkeypatch, capsys, "search", "run.yaml", "--executor", "inline")
    assert (code, err) == (
        1,
        "error: device_kind H100: expected executor ray, which finds kinds, got inline\n",
    )
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_a_search_on_two_kinds_ends_with_a_frontier_for_each(tiny_config, cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = tiny_config.model_copy(
        update={"candidates": 2, "workers": 2, "device_kind": KINDS, "objectives": tuple(BOTH)}
    )
    console = Console(width=200, record=True)
    folder = run.start(config, results=tmp_path, name="two", executor="ray", address=cluster.address)
    ended = run.drive_to_end(folder, executor="ray", address=cluster.address)
    write_plots(ended)
    print_ended(console, ended)
    entries = ledger_module.open_ledger(folder.ledger).entries()
    assert {entry.evaluation.status for entry in entries} == {"ok"}
    assert all(set(entry.evaluation.profiles) == set(KINDS) for entry in entries)
    assert all(entry.evaluation.seconds["queue"] >= 0 for entry in entries)
    said = console.export_text()
    for kind in KINDS:
        assert f"frontier of two on {kind}: " in said
        assert folder.plot(kind).read_bytes().startswith(b"\x89PNG")
    print_candidate(console, folder, entries[0])
    said = console.export_text()
    assert all(f"conditions on {kind}: anchor" in said for kind in KINDS)


@pytest.mark.slow
def test_a_search_for_models_that_see_sends_its_images_to_other_machines(
    tiny_config, cluster, tmp_path, monkeypatch
):
    pytest.importorskip("PIL")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(ray_executor, "spans_machines", lambda nodes: True)
    monkeypatch.setattr(ray_executor, "RayExecutor", partial(RayExecutor, worker=FarWorker))
    changes = {"candidates": 2, "workers": 1}
    config = config_module.parse(
        config_of(tiny_config, colours(tmp_path / "data", 24), **changes), where="run"
    )
    folder = run.start(config, results=tmp_path, name="sees", executor="ray", address=cluster.address)
    ended = run.drive_to_end(folder, executor="ray", address=cluster.address)
    assert [entry.evaluation.status for entry in ended.entries] == ["ok", "ok"]
    monkeypatch.undo()
    prepared = prepare_run(config)
    # The workers' cache is that of the tests.
    copy = default_cache() / "shipped" / prepared.images.digest[:16]
    assert open_images(copy, hashes=True).digest == prepared.images.digest
    for entry in ended.entries:
        here = train_vision(
            entry.architecture,
            prepared.corpus,
            prepared.images,
            config.proxy,
            config.vision.stages,
            seed=entry.evaluation.seed,
        )
        assert here.score.answer_loss == entry.evaluation.metrics["answer_loss"]
        assert load_file(folder.weights(entry.number)).keys() == here.weights.keys()


@pytest.fixture
def executor(cluster):
    """Three workers that pretend."""
    found = RayExecutor(
        workers=3, device="cpu", deadline_s=60, kinds=KINDS, address=cluster.address, worker=PretendWorker
    )
    yield found
    found.close()


def test_every_part_of_a_job_is_made_by_who_can_until_no_worker_of_a_kind_is_left(job, executor, tmp_path):
    """A lost measurement is the machine's fault, and made again; a device that is gone for good ends the
    search.
    """
    (tmp_path / "die 5").touch()
    assert executor.capacity == 4  # one is measured while all train
    jobs = [dataclasses.replace(job, number=number, corpus=tmp_path, kinds=KINDS) for number in range(12)]
    for each in jobs:
        executor.submit(each)
    ended = {done.number: found for done, found in (executor.next() for _ in jobs)}
    lost = ended.pop(5)
    assert (type(lost), lost.blame) == (Lost, "machine")
    executor.submit(jobs[5])
    assert executor.next()[1].evaluation.status == "ok"
    assert {found.evaluation.status for found in ended.values()} == {"ok"}
    measured = noted(tmp_path / "measured")
    assert all(kind == had for _, _, kind, had in measured)
    assert sorted((int(number), kind) for number, _, kind, _ in measured) == sorted(
        [*((number, kind) for number in range(12) for kind in KINDS), (5, "H100")]
    )
    trained = noted(tmp_path / "trained")
    assert sorted(int(number) for number, *_ in trained) == list(range(12))
    assert [] in [types for _, _, *types in trained]  # where nothing can be measured

    (tmp_path / "break 12").touch()  # H100 is the first to measure
    executor.submit(dataclasses.replace(job, number=12, corpus=tmp_path, kinds=KINDS))
    lost = executor.next()[1]
    assert (type(lost), lost.blame) == (Lost, "machine")
    assert lost.reason.endswith("fell off the bus")
    executor.submit(dataclasses.replace(job, number=12, corpus=tmp_path, kinds=KINDS))
    with pytest.raises(DeviceError, match=r"no worker with H100 is left: .*fell off the bus"):
        executor.next()


def noted(path):
    return [line.split() for line in path.read_text().splitlines()]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_one_gpu_of_the_kind_both_measures_and_trains(job):
    connect(None, workers=1)
    import ray

    (kind,) = types_of(living(ray.nodes())[0])
    ray.shutdown()
    found = ended_on_gpus(job, workers=1, kinds=(kind,), address=None)
    assert found.profile.device == "cuda:0"
    assert found.metrics["decode_ms@b1"] > 0


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_two_gpus_of_one_kind_that_are_called_two_kinds_are_equally_fast(job):
    kinds = ("left", "right")
    with nodes(*(gpu_node(index, kind) for index, kind in enumerate(kinds))) as found:
        profiles = ended_on_gpus(job, workers=2, kinds=kinds, address=found.address).profiles
    fast, slow = sorted(profiles[kind].points[0].decode.median_ms for kind in kinds)
    assert slow < 1.2 * fast


def gpu_node(index, kind):
    visible = {"CUDA_VISIBLE_DEVICES": str(index)}
    return {"num_gpus": 1, "env_vars": visible, "resources": {f"accelerator_type:{kind}": 1}}


def ended_on_gpus(job, **cluster):
    executor = RayExecutor(device="cuda", deadline_s=300, **cluster)
    try:
        executor.submit(dataclasses.replace(job, device="cuda", deadline_s=300.0, kinds=cluster["kinds"]))
        found = executor.next()[1].evaluation
    finally:
        executor.close()
    assert found.status == "ok", found.reason
    return found
