import sqlite3
import time
from datetime import UTC, datetime

import optuna
import pytest
from optuna.trial import TrialState

from operators.base.errors import RunError
from search.config import run as config_module
from search.evaluation.outcome import Evaluation, Outcome
from search.runs import ledger as ledger_module
from search.runs import ledger_rows
from search.runs.entry import finished
from search.runs.folder import RunFolder
from search.runs.loop import drive
from search.searchers.contract import Proposal
from tests.helpers.pretended_evaluations import PretendExecutor, pretended


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


@pytest.fixture
def ledger(folder, tiny_config):
    return ledger_module.create(folder.ledger, tiny_config, started="now")


def mixed(job):
    """One candidate diverges and one breaks a constraint; the others have scores."""
    if job.number == 1:
        return Outcome(Evaluation(status="diverged", reason="the loss is nan", seed=0))
    if job.number == 2:
        return Outcome(
            Evaluation(status="infeasible", reason="too slow", metrics={"decode_ms@b1": 9.0}, seed=0)
        )
    return pretended(job)


def test_what_was_recorded_is_read_back_by_another_opening(folder, ledger, prepared, tiny_config):
    drive(prepared, folder, ledger, PretendExecutor(answer=mixed))
    entries = ledger.entries()
    again = ledger_module.open_ledger(folder.ledger)
    assert again.entries() == entries
    assert again.config == tiny_config
    assert [entry.evaluation.status for entry in entries] == [
        "ok",
        "diverged",
        "infeasible",
        "ok",
        "ok",
        "ok",
    ]
    assert [entry.order for entry in finished(entries)] == list(range(6))
    assert all(entry.architecture.digest() for entry in entries)


def test_optuna_reads_it_as_a_study_of_its_own(folder, ledger, prepared):
    drive(prepared, folder, ledger, PretendExecutor(answer=mixed))
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder.ledger}")
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, *[TrialState.COMPLETE] * 3]
    assert study.metric_names == ["loss", "decode_ms@b1"]
    first = study.trials[0]
    assert first.values == [first.user_attrs["metrics"]["loss"], first.user_attrs["metrics"]["decode_ms@b1"]]
    assert first.params["width"] in (16, 32)
    assert first.params["attention.count"] >= 1
    assert study.trials[1].user_attrs["outcome"] == "diverged: the loss is nan"
    assert {trial.number for trial in study.best_trials} <= {0, 3, 4, 5}


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_times_are_true_in_every_time_zone(folder, ledger, prepared, monkeypatch, zone):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        before = datetime.now(UTC)
        drive(prepared, folder, ledger, PretendExecutor())
        after = datetime.now(UTC)
        entries = ledger_module.open_ledger(folder.ledger).entries()
    time.tzset()
    assert all(before <= entry.attempts[0].at <= entry.ended <= after for entry in entries)


def test_another_process_that_ended_a_candidate_is_noticed(folder, ledger, prepared):
    ledger.propose(Proposal(0, prepared.space.seeds()[0], (), "seed"), {})
    other, evaluation = ledger_module.open_ledger(folder.ledger), Evaluation(status="error", seed=0)
    other.record(0, evaluation)
    with pytest.raises(RunError, match="candidate 0 of the ledger has its evaluation already: is another"):
        ledger.record(0, evaluation.model_copy(update={"seed": 1}))
    (entry,) = ledger.entries()
    assert entry.evaluation == evaluation


def test_one_candidate_is_read_as_among_all(folder, ledger, prepared):
    drive(prepared, folder, ledger, PretendExecutor(answer=mixed))
    ledger.begin_again(3, "here")
    ledger.record_again(3, Evaluation(status="ok", metrics={"loss": 1.0, "decode_ms@b1": 1.0}, seed=1))
    reader = ledger_module.open_ledger(folder.ledger)
    entries = ledger.entries()
    assert entries[3].again is not None
    assert tuple(reader.entry(number) for number in range(len(entries))) == entries
    assert reader.entry(len(entries)) is None


def tear(folder, attribute):
    """Cuts off an attribute of candidate 2."""
    with sqlite3.connect(folder.ledger) as connection:
        connection.execute(
            "UPDATE trial_user_attributes SET value_json = substr(value_json, 1, 40) "
            "WHERE key = ? AND trial_id = 3",
            (attribute,),
        )


def test_a_candidate_whose_json_is_torn_is_named(folder, ledger, prepared):
    drive(prepared, folder, ledger, PretendExecutor())
    tear(folder, "evaluation")
    with pytest.raises(RunError, match=r"candidate 2 of the ledger is damaged: .*EOF"):
        ledger_module.open_ledger(folder.ledger).entries()


