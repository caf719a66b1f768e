"""Any sequence of proposing, recording, dying and opening again, against a dictionary."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import event

from operators import Architecture
from operators.base.errors import RunError
from search.config import run as config_module
from search.evaluation.outcome import Evaluation
from search.runs import ledger as ledger_module
from search.runs.entry import finished
from search.searchers.contract import Proposal

CONFIG = config_module.parse(
    {"candidates": 100, "space": {"operators": ["attention", "swiglu"]}}, where="states"
)
EVALUATIONS = st.builds(
    lambda status, loss: Evaluation(
        status=status,
        reason="" if status == "ok" else "why",
        metrics={"loss": loss, "decode_ms@b1": 1.0},
        seed=0,
    ),
    st.sampled_from(["ok", "infeasible", "diverged", "crashed", "error"]),
    st.floats(0, 10),
)


class Killed(BaseException):
    """Where the process would have ended."""


class Ledgers(RuleBasedStateMachine):
    @initialize()
    def create(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.db"
        self.ledger = ledger_module.create(self.path, CONFIG, started="now")
        self.candidates, self.evaluations, self.attempts = [], {}, []
        self.second, self.second_attempts = {}, {}
        self.written = False  # since it was opened: to open it again without is a step of nothing

    def teardown(self):
        if hasattr(self, "folder"):
            self.ledger.close()
            self.folder.cleanup()

    def unfinished(self, data):
        return data.draw(
            st.sampled_from(
                [number for number in range(len(self.candidates)) if number not in self.evaluations]
            )
        )

    @precondition(lambda self: self.written)
    @rule()
    def reopen(self):
        self.ledger.close()
        self.ledger = ledger_module.open_ledger(self.path)
        self.written = False

    def write(self, call, *arguments, survives):
        """Dies after so many writes, if it makes as many; -> whether it lived. A commit is a write."""
        engine, left, self.written = self.ledger._writer._storage.engine, survives, True

        def guard():
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1

        def before_statement(connection, cursor, statement, *rest):
            if not statement.lstrip().startswith("SELECT"):
                guard()

        listeners = {"before_cursor_execute": before_statement, "commit": lambda connection: guard()}
        for name, listener in listeners.items():
            event.listen(engine, name, listener)
        try:
            call(*arguments)
        except Killed:
            self.reopen()
            return False
        finally:
            for name, listener in listeners.items():
                event.remove(engine, name, listener)
        return True

    @rule(width=st.integers(1, 1000), survives=st.sampled_from([0, 1, 2, 3, 99, 99, 99, 99]))
    def propose(self, width, survives):
        number = len(self.candidates)
        architecture = Architecture.from_shorthand("a f", width=64 * width, vocabulary=300)
        parents = tuple(range(min(number, 2)))
        proposal = Proposal(number=number, candidate=architecture, parents=parents, origin="random")
        if self.write(self.ledger.propose, proposal, {"width": 128.0, "depth": 4.0}, survives=survives):
            self.candidates.append((architecture, parents))
            self.attempts.append(0)

    @precondition(lambda self: len(self.evaluations) < len(self.candidates))
    @rule(data=st.data(), survives=st.sampled_from([0, 1, 99, 99]))
    def begin(self, data, survives):
        number = self.unfinished(data)
        self.attempts[number] += self.write(self.ledger.begin, number, "here", survives=survives)

    @precondition(lambda self: len(self.evaluations) < len(self.candidates))
    @rule(data=st.data(), evaluation=EVALUATIONS, survives=st.sampled_from([0, 1, 2, 3, 4, 99, 99, 99, 99]))
    def record(self, data, evaluation, survives):
        number = self.unfinished(data)
        if self.write(self.ledger.record, number, evaluation, survives=survives):
            self.evaluations[number] = evaluation

    @precondition(lambda self: self.evaluations)
    @rule(data=st.data(), evaluation=EVALUATIONS)
    def record_twice(self, data, evaluation):
        number = data.draw(st.sampled_from(sorted(self.evaluations)))
        with pytest.raises(RunError, match=f"candidate {number} of the ledger has its evaluation already"):
            self.ledger.record(number, evaluation)

    def once(self, data):
        return data.draw(st.sampled_from(sorted(set(self.evaluations) - set(self.second))))

    @precondition(lambda self: set(self.evaluations) - set(self.second))
    @rule(data=st.data(), survives=st.sampled_from([0, 99, 99]))
    def begin_again(self, data, survives):
        number = self.once(data)
        if self.write(self.ledger.begin_again, number, "here", survives=survives):
            self.second_attempts[number] = self.second_attempts.get(number, 0) + 1

    @precondition(lambda self: set(self.evaluations) - set(self.second))
    @rule(data=st.data(), evaluation=EVALUATIONS, survives=st.sampled_from([0, 1, 99, 99]))
    def record_again(self, data, evaluation, survives):
        number = self.once(data)
        if self.write(self.ledger.record_again, number, evaluation, survives=survives):
            self.second[number] = evaluation
            self.second_attempts.setdefault(number, 0)

    @invariant()
    def it_holds_what_was_acknowledged(self):
        if not hasattr(self, "ledger"):
            return
        entries = self.ledger.entries()
        assert [(entry.architecture, entry.parents) for entry in entries] == self.candidates
        assert {
            entry.number: entry.first or entry.evaluation for entry in entries if entry.evaluation
        } == self.evaluations
        assert {
            entry.number: entry.again.evaluation
            for entry in entries
            if entry.again and entry.again.evaluation
        } == self.second
        assert {
            entry.number: len(entry.again.attempts) for entry in entries if entry.again
        } == self.second_attempts
        for number, second in self.second.items():
            losses = [found.metrics["loss"] for found in (self.evaluations[number], second)]
            both = self.evaluations[number].status == second.status == "ok"
            assert entries[number].evaluation.metrics["loss"] == (
                pytest.approx(sum(losses) / 2) if both else losses[0]
            )
        assert [entry.number for entry in finished(entries)] == list(self.evaluations)
        orders = [entry.order for entry in finished(entries)] + [
            entry.again.order for entry in entries if entry.again and entry.again.evaluation
        ]
        assert sorted(orders) == list(range(len(self.evaluations) + len(self.second)))
        assert [len(entry.attempts) for entry in entries] == self.attempts
        assert {entry.number for entry in entries if entry.ended} == set(self.evaluations)


TestLedgers = Ledgers.TestCase
TestLedgers.settings = settings(
    max_examples=7, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
