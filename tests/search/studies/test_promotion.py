"""Promotion: which candidates, which rivals at which size, each trained once a seed, and what is told."""

import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from operators.base.errors import ArchitectureError, ConfigError, DivergedError, RunError
from proxy_train.settings import ProxyScore
from proxy_train.text.corpus import Corpus
from search.config.run import RunConfig
from search.config.searcher import SearcherSettings
from search.evaluation.outcome import Evaluation, Job, Outcome
from search.runs.kept_training import KeptTraining
from search.runs.ledger import open_ledger
from search.runs.preflight import Prepared
from search.spaces.free import ArchitectureSpace
from search.studies import experiment, promotion
from search.studies.promoted import Member, Promotion, compared
from search.studies.promotion import promote, shown
from search.studies.promotion_table import promotion_json, promotion_table
from tests.helpers.made_up_profile import decode_ms, measure_on_made_up_device
from tests.helpers.pretended_evaluations import PretendExecutor
from tests.helpers.pretended_search import searched
from tests.helpers.proxy_scores import score

TOKENS = 2048
Trained = list[tuple[str, int]]


@pytest.fixture(scope="module")
def pretended_run(tiny_config: RunConfig, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of pretended evaluations."""
    config = tiny_config.model_copy(update={"searcher": SearcherSettings(name="evolution")})
    prepared = Prepared(config, corpus, ArchitectureSpace(config.space, corpus.vocabulary))
    path = tmp_path_factory.mktemp("made") / "first"
    searched(path, prepared, PretendExecutor(capacity=1))
    return path


@pytest.fixture
def results(pretended_run: Path, tmp_path: Path) -> Path:
    """The folder of a run `first` of pretended evaluations."""
    shutil.copytree(pretended_run, tmp_path / "results" / "first")
    return tmp_path / "results"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, corpus: Corpus) -> Trained:
    """What was trained, as (title, seed). Losses are made up: a candidate's is lower by 0.1 to 0.12."""
    measure_on_made_up_device(monkeypatch)
    made = Trained()

    def pretend(to: Path, training: KeptTraining, corpus: Corpus, *, device: str) -> ProxyScore:
        made.append((training.title, training.seed))
        assert training.settings.tokens == TOKENS
        if "llama" in training.title and training.seed == 2:
            raise DivergedError("loss nan at step 3")
        to.mkdir()
        lower = 0.1 + 0.01 * training.seed if training.title.startswith("first:") else 0.0
        return score(4.0 + 0.3 * training.seed - lower, training.settings, training.seed)

    monkeypatch.setattr(promotion, "train_into", pretend)
    monkeypatch.setattr(promotion, "give_back_memory", lambda: None)  # a tenth of a second each
    monkeypatch.setattr(experiment, "prepare", lambda settings, **_: corpus)
    return made


def promoted(results: Path, **changes: object) -> tuple[Promotion, str]:
    out = StringIO()
    asked = {"tokens": TOKENS, "against": ("tiny-hybrid",), "candidates": (2, 0), **changes}
    found = promote("first", results=results, console=Console(file=out, width=200), **asked)
    return found, out.getvalue()


def test_rivals_are_rescaled_to_the_time_of_each_candidate(results: Path, trained: Trained) -> None:
    found, _ = promoted(results)
    entries = {entry.number: entry for entry in open_ledger(results / "first" / "ledger.db").entries()}
    assert [member.candidate for member in found.members] == [2, 2, 0, 0]
    for member in found.members:
        if not member.rival:
            assert (member.width, member.depth) == (
                entries[member.candidate].architecture.width,
                entries[member.candidate].architecture.depth,
            )
            assert member.ms == decode_ms(entries[member.candidate].architecture, 1, 16)
        else:
            expected = member.depth + member.width / 64 + 1 / 8 + 16 / 1024
            assert member.ms == expected
    for one in found.comparisons:
        assert one.time_ratio == one.rival.ms / one.candidate.ms == pytest.approx(1, abs=0.05)
        assert one.rival.label == f"tiny-hybrid {one.rival.width}x{one.rival.depth}"


def test_all_are_trained_once_a_seed_and_compared_by_seed(results: Path, trained: Trained) -> None:
    found, _ = promoted(results)
    assert sorted(set(trained)) == sorted(trained)
    assert {seed for _, seed in trained} == {0, 1, 2}
    for one in found.comparisons:
        assert one.difference.mean == pytest.approx(0.11)
        # Student's with two degrees of freedom, by hand: 4.303 times 0.01 over the root of 3.
        assert one.difference.high - one.difference.mean == pytest.approx(4.303 * 0.01 / 3**0.5, rel=1e-3)
        assert one.verdict == "better"
    assert found.members[0].loss == pytest.approx(4.3 - 0.11)


def test_what_is_recorded_is_not_made_again(results: Path, trained: Trained) -> None:
    first, _ = promoted(results, seeds=2, candidates=(2,))
    before = list(trained)
    again, printed = promoted(results, seeds=2, candidates=(2,))
    assert trained == before
    assert again == first
    assert "takes" not in printed
    more, _ = promoted(results, seeds=3, candidates=(2, 0), against=("tiny-hybrid", "mamba2-1.3b"))
    assert sorted(set(trained)) == sorted(trained)
    assert len(more.members) == 6
    assert more.members[1].losses.keys() == {0, 1, 2}
    assert more.members[0].ms == first.members[0].ms


def test_a_rival_keeps_its_size_when_a_measurement_is_made_again(
    results: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = promoted(results, candidates=(2,))
    monkeypatch.setattr(promotion, "rescaled", None)
    assert promoted(results, candidates=(2,))[0].members == first.members


def test_a_design_that_changed_under_its_name_is_another_rival(
    results: Path, trained: Trained, tmp_path: Path
) -> None:
    file = tmp_path / "own.yaml"
    for layers in ("a f", "a r"):
        file.write_text(f"width: 64\nvocabulary: 300\nlayers: {layers}\n")
        found, _ = promoted(results, candidates=(2,), against=(str(file),))
        assert found.members[1].losses.keys() == {0, 1, 2}
    assert len([title for title, _ in trained if str(file) in title]) == 6


def test_a_training_that_diverges_tells_nothing_and_the_others_go_on(results: Path, trained: Trained) -> None:
    found, _ = promoted(results, candidates=(2,), against=("llama-3.2-1b", "tiny-hybrid"))
    llama, hybrid = found.comparisons
    assert (llama.verdict, llama.difference) == ("cannot tell", None)
    assert llama.remark == f"{llama.rival.label}, seed 2: diverged: loss nan at step 3"
    assert hybrid.verdict == "better"
    assert list(llama.rival.losses) == [0, 1]


def test_show_trains_nothing(results: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        RunError, match=r"run first has no promotion yet: `frontrunner promote first .*` makes it"
    ):
        shown("first", results=results)
    found, _ = promoted(results)
    before = list(trained)
    assert shown("first", results=results) == found
    assert trained == before
    records = results / "first" / "promoted" / "records.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(line for line in lines if '"seed":2' not in line))
    assert {one.difference.seeds for one in shown("first", results=results).comparisons} == {2}
    records.write_text("".join(line for line in lines if '"kind":"training"' not in line))
    assert {one.remark for one in shown("first", results=results).comparisons} == {"not trained yet"}


def test_an_interrupted_promotion_goes_on(
    results: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend = promotion.train_into

    def interrupted(to: Path, training: KeptTraining, corpus: Corpus, *, device: str) -> ProxyScore:
        if len(trained) == 4:
            raise KeyboardInterrupt
        return pretend(to, training, corpus, device=device)

    monkeypatch.setattr(promotion, "train_into", interrupted)
    with pytest.raises(KeyboardInterrupt):
        promoted(results)
    monkeypatch.setattr(promotion, "train_into", pretend)
    found, _ = promoted(results)
    assert sorted(set(trained)) == sorted(trained)
    assert {one.verdict for one in found.comparisons} == {"better"}


def test_one_seed_has_no_interval_and_says_so(results: Path, trained: Trained) -> None:
    found, _ = promoted(results, seeds=1)
    assert {(one.verdict, one.remark) for one in found.comparisons} == {
        ("cannot tell", "one seed has no interval")
    }


def test_the_first_are_those_that_add_the_most_hypervolume(results: Path, trained: Trained) -> None:
    found, _ = promoted(results, candidates=(), top=2)
    chosen = [member.candidate for member in found.members if not member.rival]
    everything, _ = promoted(results, candidates=(), top=100)
    assert chosen == [member.candidate for member in everything.members if not member.rival][:2]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"candidates": (99,)}, RunError, "run first has no candidate 99: expected 0 to 5"),
        ({"tokens": 1023}, ConfigError, "--tokens: expected at least the search's own 1,024, got 1,023"),
        ({"against": ("abacus",)}, ArchitectureError, "abacus: neither a file nor a shipped architecture"),
        ({"metric": "loss"}, ConfigError, "--metric: expected a time as decode_ms@b1 or .*, got 'loss'"),
        ({"device": "abacus"}, Exception, "unknown device 'abacus'"),
    ],
)
def test_what_cannot_be_promoted_is_one_line(
    results: Path, trained: Trained, changes: dict, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        promoted(results, **changes)
    assert trained == []
    assert not (results / "first" / "promoted").exists()


def test_a_rival_that_is_never_as_fast_is_refused(
    results: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "FARTHEST", 1.001)
    monkeypatch.setattr(promotion, "rescaled", lambda design, ms, time_of, first: (design, ms * 2))
    with pytest.raises(
        ConfigError, match="--against tiny-hybrid: no size of it takes as long as candidate 2, "
    ):
        promoted(results)
    assert trained == []


def diverged(job: Job) -> Outcome:
    return Outcome(Evaluation(status="diverged", reason="loss nan", seed=job.seed))


def test_a_run_without_a_frontier(prepared, tmp_path: Path, trained: Trained) -> None:
    (tmp_path / "results").mkdir()
    searched(tmp_path / "results" / "first", prepared, PretendExecutor(capacity=1, answer=diverged))
    with pytest.raises(RunError, match="run first has no frontier: none of its 6 candidates has every"):
        promoted(tmp_path / "results", candidates=())


def test_another_device_is_another_promotion(results: Path, trained: Trained) -> None:
    promoted(results)
    file = results / "first" / "promoted" / "experiment.json"
    content = json.loads(file.read_text())
    content["fixed"]["device"] = "cuda:0"
    file.write_text(json.dumps(content))
    with pytest.raises(RunError, match="was begun with another device: expected the same, or another --name"):
        promoted(results)
    promoted(results, name="here")
    assert (results / "first" / "here" / "records.jsonl").is_file()


def member(ms: float, losses: tuple[float, ...], rival: str = "") -> Member:
    return Member(rival or "2", 2, rival, 1000, 16, 2, ms, losses=dict(enumerate(losses)))


@pytest.mark.parametrize(
    ("ratio", "lower", "verdict"),
    [
        (1.0, 0.1, "better"),
        (1.0, -0.1, "worse"),
        (0.8, 0.1, "cannot tell"),  # the rival had less time
        (0.8, -0.1, "worse"),  # and yet it learned more
        (1.2, 0.1, "better"),
        (1.2, -0.1, "cannot tell"),
    ],
)
def test_an_advantage_in_time_is_no_advantage(ratio: float, lower: float, verdict: str) -> None:
    candidate = member(1.0, (3.0, 3.1, 3.2))
    rival = member(ratio, (3.0 + lower, 3.1 + lower, 3.2 + lower), "llama")
    found = compared(candidate, rival)
    assert found.verdict == verdict
    assert found.remark == (
        f"llama takes {ratio:.3f} of the candidate's time: not equal" if verdict == "cannot tell" else ""
    )


def test_the_table_and_the_json_say_the_same(results: Path, trained: Trained) -> None:
    found, _ = promoted(results, against=("tiny-hybrid", "llama-3.2-1b"))
    sheet, plain = promotion_table(found), json.loads(json.dumps(promotion_json(found)))
    assert [row[0] for row in sheet.rows] == [
        *("candidate 2", "tiny-hybrid", "llama-3.2-1b", "candidate 0", "tiny-hybrid", "llama-3.2-1b")
    ]
    assert sheet.rows[0][-1] == ""
    assert sheet.rows[1][5:] == ("4.3000", "0.1732", "+0.1100", "+0.0852 – +0.1348", "better")
    assert sheet.rows[2][7:] == ("", "", "cannot tell")
    assert "seed 2: diverged" in " ".join(sheet.notes)
    assert [one["verdict"] for one in plain["comparisons"]] == [row[-1] for row in sheet.rows if row[-1]]
    assert plain["members"][1]["loss"] == pytest.approx(4.3)
    assert plain["comparisons"][0]["difference"]["low"] == pytest.approx(0.0852, abs=1e-4)
    assert list(plain["members"][0]["losses"]) == ["0", "1", "2"]
