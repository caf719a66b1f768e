"""Evaluating once more whom the noise of training leaves in doubt."""

import dataclasses
import io
import random
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from operators.base.errors import RunError
from operators.published.engines import fits
from search import pareto
from search.evaluation.outcome import Evaluation, Outcome, mean
from search.runs import ledger as ledger_module
from search.runs.entry import Again, Entry
from search.runs.folder import RunFolder
from search.runs.frontier import scored
from search.runs.loop import drive
from search.runs.repeats import next_repeat
from search.runs.status import opened, standing
from search.runs.worker_time import worker_seconds
from search.spaces.free import ArchitectureSpace
from search.view.candidate import print_candidate
from search.view.tables import frame
from tests.helpers.pretended_evaluations import PretendExecutor, pretended
from tests.helpers.pretended_search import searched, with_repeats

pytestmark = pytest.mark.usefixtures("ledgers_in_memory")


def noisy(job, deviation=0.05):
    """The true scores with noise that depends on the architecture and the seed."""
    found = pretended(job).evaluation
    draw = np.random.default_rng([int(job.architecture.digest()[:12], 16), job.seed]).normal()
    return Outcome(
        found.model_copy(
            update={"metrics": {**found.metrics, "loss": found.metrics["loss"] + deviation * float(draw)}}
        )
    )


def afresh(prepared, space):
    """With a space that remembers nothing, as in another process."""
    return dataclasses.replace(prepared, space=ArchitectureSpace(space, prepared.corpus.vocabulary))


def twice(entries):
    return [entry for entry in entries if entry.again is not None]


def test_scores_that_repeat_are_made_twice_only_to_learn_that(tmp_path, prepared):
    executor = PretendExecutor()
    entries = searched(tmp_path / "run", with_repeats(prepared, 0.5, candidates=40), executor)
    assert len(twice(entries)) == 3
    assert len(executor.answered) == 43
    assert {entry.evaluation.standard_errors["loss"] for entry in twice(entries)} == {0.0}


def test_repeats_keep_to_their_share_and_each_candidate_to_one(tmp_path, prepared):
    jobs = []
    answer = lambda job: jobs.append((job.number, job.seed)) or noisy(job)  # noqa: E731
    entries = searched(
        tmp_path / "run",
        with_repeats(prepared, 0.2, candidates=40),
        PretendExecutor(capacity=3, answer=answer),
    )
    assert 4 <= len(twice(entries)) <= 8
    assert sorted(jobs) == sorted(
        [(entry.number, 0) for entry in entries] + [(entry.number, 1) for entry in twice(entries)]
    )
    assert searched(
        tmp_path / "none", with_repeats(prepared, 0, candidates=12), PretendExecutor(answer=noisy)
    )
    for entry in twice(entries):
        values = [entry.first.metrics["loss"], entry.again.evaluation.metrics["loss"]]
        assert entry.evaluation.metrics["loss"] == pytest.approx(np.mean(values))
        assert entry.evaluation.standard_errors["loss"] == pytest.approx(np.std(values, ddof=1) / np.sqrt(2))


def test_noise_and_errors_are_those_of_the_draws(tmp_path, prepared):
    entries = searched(
        tmp_path / "run", with_repeats(prepared, 1.0, candidates=120), PretendExecutor(answer=noisy)
    )
    objectives = prepared.config.parsed_objectives()
    candidates = scored(entries, objectives)
    noise = candidates.noise
    assert len(twice(entries)) > 10
    assert noise[1] == 0
    assert 0.03 < noise[0] < 0.09  # of 0.05; those that are chosen for luck come out a little above
    off = candidates.errors[:, 0]
    again = np.array([entry.again is not None for entry in candidates.entries])
    assert off[again] == pytest.approx(noise[0] / np.sqrt(2))
    assert off[~again] == pytest.approx(noise[0])


def test_a_doubt_is_a_dominance_within_the_error() -> None:
    # 1 beats 0 clearly; 2 is beaten by 1 within the error; 3 by none; 4 by 1 within the error, by 3 clearly.
    points = [[3.0, 2.0], [2.0, 1.0], [2.1, 1.5], [1.0, 4.0], [2.2, 5.0]]
    errors = [[0.1, 0.0]] * 5
    assert pareto.doubts(points, errors).tolist() == [0, 1, 1, 0, 0]
    assert pareto.doubts(points, np.zeros((5, 2))).tolist() == [0] * 5


