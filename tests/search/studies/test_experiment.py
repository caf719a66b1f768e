"""Experiments: what is recorded survives a kill and is not made twice, and who may add to it."""

import dataclasses
import json
import multiprocessing
import weakref
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from operators import Architecture, HybridLM
from operators.base.errors import ConfigError, DivergedError, RunError
from proxy_train.settings import ProxyScore, ProxySettings
from proxy_train.text.corpus import Corpus
from search.config.run import RunConfig
from search.evaluation.profiling import Failure
from search.studies import experiment, experiment_store
from search.studies.experiment import Wanted
from search.studies.experiment_store import Latency, Training
from search.studies.law import law
from search.studies.law.law import LawSettings
from tests.helpers.proxy_scores import score

Trained = list[tuple[int, int, int, int]]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Every training that is asked for, as (layers, width, tokens, seed); none is made, nor is anything
    measured.
    """
    made: Trained = []

    def pretend(
        architecture: Architecture, corpus: Corpus, settings: ProxySettings, *, seed: int, device: str
    ) -> ProxyScore:
        made.append((architecture.depth, architecture.width, settings.tokens, seed))
        return score(2 + 1 / architecture.depth + 8 / architecture.width + seed / 100, settings, seed)

    monkeypatch.setattr(experiment, "train_once", pretend)
    monkeypatch.setattr(
        experiment, "profiled", lambda *_, **__: Failure(status="out_of_memory", reason="pretended")
    )
    return made


@pytest.fixture
def settings(tiny_config: RunConfig) -> LawSettings:
    return LawSettings(
        depths=(1, 2),
        widths=(16, 32),
        seeds=(0, 1),
        data=tiny_config.data,
        proxy=tiny_config.proxy,
        profile=tiny_config.profile,
    )


@pytest.fixture
def run(tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> Callable[[LawSettings], str]:
    """Runs a law named `some` in tmp_path -> what it printed."""
    monkeypatch.setattr(experiment, "prepare", lambda settings, **_: corpus)

    def go(settings: LawSettings) -> str:
        out = StringIO()
        law.run(settings, results=tmp_path, name="some", console=Console(file=out, width=200))
        return out.getvalue()

    return go


def test_a_killed_experiment_goes_on_and_trains_nothing_twice(
    settings: LawSettings,
    run: Callable[[LawSettings], str],
    trainings: Trained,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pretend = experiment.train_once

    def killed(*arguments: object, **named: object) -> ProxyScore:
        if len(trainings) == 3:
            raise KeyboardInterrupt
        return pretend(*arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train_once", killed)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    with (tmp_path / "some" / "records.jsonl").open("ab") as file:
        file.write(b'{"kind":"training","label":"depth 1 wid')  # what a kill leaves of a line
    assert len(law.grid(tmp_path, "some").loss) == 2  # it can be looked at meanwhile
    run(settings)
    run(settings)
    assert sorted(trainings) == sorted((2 * d, w, 1024, s) for d in (1, 2) for w in (16, 32) for s in (0, 1))
    found = law.grid(tmp_path, "some").loss
    assert found[2, 32, 1024] == pytest.approx(2 + 1 / 4 + 8 / 32 + 0.005)  # the mean of the seeds
    assert len(found) == 4


def test_a_grid_may_grow_and_what_is_there_stays(
    settings: LawSettings, run: Callable[[LawSettings], str], trainings: Trained, tmp_path: Path
) -> None:
    run(settings)
    before = len(trainings)
    run(settings.model_copy(update={"depths": (1, 2, 3), "tokens": (1024, 2048)}))
    assert len(set(trainings)) == len(trainings) == before + 2 * 2 * 1 + 3 * 2 * 2
    assert {key[2] for key in law.grid(tmp_path, "some").loss} == {1024, 2048}


def test_other_settings_are_refused_by_name(
    settings: LawSettings, run: Callable[[LawSettings], str], trainings: Trained
) -> None:
    run(settings)
    with pytest.raises(RunError, match=r"begun with another proxy: expected the same, or another --name"):
        run(settings.model_copy(update={"proxy": settings.proxy.model_copy(update={"learning_rate": 1.0})}))


def test_an_experiment_that_knew_fewer_keys_goes_on(
    settings: LawSettings, run: Callable[[LawSettings], str], trainings: Trained, tmp_path: Path
) -> None:
    run(settings)
    before, file = len(trainings), tmp_path / "some" / experiment_store.SETTINGS
    written = json.loads(file.read_text())
    del written["fixed"]["genes"], written["fixed"]["proxy"]["weight_decay"]
    del written["fixed"]["profile"]["quantization"]
    file.write_text(json.dumps(written))
    run(settings)
    assert len(trainings) == before
    file.write_text(json.dumps(written))
    with pytest.raises(RunError, match="begun with another proxy"):
        run(settings.model_copy(update={"proxy": settings.proxy.model_copy(update={"weight_decay": 0.2})}))


def test_it_is_the_text_that_counts_and_not_where_it_lies(
    settings: LawSettings,
    run: Callable[[LawSettings], str],
    trainings: Trained,
    corpus: Corpus,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    run(settings)
    before = len(trainings)
    moved = settings.model_copy(
        update={"data": settings.data.model_copy(update={"source": str(tmp_path / "elsewhere.txt")})}
    )
    run(moved)
    assert len(trainings) == before
    monkeypatch.setattr(
        experiment, "prepare", lambda settings, **_: dataclasses.replace(corpus, digest="0" * 64)
    )
    with pytest.raises(RunError, match="begun with another text"):
        run(settings)


def test_memory_of_a_training_that_diverges_is_given_back(
    settings: LawSettings, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[weakref.ref[HybridLM]] = []
    alive: list[list[bool]] = []

    def diverging(architecture: Architecture, *arguments: object, **named: object) -> ProxyScore:
        model = HybridLM(architecture)
        models.append(weakref.ref(model))
        raise DivergedError("the loss is nan")

    monkeypatch.setattr(experiment, "train", diverging)
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: alive.append([model() is not None for model in models])
    )
    architecture = Architecture.from_shorthand(
        "a f", width=16, vocabulary=corpus.vocabulary, genes={"attention": {"head_dim": 8}}
    )
    made = experiment.outcome(Wanted("one", architecture, settings.proxy, 0), corpus, device="cpu")
    assert made.status == "diverged"
    assert alive == [[False]]


def test_a_training_that_diverges_is_recorded_with_its_reason_and_left_out(
    settings: LawSettings,
    run: Callable[[LawSettings], str],
    trainings: Trained,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pretend = experiment.train_once

    def sometimes(architecture: Architecture, *arguments: object, **named: object) -> ProxyScore:
        found = pretend(architecture, *arguments, **named)  # type: ignore[arg-type]
        if architecture.width == 32:
            raise DivergedError("loss nan after 3 steps")
        return found

    monkeypatch.setattr(experiment, "train_once", sometimes)
    assert "diverged: loss nan after 3 steps" in run(settings)
    assert {width for _, width, _ in law.grid(tmp_path, "some").loss} == {16}
    made = len(trainings)
    run(settings)
    assert len(trainings) == made


def _hold(results: Path, ready: object, done: object) -> None:
    with experiment_store.opened(results, "some", settings={}, fixed={"kind": "law"}):
        ready.set()  # type: ignore[attr-defined]
        done.wait(60)  # type: ignore[attr-defined]


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready, done = spawn.Event(), spawn.Event()
    holder = spawn.Process(target=_hold, args=(tmp_path, ready, done))
    holder.start()
    try:
        assert ready.wait(60)
        with (
            pytest.raises(RunError, match=f"being driven by process {holder.pid}"),
            experiment_store.opened(tmp_path, "some", settings={}, fixed={"kind": "law"}),
        ):
            pass
    finally:
        done.set()
        holder.join(60)


def test_records_come_back_as_they_were_written_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    training = Training(
        label="x", tokens=5, seed=0, status="ok", loss=1.25, tokens_per_s=3.0, seconds=2.0, params=7, flops=9
    )
    latency = Latency(label="x", decode_ms={"decode_ms@b1": 0.5}, tainted=("hot",))
    with experiment_store.opened(tmp_path, "some", settings={"a": 1}, fixed={"kind": "law"}) as store:
        store.add(training)
        store.add(latency)
    found = experiment_store.read(tmp_path, "some", kind="law")
    assert (found.trainings, found.latencies, found.settings) == (
        {("x", 5, 0): training},
        {"x": latency},
        {"a": 1},
    )
    with pytest.raises(RunError, match="expected the results of a ranks, got those of a law"):
        experiment_store.read(tmp_path, "some", kind="ranks")
    file = tmp_path / "some" / "records.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"kind":"latency"', b'"kind":"letancy"'))
    with pytest.raises(RunError, match="line 2 is damaged"):
        experiment_store.read(tmp_path, "some", kind="law")


def test_the_folder_of_a_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "ledger.db").touch()
    with (
        pytest.raises(RunError, match="is the folder of a run"),
        experiment_store.opened(tmp_path, "some", settings={}, fixed={}),
    ):
        pass


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"depths": []}, "depths"),
        ({"widths": []}, "widths"),
        ({"block": "a z"}, "z"),
        ({"block": ""}, "expected at least one operator"),
        ({"genes": {"mamba2": {"state": 16}}}, "expected operators of the block 'a f', got mamba2"),
        ({"tokens": [3]}, "at least one batch"),
        ({"depht": 3}, "unknown key depht"),
    ],
)
def test_a_grid_that_cannot_be_trained_is_refused_in_one_line(
    changed: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as found:
        experiment.parsed(LawSettings, {"depths": [1], "widths": [16], **changed}, where="law.yaml")
    assert str(found.value).startswith("law.yaml: ")
    assert "\n" not in str(found.value)
