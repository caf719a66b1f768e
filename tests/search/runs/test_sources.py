"""Names of models, candidates and runs mean the same in every command, and what goes wrong is one line."""

import os
import re
import shutil
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from operators import Architecture
from operators.base import shipped
from operators.base.errors import ArchitectureError, ConfigError, FrontrunnerError, RunError
from search.cli.arguments import joined, whole_numbers
from search.cli.data import settings_of
from search.cluster import connect as cluster_connect
from search.cluster import ray_executor as cluster
from search.config import run as config_module
from search.config.run import RunConfig
from search.runs import ledger as ledger_module
from search.runs import run, table_for_space
from search.runs.export_huggingface import export_huggingface
from search.runs.importing import read_published
from search.runs.ledger import Ledger
from search.runs.sources import architecture_of, candidate_named, run_or_architecture
from search.runs.table_for_space import load_space
from search.runs.warming import warm_jobs
from search.searchers.contract import Proposal
from search.studies import experiment
from search.studies.law.law import LawSettings
from search.view.progress import print_event
from tests.fixtures import Call
from tests.helpers.exported_folders import model_of

MODEL = Architecture.from_shorthand("a f", width=32, vocabulary=300)


def ledger_with_a_candidate(folder: Path, config: RunConfig) -> Ledger:
    """A run's folder, whose candidate 0 is MODEL."""
    folder.mkdir(parents=True)
    ledger = ledger_module.create(folder / "ledger.db", config, started="now")
    ledger.propose(Proposal(number=0, candidate=MODEL, parents=(), origin="random"), {})
    return ledger


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: RunConfig) -> Path:
    """The working directory: a run, an exported folder, and files."""
    ledger_with_a_candidate(tmp_path / "results" / "first", tiny_config).close()
    (tmp_path / "winner").mkdir()
    for file in ("winner/architecture.yaml", "own.yaml", "qwen3-0.6b", "a:1"):
        (tmp_path / file).write_text(MODEL.to_yaml())
    (tmp_path / "own.json").write_text(MODEL.to_json())
    (tmp_path / "llama-3.2-1b").mkdir()  # no model in it
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("own.yaml", "own.yaml"),
        ("own.json", "own.json"),
        ("winner", "winner"),
        ("winner/", "winner"),
        ("winner/architecture.yaml", "winner/architecture.yaml"),
        ("first:0", "first:0"),
        ("results/first:0", "results/first:0"),
        ("./results/first/:0", "./results/first/:0"),
        ("a:1", "a:1"),  # a file of that very name goes before a candidate
        ("qwen3-0.6b", "./qwen3-0.6b"),  # and before a shipped architecture, which is said
    ],
)
def test_a_model_has_the_name_that_it_was_given_by(here: Path, text: str, title: str) -> None:
    assert architecture_of(text, Path("results")) == (title, MODEL)
    assert run_or_architecture(text, Path("results")) == MODEL


def test_a_folder_without_a_model_hides_no_shipped_name(here: Path) -> None:
    assert architecture_of("llama-3.2-1b", Path("results"))[1].depth == 32
    assert architecture_of("Smollm2-135M", Path("results"))[0] == "Smollm2-135M"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("first", "first: a run, expected one of its candidates, as first:0"),
        (
            "results/first",
            "results/first: the folder of a run, expected one of its candidates, as results/first:0",
        ),
        ("first:7", "run first has no candidate 7: expected 0 to 0"),
        (f"first:{2**63}", f"run first has no candidate {2**63}: expected 0 to 0"),
        ("second:0", "unknown run 'second'"),
        ("results", "results: cannot be read: a folder without architecture.yaml"),
        ("nowhere/x.yaml", "nowhere/x.yaml: cannot be read: No such file"),
        ("nonsense", "neither a file nor a shipped architecture"),
    ],
)
def test_what_is_no_model_says_what_it_is(here: Path, text: str, says: str) -> None:
    with pytest.raises((ArchitectureError, RunError), match=says):
        architecture_of(text, Path("results"))


def test_a_published_model_is_named_by_its_folder(here: Path) -> None:
    model = model_of("m f f a", meta_tokens=2)
    export_huggingface(model, here / "theirs")
    shutil.copytree(here / "theirs", here / "llama-3.2-1b", dirs_exist_ok=True)
    for text, title in (("theirs", "theirs"), ("llama-3.2-1b", "./llama-3.2-1b")):
        found = architecture_of(text, Path("results"))
        assert (found[0], found[1].digest()) == (title, model.architecture.digest())
        assert run_or_architecture(text, Path("results")) == found[1]
    (here / "theirs/config.json").write_text('{"model_type": ["llama"]}')
    says = r"config.json: model_type: expected one of .*llama"
    with pytest.raises(ArchitectureError, match=says):
        architecture_of("theirs", Path("results"))
    with pytest.raises(ArchitectureError, match=says):
        read_published(here / "theirs")
    for name in ("theirs/config.json", "cut.gguf"):
        (here / name).write_text("{}")
    for text in ("theirs", "cut.gguf"):
        with pytest.raises(FrontrunnerError, match=text):
            architecture_of(text, Path("results"))