def test_a_model_that_is_torn_is_named_where_it_is_looked_at(folder, ledger, prepared):
    drive(prepared, folder, ledger, PretendExecutor())
    tear(folder, "architecture")
    *others, last = sorted(
        ledger_module.open_ledger(folder.ledger).entries(), key=lambda entry: entry.number == 2
    )
    assert [entry.architecture for entry in others] == [
        entry.architecture for entry in ledger.entries() if entry.number != 2
    ]
    for look in (lambda: last.architecture, lambda: last.size):
        with pytest.raises(RunError, match=r"candidate 2 of the ledger is damaged: .*EOF"):
            look()


def test_a_configuration_is_read_as_it_was_validated(folder, ledger, tiny_config):
    assert ledger.config == tiny_config == config_module.parse(tiny_config.model_dump(), where="again")


def test_optunas_tables_of_another_version_are_read_and_not_written(folder, ledger, prepared):
    ledger.propose(Proposal(0, prepared.space.seeds()[0], (), "seed"), {})
    with sqlite3.connect(folder.ledger) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.0.0.z'")
    other = ledger_module.open_ledger(folder.ledger)
    assert other.entries() == ledger.entries()
    with pytest.raises(RunError, match=r"ledger.db: not a ledger of frontrunner: "):
        other.begin(0, "here")


def test_a_candidate_without_a_final_state_is_unfinished(folder, ledger, prepared):
    executor = PretendExecutor(answer=lambda job: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        drive(prepared, folder, ledger, executor)
    (entry,) = ledger_module.open_ledger(folder.ledger).entries()
    assert entry.evaluation is None
    assert entry.order is None


def test_two_writers_are_noticed(folder, ledger, prepared, tiny_config):
    other = ledger_module.open_ledger(folder.ledger)
    drive(prepared, folder, other, PretendExecutor())
    with pytest.raises(RunError, match="another process"):
        ledger.propose(other.entries()[0].proposal, {})


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100])
def test_a_file_that_is_no_ledger_is_refused(tmp_path, content):
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    with pytest.raises(RunError, match="not a ledger"):
        ledger_module.open_ledger(path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("DELETE FROM study_user_attributes WHERE key = 'config'", "cannot be read: it lacks 'config'"),
        (
            "ALTER TABLE trial_user_attributes RENAME COLUMN value_json TO other",
            "cannot be read: no such column: trial_user_attributes.value_json",
        ),
    ],
)
def test_a_ledger_that_is_damaged_further_in_is_refused_in_one_line(folder, ledger, prepared, damage, says):
    drive(prepared, folder, ledger, PretendExecutor())
    with sqlite3.connect(folder.ledger) as connection:
        connection.execute(damage)
    with pytest.raises(RunError) as caught:
        ledger_module.open_ledger(folder.ledger)
    assert str(caught.value) == f"{folder.ledger}: {says}"


def test_another_layout_is_refused(folder, ledger):
    with sqlite3.connect(folder.ledger) as connection:
        connection.execute("UPDATE study_user_attributes SET value_json = '99' WHERE key = 'layout'")
    with pytest.raises(
        RunError, match=rf"another version of frontrunner \(layout 99, expected {ledger_module.LAYOUT}\)"
    ):
        ledger_module.open_ledger(folder.ledger)


def test_a_missing_ledger_is_said(tmp_path):
    with pytest.raises(RunError, match="no ledger there"):
        ledger_module.open_ledger(tmp_path / "ledger.db")


def test_a_ledger_that_another_program_keeps_locked_is_said(folder, ledger, prepared, monkeypatch):
    monkeypatch.setattr(ledger_rows, "LOCK_TIMEOUT_S", 0.1)
    impatient = ledger_module.open_ledger(folder.ledger)
    with sqlite3.connect(folder.ledger, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RunError, match=r"the ledger cannot be read \(database is locked\)"):
            impatient.entries()
        with pytest.raises(RunError, match="cannot be read"):
            assert impatient.time_up
        with pytest.raises(RunError, match=r"the ledger cannot be written \(database is locked\)"):
            impatient.exhaust()
        with pytest.raises(RunError, match=r"ledger.db: does not answer: database is locked"):
            ledger_module.open_ledger(folder.ledger)
        other.execute("ROLLBACK")
    impatient.close()
    impatient = ledger_module.open_ledger(folder.ledger)
    drive(prepared, folder, impatient, PretendExecutor())
    assert len(finished(impatient.entries())) == 6


def test_a_reader_sees_a_second_evaluation_only_with_the_first(folder, ledger, prepared, monkeypatch):
    first = prepared.space.seeds()[0]
    ledger.propose(Proposal(0, first, (), "seed"), {})
    ledger.begin(0, "here")
    reader = ledger_module.open_ledger(folder.ledger)
    real = ledger_module.rows

    def raced(*arguments, **options):
        found = real(*arguments, **options)
        ledger.record(0, Evaluation(status="ok", metrics={"loss": 1.0, "decode_ms@b1": 1.0}, seed=0))
        ledger.begin_again(0, "here")
        return found

    monkeypatch.setattr(ledger_module, "rows", raced)
    (entry,) = reader.entries()
    assert entry.again is None
    monkeypatch.undo()
    (entry,) = reader.entries()
    assert entry.again is not None
