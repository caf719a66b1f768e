"""Trainings on several devices at once: the same losses as one after the other, each once, and what becomes
of faults and interrupts.
"""

import os
import signal
import threading
import time
from collections import Counter
from contextlib import closing
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from operators import Architecture
from operators.base.errors import DeviceError
from profiler.device import gpus
from profiler.process.child_process import Child
from proxy_train.settings import ProxyScore
from proxy_train.text.corpus import Corpus
from search.config.run import RunConfig
from search.evaluation.profiling import Failure
from search.studies import experiment, experiment_store, parallel
from search.studies.experiment import Wanted
from search.studies.law import law
from search.studies.law.law import LawSettings
from search.studies.parallel import made
from tests.helpers.faulty_operators import Fault, architecture_with

pytestmark = pytest.mark.slow

QUIET = Console(file=StringIO())


@pytest.fixture
def settings(tiny_config: RunConfig) -> LawSettings:
    genes = {"attention": {"head_dim": 8, "group": 1}}
    data = {
        "depths": [1, 2],
        "widths": [16, 32],
        "genes": genes,
        "data": tiny_config.data,
        "proxy": tiny_config.proxy,
    }
    return experiment.parsed(LawSettings, {**data, "profile": tiny_config.profile}, where="law")


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    """Every process that is started for trainings."""
    started: list[Child] = []

    class Noted(Child):
        def __init__(self, *arguments: str, **named: object) -> None:
            super().__init__(*arguments, **named)  # type: ignore[arg-type]
            started.append(self)

    monkeypatch.setattr(parallel, "Child", Noted)
    return started


def faulty(fault: Fault, settings: LawSettings, *, batches: int = 1) -> Wanted:
    proxy = settings.trained_with(batches * settings.proxy.batch_tokens)
    return Wanted(fault, architecture_with(fault, vocabulary=300), proxy, 0)


def sound(settings: LawSettings) -> Wanted:
    return Wanted("sound", settings.architecture(1, 16, vocabulary=300), settings.proxy, 0)


def test_two_processes_find_what_one_does_and_make_each_training_once(
    settings: LawSettings,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    children: list[Child],
) -> None:
    monkeypatch.setattr(experiment, "prepare", lambda settings, **_: corpus)
    monkeypatch.setattr(
        experiment, "profiled", lambda *_, **__: Failure(status="out_of_memory", reason="pretended")
    )
    law.run(settings, results=tmp_path, name="one", console=QUIET)
    assert not children

    def here(architecture: Architecture, *_: object, **__: object) -> ProxyScore:
        raise AssertionError(f"{architecture.shorthand} is trained in this process")

    monkeypatch.setattr(experiment, "train_once", here)
    out = StringIO()
    shared = settings.model_copy(update={"per_device": 2})
    law.run(shared, results=tmp_path, name="two", console=Console(file=out, width=200))
    assert "4 trainings, 2 at a time on cpu, the longest first" in out.getvalue()
    law.run(settings, results=tmp_path, name="two", console=QUIET)
    assert len(children) == 2
    assert law.grid(tmp_path, "two").loss == law.grid(tmp_path, "one").loss  # to the last bit
    lines = (tmp_path / "two" / "records.jsonl").read_text().splitlines()
    assert Counter('"kind":"training"' in line for line in lines) == {True: 4, False: 4}


def test_what_fails_has_its_reason_and_the_others_go_on(
    settings: LawSettings, corpus: Corpus, children: list[Child]
) -> None:
    wanted = [
        sound(settings),
        *(
            faulty(fault, settings, batches=8)
            for fault in ("exit", "out_of_memory", "refused", "broken_device")
        ),
    ]
    with closing(made(wanted, corpus, ("cpu",))) as ended:
        found = {training.label: training for training in ended}
    assert {label: training.status for label, training in found.items()} == {
        "sound": "ok",
        "exit": "crashed",
        "out_of_memory": "out_of_memory",
        "refused": "unbuildable",
        "broken_device": "crashed",
    }
    assert (
        found["exit"].reason
        == "the training process ended with exit status 3 while training: its last / words"
    )
    assert found["broken_device"].reason.endswith("device cuda:0 gave up: an illegal memory access")
    assert found["refused"].reason == "operator faulty cannot be built"
    assert next(iter(found)) == "exit"  # the longest first; of equally long ones the first
    assert len(children) == 3  # one in each dead one's place
    assert not any(child.alive for child in children)


def test_a_defect_is_raised_with_its_place_and_ends_every_process(
    settings: LawSettings, corpus: Corpus, children: list[Child]
) -> None:
    wanted = [faulty("hang", settings), faulty("defect", settings)]
    with (
        pytest.raises(RuntimeError, match="KeyError: 'a defect'") as raised,
        closing(made(wanted, corpus, ("cpu", "cpu"))) as ended,
    ):
        list(ended)
    assert "faulty_operators.py" in raised.value.__notes__[0]
    assert not any(child.alive for child in children)