def test_candidates_and_runs_are_named_in_either_way(here: Path, tiny_config: RunConfig) -> None:
    for words in (("first", 0), ("results/first", 0), ("first:0", None), ("results/first:0", None)):
        assert candidate_named(*words, Path("results"))[2].architecture == MODEL
    with pytest.raises(RunError, match=r"first: expected a candidate as well, as in `first 0` or `first:0`"):
        candidate_named("first", None, Path("results"))
    for text in ("", ":0", "first:", "first:0x1"):
        with pytest.raises(RunError, match=f"^{text!r}: expected RUN:ID, with a whole number as ID$"):
            candidate_named(text, None, Path("results"))
    with pytest.raises(RunError, match=r"first:0 1: expected one candidate, `first 1` or `first:0`"):
        candidate_named("first:0", 1, Path("results"))
    assert run_or_architecture("results/first", Path("nowhere")) == tiny_config


def test_a_key_given_twice_is_refused_by_every_command_that_reads_run_files(here: Path) -> None:
    (here / "run.yaml").write_text("seed: 1\nseed: 2\n")
    for read in (lambda: run_or_architecture("run.yaml", here), lambda: config_module.load(Path("run.yaml"))):
        with pytest.raises(ConfigError, match="key 'seed' is given twice"):
            read()


def test_a_shipped_configuration_is_named_alone_and_a_file_of_that_name_goes_before(here: Path) -> None:
    """`here` has no configs/: what a name means does not depend on where the command is called."""
    (here / "law_cpu").mkdir()  # a folder is no configuration, and hides none
    assert experiment.load(LawSettings, Path("law_cpu")).block == "a f"
    quick = config_module.load(Path("quick"))
    assert quick.candidates == 24
    assert config_module.load(Path("QUICK")) == quick == run_or_architecture("quick", here)
    assert load_space(Path("table_cpu")).profile.batch_sizes == (1, 4)
    assert settings_of(["table_cpu"]).vocabulary == 4096
    (here / "quick").write_text("candidates: 3")
    assert config_module.load(Path("quick")).candidates == 3
    assert settings_of(["quick"]).source == ("quick",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("qick", r"qick: neither a file nor a shipped configuration: expected .*h100_small, .*quick, "),
        ("configs/quick.yaml", r"No such file or directory; the shipped file is named quick, without"),
        ("quick.yaml", r"No such file or directory; the shipped file is named quick, without"),
        ("quick.yml", r"quick.yml: cannot be read: No such file or directory$"),
        ("nowhere/own.yaml", r"own.yaml: cannot be read: No such file or directory$"),
        ("tiny-hybrid", r"tiny-hybrid: neither a file nor a shipped configuration"),
    ],
)
def test_what_names_no_configuration_says_what_does(here: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config_module.load(Path(text))


def test_every_shipped_file_begins_with_a_sentence_that_says_what_it_is(here: Path) -> None:
    for kind in shipped.KINDS:
        for name in shipped.names(kind):
            file = shipped.find(Path(name), kind)
            assert file is not None
            assert re.fullmatch(r"# .{20,106}[.?]", file.read_text().partition("\n")[0]), name
    every = [name for kind in shipped.KINDS for name in shipped.names(kind)]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize(
    "name", ["what?", "per%20cent", "plain #1 50%", "a?timeout=1", "{x}", "[x]", "é:@", ":memory:"]
)
def test_a_ledger_lies_in_its_folder_whatever_its_name(
    tmp_path: Path, tiny_config: RunConfig, name: str
) -> None:
    folder = tmp_path / name / "r"
    ledger_with_a_candidate(folder, tiny_config).close()
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (folder / "ledger.db").stat().st_size > 0
    assert ledger_module.open_ledger(folder / "ledger.db").entries()[0].architecture == MODEL


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("compare", "a", "b", "--batch", "1.5"), "expected a whole number of at least 1, got '1.5'"),
        (("compare", "a", "b", "--rounds", "2"), "expected a whole number of at least 3, got '2'"),
        (("train", "a", "--tokens", "true"), "expected a whole number of at least 1, got 'true'"),
        (("train", "a", "--seed", "-1"), "expected a whole number from 0 to"),
        (("profile", "a", "--energy", "nan"), "expected a number of at least 0, got 'nan'"),
    ],
)
def test_numbers_of_commands_are_refused_as_wrong_calls(
    call: Call, arguments: tuple[str, ...], says: str
) -> None:
    code, _, err = call(*arguments)
    assert code == 2
    assert says in err