def test_who_is_in_most_doubts_is_next_and_nobody_where_all_is_clear(tmp_path, prepared):
    objectives = prepared.config.parsed_objectives()

    def entry(number, loss, ms, again=None):
        first = Evaluation(status="ok", metrics={"loss": loss, "decode_ms@b1": ms}, seed=0)
        made = ledger_module.Entry(number, prepared.space.seeds()[0], (), "seed", first, number)
        second = first.model_copy(update={"metrics": {"loss": again or 0.0, "decode_ms@b1": ms}, "seed": 1})
        return made if again is None else made.with_again(ledger_module.Again(attempts=(), evaluation=second))

    pairs = [entry(0, 9.0, 9.0, 9.1), entry(1, 9.0, 9.5, 8.9), entry(2, 9.0, 9.6, 9.1)]  # noise of 0.07
    assert (
        next_repeat(
            [*pairs, entry(3, 2.0, 1.0), entry(4, 2.05, 1.5), entry(5, 2.02, 2.0)], objectives, share=1.0
        )
        == 3
    )
    assert (
        next_repeat(
            [*pairs, entry(3, 2.0, 1.0, 2.0), entry(4, 2.05, 1.5), entry(5, 2.5, 2.0)], objectives, share=1.0
        )
        == 4
    )
    assert (
        next_repeat(
            [*pairs, entry(3, 2.0, 1.0), entry(4, 2.5, 1.5), entry(5, 1.5, 2.0)], objectives, share=1.0
        )
        is None
    )


def test_a_second_evaluation_without_scores_changes_nothing(tmp_path, prepared):
    def answer(job):
        return (
            noisy(job)
            if job.seed == 0
            else Outcome(Evaluation(status="diverged", reason="the loss is nan", seed=job.seed))
        )

    entries = searched(
        tmp_path / "run", with_repeats(prepared, 0.3, candidates=20), PretendExecutor(answer=answer)
    )
    assert twice(entries)
    assert all(entry.evaluation == entry.first for entry in twice(entries))
    assert mean(entries[0].first or entries[0].evaluation, entries[0].evaluation).standard_errors["loss"] == 0


@pytest.mark.parametrize(
    ("searcher", "engines"),
    [
        *((searcher, None) for searcher in ("guided", "evolution", "nsga2", "aging", "random")),
        ("evolution", ("transformers", "llama.cpp")),
    ],
)
def test_a_run_that_is_killed_anywhere_ends_as_if_it_had_not_been(tmp_path, prepared, searcher, engines):
    settings = prepared.config.searcher.model_copy(update={"name": searcher})
    space = prepared.config.space.model_copy(update={"exportable_to": engines})
    wanted = with_repeats(afresh(prepared, space), 0.3, candidates=24, searcher=settings, space=space)
    calm = searched(tmp_path / "calm", wanted, PretendExecutor(answer=noisy))
    assert len(twice(calm)) > 3
    (tmp_path / "killed").mkdir()
    folder, left, evaluated = RunFolder(tmp_path / "killed"), random.Random(3), []
    ledger_module.create(folder.ledger, wanted.config, started="now").close()

    class Killed(BaseException):
        pass

    while True:
        fuse = left.randrange(1, 6)

        def answer(job):
            nonlocal fuse
            fuse -= 1
            if fuse < 0:
                raise Killed
            evaluated.append((job.number, job.seed))
            return noisy(job)

        ledger = ledger_module.open_ledger(folder.ledger)
        try:
            drive(afresh(wanted, ledger.config.space), folder, ledger, PretendExecutor(answer=answer))
            break
        except Killed:
            ledger.close()
    assert len(evaluated) == len(set(evaluated)) == 24 + len(twice(calm))
    found = ledger.entries()
    assert all(fits(entry.architecture, engines or ()) for entry in found)
    assert [entry.architecture for entry in found] == [entry.architecture for entry in calm]
    assert [entry.evaluation for entry in found] == [entry.evaluation for entry in calm]
    assert ledger_module.open_ledger(folder.ledger).entries() == found


def test_the_ledger_takes_a_second_evaluation_once_and_after_the_first(tmp_path, prepared):
    ledger = ledger_module.create(tmp_path / "ledger.db", prepared.config, started="now")
    proposal = ledger_module.Entry(0, prepared.space.seeds()[0], (), "seed").proposal
    ledger.propose(proposal, {"width": 16.0})
    scores = Evaluation(status="ok", metrics={"loss": 3.0, "decode_ms@b1": 1.0}, seed=0)
    with pytest.raises(RunError, match="candidate 0 of the ledger has no evaluation yet"):
        ledger.begin_again(0, "here")
    ledger.record(0, scores)
    ledger.begin_again(0, "here")
    assert not ledger.complete(ledger.entries())
    ledger.record_again(0, scores.model_copy(update={"seed": 1}))
    with pytest.raises(RunError, match="candidate 0 of the ledger has its second evaluation already"):
        ledger.record_again(0, scores)
    assert [len(entry.again.attempts) for entry in ledger.entries()] == [1]


