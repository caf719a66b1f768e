"""A run as its caller sees it: news while it goes on, and what it found as a value."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from operators.base.errors import ConfigError, RunError
from proxy_train.text.source_record import SourceRecord
from search.cluster.executor import Executor
from search.config.run import RunConfig
from search.config.searcher import SearcherSettings
from search.evaluation.outcome import Evaluation, Job, Outcome
from search.runs import run
from search.runs.folder import RunFolder
from search.runs.ledger_rows import study_attributes
from search.runs.progress import Checking, Event, Interrupted, Progress
from search.runs.status import opened, standing
from tests.helpers.pretended_evaluations import PretendExecutor, pretended


@pytest.fixture
def folder(
    tmp_path: Path, tiny_config: RunConfig, corpus: object, monkeypatch: pytest.MonkeyPatch
) -> RunFolder:
    """A run of 6 candidates that has just begun."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = tiny_config.model_copy(update={"searcher": SearcherSettings(name="random")})
    return run.start(config, results=tmp_path / "results", name="r")


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Job], Outcome]) -> None:
    """Evaluations are answered at once."""

    def executor(*_: object) -> Executor:
        return PretendExecutor(answer=answer)

    monkeypatch.setattr(run, "_executor", executor)


def drive(folder: RunFolder, **options: Callable[[Progress], None]) -> run.Ended:
    return run.drive_to_end(folder, executor="inline", address=None, **options)


def test_a_start_says_what_it_reads_before_it_makes_a_folder(
    tmp_path: Path, tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    events: list[Event] = []

    def hear(event: Event) -> None:
        assert not (tmp_path / "r").exists()
        events.append(event)

    run.start(tiny_config, results=tmp_path, name="r", on_event=hear)
    assert [type(event) for event in events] == [Checking, SourceRecord]
    assert (tmp_path / "r" / "ledger.db").is_file()


def test_a_run_returns_what_it_found(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, pretended)
    news: list[Progress] = []
    ended = drive(folder, on_progress=news.append)
    assert [entry.number for entry in ended.entries] == list(range(6))
    assert (ended.exhausted, ended.time_up, ended.best_has_weights) == (False, False, False)
    scores = {
        entry.number: (entry.evaluation.metrics["loss"], entry.evaluation.metrics["decode_ms@b1"])
        for entry in ended.entries
        if entry.evaluation
    }
    undominated = [
        number
        for number, (loss, ms) in scores.items()
        if not any(other != (loss, ms) and other[0] <= loss and other[1] <= ms for other in scores.values())
    ]
    assert [entry.number for entry in ended.frontier] == sorted(undominated, key=lambda each: scores[each])
    done = [standing.done for standing in news]
    assert (done[0], done[-1], done) == (0, 6, sorted(done))
    assert [entry.number for entry in news[-1].frontier] == [entry.number for entry in ended.frontier]

    news.clear()
    assert drive(folder, on_progress=news.append).entries == ended.entries
    assert news == []  # nothing was left to do


def test_an_interrupted_run_says_how_far_it_is_and_goes_on(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def until_4(job: Job) -> Outcome:
        if job.number == 4:
            raise KeyboardInterrupt
        return pretended(job)

    answering(monkeypatch, until_4)
    with pytest.raises(Interrupted) as stopped:
        drive(folder)
    assert (stopped.value.done, stopped.value.candidates) == (4, 6)
    assert stopped.value.resume == folder.command("resume")
    assert folder.driver() is None
    answering(monkeypatch, pretended)
    assert all(entry.evaluation for entry in drive(folder).entries)


def test_a_run_without_any_score_is_an_error_that_says_why(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, lambda job: Outcome(Evaluation(status="crashed", reason="signal 11", seed=0)))
    with pytest.raises(RunError, match=r"^run r: none of 6 candidates has scores: signal 11$"):
        drive(folder)


def test_a_space_that_has_no_members_any_more_is_refused_before_anything_is_evaluated(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader takes the ledger's space as it is; a driver looks at it again."""
    config = json.loads(study_attributes(folder.ledger)["config"])
    config["space"]["operators"] = ["swiglu"]
    config["space"]["genes"] = {}
    with sqlite3.connect(folder.ledger) as connection:
        connection.execute(
            "UPDATE study_user_attributes SET value_json = ? WHERE key = 'config'", [json.dumps(config)]
        )
    assert standing(*opened(folder.path.parent, "r"))["evaluated"] == 0
    answering(monkeypatch, lambda job: pytest.fail("nothing is evaluated"))
    with pytest.raises(ConfigError, match="the ledger's configuration: space: operators: expected at least"):
        drive(folder)