def test_numbers_of_commands_are_read_as_yaml_reads_them() -> None:
    assert whole_numbers("--batch", ["1e2,0x10", "1_000"]) == (100, 16, 1000)
    assert joined(["--batch", "1", "1e2", "8"]) == ["--batch", "1,1e2,8"]


def test_of_two_searches_of_one_name_one_begins(
    tmp_path: Path, tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch, corpus: object
) -> None:
    prepare = run.prepare_run

    def meanwhile(config: RunConfig, **_: object) -> object:
        monkeypatch.setattr(run, "prepare_run", prepare)
        run.start(tiny_config, results=tmp_path / "results", name="same")
        return prepare(config)

    monkeypatch.setattr(run, "prepare_run", meanwhile)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(RunError, match=r"run same exists already"):
        run.start(tiny_config, results=tmp_path / "results", name="same")
    assert [folder.name for folder in (tmp_path / "results").iterdir()] == ["same"]
    assert ledger_module.open_ledger(tmp_path / "results" / "same" / "ledger.db").entries() == ()


def test_a_vocabulary_far_above_the_tokens_is_refused(
    tmp_path: Path, tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = tiny_config.data.model_copy(update={"vocabulary": 100_000})
    with pytest.raises(
        ConfigError,
        match=r"data\.vocabulary: expected at most 4096, as the tokenizer has \d+ tokens, got 100000",
    ):
        run.start(
            tiny_config.model_copy(update={"data": data}),
            results=tmp_path,
            name="r",
        )
    assert not (tmp_path / "r").exists()


def test_there_are_no_more_workers_than_cores(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[int] = []
    monkeypatch.setattr(cluster, "RayExecutor", lambda *, workers, **_: started.append(workers))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    for wanted, address in ((64, None), (2, None), (64, "127.0.0.1:1")):
        config = tiny_config.model_copy(update={"workers": wanted})
        run._executor("ray", config, address, partial(print_event, Console()))
    assert started == [2, 2, 64]
    assert capsys.readouterr().out == "workers: 64 asked for, 2 work: this machine has 2 cores\n"


@pytest.mark.parametrize("place", ["long", "missing", "locked"])
def test_ray_gets_a_folder_that_its_sockets_fit_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = tmp_path / ("x" * 60 if place == "long" else place)
    if place == "long":
        folder.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    short = cluster_connect._short_folder()
    assert short.is_dir()
    session = "session_2026-12-31_23-59-59_999999_4194304"
    assert len(str(short / "ray" / session / "sockets" / "plasma_store")) <= 107


def test_a_ray_that_does_not_start_is_one_line() -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("pages of a log\n\n  The last   sentence. \n")

    with pytest.raises(
        ConfigError, match=r"^Ray cannot be started on this machine, .*: The last sentence\.$"
    ):
        cluster_connect._start_here(SimpleNamespace(init=fail), 1, {})


def test_keys_of_a_configuration_are_changed_for_tables_kernels_and_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = ["profile.batch_sizes=[1,3]", "data.vocabulary=512"]
    given = run_or_architecture("quick", tmp_path, changes)
    assert isinstance(given, config_module.RunConfig)
    assert (given.profile.batch_sizes, given.data.vocabulary) == ((1, 3), 512)
    Path("run.yaml").write_text(given.to_yaml(), encoding="utf-8")
    other = run_or_architecture("run.yaml", tmp_path, ["data.vocabulary=600"])
    assert isinstance(other, config_module.RunConfig)
    assert (other.data.vocabulary, other.profile.batch_sizes) == (600, (1, 3))
    assert settings_of(["quick"], changes=changes).vocabulary == 512
    few = table_for_space.wanted(
        ["table_cpu"], batches=None, contexts=None, results=tmp_path, changes=changes
    )
    assert {point.batch for point in few.points} == {1, 3}
    assert {each.vocabulary for each in few.architectures} == {512}
    jobs = warm_jobs(["quick"], batches=None, tokens=None, device="cpu", results=tmp_path, changes=changes)
    assert {batch for job in jobs for batch, _ in job.workload.decoding} >= {1, 3}


def test_what_has_no_keys_refuses_changes(here: Path) -> None:
    Path("model.yaml").write_text(MODEL.to_yaml(), encoding="utf-8")
    Path("text.txt").write_text("text", encoding="utf-8")
    for read, kind in (
        (lambda: run_or_architecture("model.yaml", here, ["proxy.tokens=1"]), "model.yaml is a model"),
        (lambda: run_or_architecture("llama-3.2-1b", here, ["proxy.tokens=1"]), "llama-3.2-1b is a model"),
        (lambda: run_or_architecture("results/first", here, ["proxy.tokens=1"]), "is a run that was begun"),
        (lambda: settings_of(["text.txt"], changes=["proxy.tokens=1"]), "text.txt is text"),
    ):
        with pytest.raises(ConfigError, match=f"--set proxy.tokens=1: .*{kind}, expected"):
            read()