def test_repeats_take_luck_from_the_frontier_and_cost_it_no_truth(prepared):
    """Against as many evaluations of further candidates, without a search: candidates are random."""
    objectives, luck, gained = prepared.config.parsed_objectives(), [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        plain = [
            Entry(number, architecture, (), "random", evaluation_of(architecture, 2 * seed), number)
            for number, architecture in enumerate(prepared.space.sample(rng) for _ in range(44))
        ]
        repeated = plain[:40]
        for _ in range(5):
            if (number := next_repeat(repeated, objectives, share=0.1)) is not None:
                again = evaluation_of(repeated[number].architecture, 2 * seed + 1)
                repeated[number] = repeated[number].with_again(Again(attempts=(), evaluation=again))
        assert len(twice(repeated)) == 4
        luck.append([luck_of(scored(each, objectives).frontier()) for each in (plain[:40], repeated)])
        truth = [true_volume(scored(each, objectives).frontier()) for each in (plain, repeated)]
        gained.append(truth[1] - truth[0])
    before, after = np.mean(luck, axis=0)
    assert 0 < after < 0.6 * before
    assert np.mean(gained) > 0


def evaluation_of(architecture, seed):
    return noisy(SimpleNamespace(architecture=architecture, seed=seed), 0.1).evaluation


def luck_of(entries):
    """By how much the losses are too low, on average."""
    return np.mean([true_scores(each.architecture)[0] - each.evaluation.metrics["loss"] for each in entries])


def true_volume(entries):
    return pareto.hypervolume([true_scores(each.architecture) for each in entries], (4.0, 6.0))


def true_scores(architecture):
    metrics = pretended(SimpleNamespace(architecture=architecture, seed=0)).evaluation.metrics
    return metrics["loss"], metrics["decode_ms@b1"]


def test_a_candidate_that_was_evaluated_twice_is_one_candidate_for_people(tmp_path, prepared):
    wanted = with_repeats(prepared, 0.3, candidates=16)
    entries = searched(tmp_path / "run", wanted, PretendExecutor(answer=noisy))
    entry = twice(entries)[0]
    second = entry.again.evaluation
    found = standing(*opened(tmp_path, "run"))
    assert (found["candidates"], found["evaluated"], found["evaluated_twice"], found["state"]) == (
        16,
        16,
        len(twice(entries)),
        "complete",
    )
    table = frame(entries, wanted.config.parsed_objectives(), ["loss"])
    assert table.column("id") == list(range(16))
    assert table.column("loss")[entry.number] == pytest.approx(
        (entry.first.metrics["loss"] + second.metrics["loss"]) / 2
    )
    console = Console(width=200, record=True, file=io.StringIO())
    print_candidate(console, RunFolder(tmp_path / "run"), entry)
    text = console.export_text()
    assert "evaluated twice: the mean and both evaluations" in text
    (row,) = [line.split() for line in text.splitlines() if line.startswith("loss ")]
    shown = [entry.evaluation.metrics["loss"], entry.first.metrics["loss"], second.metrics["loss"]]
    assert [float(cell) for cell in row[1:4]] == pytest.approx(shown, rel=1e-3)


def test_the_time_of_a_second_evaluation_counts(tmp_path, prepared):
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def at(seconds):
        return start + timedelta(seconds=seconds)

    first = Evaluation(status="ok", metrics={"loss": 3.0}, seed=0, seconds={"train": 6.0})
    attempt = ledger_module.Attempt(at=start, place="here")
    entry = ledger_module.Entry(
        0, prepared.space.seeds()[0], (), "seed", first, 0, attempts=(attempt,), ended=at(10)
    )
    again = ledger_module.Again(attempts=(attempt.model_copy(update={"at": at(20)}),))
    assert worker_seconds([entry.with_again(again)], workers=1, now=at(25)) == {
        "train": 6.0,
        "other": 9.0,
        "idle": 0.0,
    }
    ended = again.model_copy(
        update={"evaluation": first.model_copy(update={"seconds": {"train": 5.0}}), "ended": at(28)}
    )
    assert worker_seconds([entry.with_again(ended)], workers=1, now=None) == {
        "train": 11.0,
        "other": 7.0,
        "idle": 0.0,
    }