def test_a_device_that_cannot_be_opened_is_no_failed_training(settings: LawSettings, corpus: Corpus) -> None:
    with (
        pytest.raises(DeviceError, match="unknown device 'abacus'"),
        closing(made([sound(settings)], corpus, ("abacus",))) as ended,
    ):
        list(ended)


def test_a_process_that_dies_before_it_begins_is_no_failed_training(
    settings: LawSettings, corpus: Corpus, cold_python: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        parallel, "alone", lambda device: {"PYTHONHASHSEED": "no number"}
    )  # which Python refuses
    message = "device cpu cannot be opened: the training process ended with exit status 1 while starting: "
    with (
        pytest.raises(DeviceError, match=message),
        closing(made([sound(settings)], corpus, ("cpu",))) as ended,
    ):
        list(ended)


def test_an_interrupt_ends_the_processes_at_once_and_keeps_what_is_recorded(
    settings: LawSettings,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    children: list[Child],
) -> None:
    monkeypatch.setattr(experiment, "prepare", lambda settings, **_: corpus)
    monkeypatch.setattr(experiment, "devices", lambda name: ("cpu", "cpu"))
    out, records, interrupted, ended = StringIO(), tmp_path / "some" / "records.jsonl", [], threading.Event()

    def interrupt() -> None:
        while not (records.exists() and records.read_bytes()):
            time.sleep(0.05)
        while not ended.is_set():  # Python loses an interrupt that comes while it finalizes an object
            interrupted.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
            ended.wait(6)

    threading.Thread(target=interrupt, daemon=True).start()
    console = Console(file=out, width=300)
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            experiment.session(settings, results=tmp_path, name="some", console=console) as at,
        ):
            parallel.train_ahead(at, [faulty("hang", settings, batches=8), sound(settings)])
    finally:
        ended.set()
    assert time.monotonic() - interrupted[-1] < 5
    assert (
        f"interrupted: 1 trainings are recorded in {tmp_path / 'some'}; the same command goes on"
        in out.getvalue()
    )
    assert not any(child.alive for child in children)
    assert [label for label, *_ in experiment_store.read(tmp_path, "some", kind="law").trainings] == ["sound"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cuda", ("cuda:0", "cuda:2")), ("cuda:0", ("cuda:0",)), ("cuda:1", ("cuda:1",)), ("cpu", ("cpu",))],
)
def test_cuda_is_every_gpu_of_the_first_ones_kind(
    name: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ["H100", "T400", "H100"]

    def opened(name: str) -> SimpleNamespace:
        index = int(name.partition(":")[2] or 0)
        return SimpleNamespace(label="cpu" if name == "cpu" else f"cuda:{index}", name=kinds[index])

    monkeypatch.setattr(gpus, "open_device", opened)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(kinds))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: kinds[index])
    assert gpus.devices(name) == expected


@pytest.mark.parametrize(
    ("device", "seen", "expected"),
    [
        ("cpu", "3,5", {}),
        ("cuda:1", None, {"CUDA_VISIBLE_DEVICES": "1"}),
        ("cuda:1", "3,5", {"CUDA_VISIBLE_DEVICES": "5"}),
        ("cuda:0", "GPU-8f3a, GPU-11bc", {"CUDA_VISIBLE_DEVICES": "GPU-8f3a"}),
    ],
)
def test_a_process_of_its_own_sees_one_gpu(
    device: str, seen: str | None, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert gpus.alone(device) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_trainings_that_share_a_gpu_find_what_one_alone_does(
    settings: LawSettings, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "prepare", lambda settings, **_: corpus)
    genes = {"attention": {"head_dim": 16, "group": 1}}
    settings = settings.model_copy(update={"genes": genes, "device": "cuda:0"})
    law.run(settings, results=tmp_path, name="alone", console=QUIET)
    shared = settings.model_copy(update={"per_device": 4})
    law.run(shared, results=tmp_path, name="shared", console=QUIET)
    expected = law.grid(tmp_path, "alone").loss
    assert law.grid(tmp_path, "shared").loss == pytest.approx(expected, abs=0.02)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_trainings_on_every_gpu_find_what_one_gpu_does(
    settings: LawSettings,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    children: list[Child],
) -> None:
    monkeypatch.setattr(experiment, "prepare", lambda settings, **_: corpus)
    settings = settings.model_copy(update={"genes": {"attention": {"head_dim": 16, "group": 1}}})
    grids = {}
    for device in ("cuda:0", "cuda"):
        law.run(
            settings.model_copy(update={"device": device}),
            results=tmp_path,
            name=device.replace(":", "-"),
            console=QUIET,
        )
        grids[device] = law.grid(tmp_path, device.replace(":", "-"))
    assert len(children) == min(torch.cuda.device_count(), 4)
    assert grids["cuda"].loss == pytest.approx(grids["cuda:0"].loss, abs=0.02)
    assert all(times["decode_ms@b1"] > 0 for times in grids["cuda"].decode_ms.values())
