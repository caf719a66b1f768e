import sys
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from operators import Architecture
from search.cli import app as cli
from search.evaluation.outcome import Evaluation, Outcome
from search.runs import ledger as ledger_module
from search.runs.entry import Attempt, Entry
from search.runs.folder import RunFolder
from search.runs.frontier import hypervolume_course, hypervolume_gain, scored
from search.runs.loop import drive
from search.runs.worker_time import worker_seconds
from search.view.watch import sparkline, watch
from tests.helpers.pretended_evaluations import PretendExecutor, pretended

START = datetime(2026, 1, 1, tzinfo=UTC)
ARCHITECTURE = Architecture.from_shorthand("a f", width=64, vocabulary=300)


def evaluated(number, begun, ended, **seconds):
    """An entry that was under way between two moments, in seconds; the last of `begun` is the attempt that
    ended.
    """
    attempts = tuple(Attempt(at=START + timedelta(seconds=at), place="") for at in begun)
    evaluation = None if ended is None else Evaluation(status="ok", seed=0, seconds=seconds)
    moment = None if ended is None else START + timedelta(seconds=ended)
    return Entry(
        number, ARCHITECTURE, (), "random", evaluation, None if ended is None else number, attempts, moment
    )


def test_every_second_of_every_worker_has_a_purpose():
    entries = [
        evaluated(0, [0], 10, train=6.0, profile=3.0),
        evaluated(1, [0, 4], 8, train=4.0),  # its first attempt was lost
        evaluated(2, [100], 105, train=5.0),  # after a rest of the run
        evaluated(3, [106], None),
    ]
    found = worker_seconds(entries, workers=2, now=START + timedelta(seconds=110))
    assert found == pytest.approx(
        {"train": 15.0, "profile": 3.0, "other": 1.0 + 4.0, "idle": (2 * 10 - 14) + 5 + 4}
    )
    assert sum(found.values()) == pytest.approx(2 * (10 + 5 + 4))
    resting = worker_seconds(entries, workers=2, now=None)
    assert resting["idle"] == pytest.approx(6 + 5)


def test_workers_that_never_were_are_not_idle():
    entries = [
        evaluated(0, [0], 10, train=9.0),
        evaluated(1, [10], 20, train=9.0),
    ]  # one worker, of four that were asked for
    assert worker_seconds(entries, workers=4, now=None) == pytest.approx(
        {"train": 18.0, "other": 2.0, "idle": 0.0}
    )


def test_what_a_candidate_waits_for_workers_is_no_workers_time():
    entries = [
        evaluated(0, [0], 10, train=6.0, profile=1.0, queue=3.0),
        evaluated(1, [0], 10, train=6.0, profile=1.0, queue=2.0),
    ]
    found = worker_seconds(entries, workers=2, now=None)
    assert found == pytest.approx({"train": 12.0, "profile": 2.0, "other": 1.0, "idle": 2 * 10 - 15})


def test_the_lowest_value_has_the_lowest_bar_and_the_highest_the_highest():
    assert sparkline([0.0, 7.0, 3.0]) == "▁█▄"
    assert sparkline([2.0, 2.0]) == "▁▁"


@pytest.mark.usefixtures("ledgers_in_memory")
def test_the_hypervolume_grows_to_what_the_gain_says(tmp_path, prepared):
    entries = searched(tmp_path, prepared, 30).entries()
    objectives = prepared.config.parsed_objectives()
    course = hypervolume_course(entries, objectives, steps=10)
    assert len(course) == 10
    assert course == sorted(course)
    assert course[-1] == hypervolume_gain(entries, objectives, first=4).final


def searched(path, prepared, count, **executor):
    config = prepared.config.model_copy(update={"candidates": count})
    folder = RunFolder(path)
    ledger = ledger_module.create(folder.ledger, config, started="now")
    drive(
        type(prepared)(config, prepared.corpus, prepared.space), folder, ledger, PretendExecutor(**executor)
    )
    return ledger


def shown(path, **options):
    console = Console(width=200, record=True, **options)
    watch(path.parent, path.name, console, once=True)
    return console.export_text()


@pytest.mark.usefixtures("ledgers_in_memory")
def test_a_picture_tells_of_the_frontier_the_failures_and_the_state(tmp_path, prepared):
    def answer(job):
        return (
            Outcome(Evaluation(status="diverged", reason="nan", seed=0))
            if job.number == 3
            else pretended(job)
        )

    path = tmp_path / "first"
    path.mkdir()
    entries = searched(path, prepared, 12, answer=answer).entries()
    text = shown(path)
    assert "first: 12 of 12 candidates evaluated, complete" in text
    assert "ended: ok 11, diverged 1" in text
    best = scored(entries, prepared.config.parsed_objectives()).frontier()
    assert f"frontier: {len(best)} candidates" in text
    assert all(f"{entry.evaluation.metrics['loss']:.4g}" in text for entry in best)


def test_a_picture_of_a_driven_run_tells_who_does_what(tmp_path, prepared):
    path = tmp_path / "first"
    path.mkdir()
    texts = []

    def answer(job):
        if job.number == 4:
            texts.append(shown(path))
        return pretended(job)

    with RunFolder(path).driving():
        ledger = searched(path, prepared, 6, answer=answer, capacity=2)
    lines = [line.split() for line in texts[0].splitlines()]
    assert [line[:2] for line in lines if line[:1] == ["here"]] == [["here", "4"], ["here", "5"]]
    assert "first: 4 of 6 candidates evaluated, driven by process" in texts[0]
    assert "here" not in shown(path)
    assert len(ledger.entries()) == 6


def test_the_command_shows_a_picture_and_refuses_an_unknown_run(tmp_path, prepared, monkeypatch, capsys):
    path = tmp_path / "first"
    path.mkdir()
    searched(path, prepared, 6)
    monkeypatch.setattr(sys, "argv", ["frontrunner", "watch", "first", "--once", "--results", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert "6 of 6 candidates evaluated, complete" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["frontrunner", "watch", "other", "--results", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: unknown run 'other': expected one of")
