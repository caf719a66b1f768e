"""`runs`, `rm`, `diff`, `report`, `--set` and the completion of shells."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from operators.base.errors import ConfigError, RunError
from search.benchmarks.made_up_run import make_run
from search.cli import app as cli
from search.config import run as config_module
from search.config.changes import changed
from search.runs.all_runs import remove
from search.runs.folder import RunFolder
from search.runs.ledger import open_ledger
from search.view.all_runs import age
from tests.fixtures import Call


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    make_run(folder / "first", 6)
    make_run(folder / "second", 3, seed=1)
    return folder


@pytest.fixture
def results(kept: Path, tmp_path: Path) -> Path:
    """A copy, as tests remove runs."""
    return Path(shutil.copytree(kept, tmp_path / "results"))


def test_runs_are_listed_with_state_best_and_size(call: Call, results: Path) -> None:
    (results / "bad").mkdir()
    (results / "bad" / "ledger.db").write_text("nothing")
    (results / ".second.removed-1").mkdir()
    (results / ".second.removed-1" / "ledger.db").write_text("nothing")
    long_ago = datetime.now(UTC) - timedelta(days=3)
    os.utime(results / "first" / "ledger.db", (long_ago.timestamp(),) * 2)
    code, out, err = call("runs", "--json")
    assert code == 0, err
    rows = json.loads(out)
    assert [row["name"] for row in rows][-1] == "first"
    of = {row["name"]: row for row in rows}
    assert set(of) == {"first", "second", "bad"}
    assert of["bad"]["state"].startswith("cannot be read: ")
    entries = open_ledger(results / "first" / "ledger.db").entries()
    losses = [entry.evaluation.metrics["loss"] for entry in entries if entry.evaluation.status == "ok"]
    assert of["first"]["best"]["loss"] == min(losses)
    assert (of["first"]["evaluated"], of["first"]["candidates"], of["first"]["state"]) == (6, 6, "complete")
    assert of["first"]["size"] == sum(file.stat().st_size for file in (results / "first").rglob("*"))
    with RunFolder(results / "second").driving():
        out = call("runs")[1]
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert f"driven by process {os.getpid()}" in lines["second"]
    assert "3 days ago" in lines["first"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "just now"), (61, "1 minute ago"), (7200, "2 hours ago"), (90_000, "1 day ago")],
)
def test_ages_are_told_in_the_largest_unit(seconds: float, words: str) -> None:
    assert age(seconds) == words


def test_a_folder_without_runs_and_no_folder(call: Call, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    assert call("runs") == (0, "no run in results\n", "")
    assert call("runs", "--results", "nowhere")[2] == "error: results folder nowhere does not exist\n"


def test_a_run_is_removed_when_somebody_says_yes(
    call: Call, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def answer(question: str, **options: object) -> bool:
        asked.append(question)
        return len(asked) > 1

    monkeypatch.setattr(typer, "confirm", answer)
    code, _, err = call("rm", "first")
    assert (code, err) == (
        1,
        "error: run first: not removed, as the answer was not yes; --yes asks no question\n",
    )
    assert "results/first, 6 evaluated candidates, " in asked[0]

    def no_answer(question: str, **_: object) -> bool:
        typer.echo(question, nl=False, err=True)
        raise typer.Abort

    monkeypatch.setattr(typer, "confirm", no_answer)
    assert call("rm", "first")[2].splitlines()[1:] == err.splitlines()
    monkeypatch.setattr(typer, "confirm", answer)
    assert (results / "first" / "ledger.db").is_file()
    assert call("rm", "first")[0] == 0
    assert [path.name for path in results.iterdir()] == ["second"]
    assert call("rm", "second", "--yes")[1] == "removed results/second\n"
    assert list(results.iterdir()) == []
    assert len(asked) == 2


def test_a_run_that_goes_on_or_a_link_is_not_removed(call: Call, results: Path) -> None:
    with RunFolder(results / "first").driving():
        code, _, err = call("rm", "first", "--yes")
    assert (code, err) == (
        1,
        f"error: run first is driven by process {os.getpid()}: stop that process before you remove the run\n",
    )
    (results / "linked").symlink_to(results / "first")
    code, _, err = call("rm", "linked", "--yes")
    assert code == 1
    assert "results/linked: a link, expected the run's own folder" in err
    with pytest.raises(RunError, match="a link, expected"):
        remove(RunFolder(results / "linked"))
    assert (results / "first" / "ledger.db").is_file()
    assert call("rm", "third", "--yes")[2].startswith("error: unknown run 'third': expected one of")


def test_nobody_to_ask_removes_nothing(call: Call, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115, PTH123
    code, _, err = call("rm", "first")
    assert code == 1
    assert "not removed, as the answer was not yes" in err
    assert (results / "first").is_dir()


def test_what_differs_between_two_candidates(call: Call, results: Path) -> None:
    entries = open_ledger(results / "first" / "ledger.db").entries()
    code, out, err = call("diff", "first:0", "first:4", "--json")
    assert code == 0, err
    found = json.loads(out)
    one, other = entries[0], entries[4]
    assert {row["key"]: (row["first"], row["second"]) for row in found["keys"]} == (
        {"width": (one.architecture.width, other.architecture.width)}
        if one.architecture.width != other.architecture.width
        else {}
    )
    # Whoever takes the first one's layers, and does what is told, has the second one's.
    layers = [layer.operator for layer in one.architecture.layers]
    for row in reversed(found["layers"]):
        text = row["second"] and row["second"]["text"].partition(" (")[0]
        if row["sign"] == "≠":
            layers[row["first"]["layer"]] = text
        elif row["sign"] == "-":
            del layers[row["first"]["layer"]]
    added = [row["second"] for row in found["layers"] if row["sign"] == "+"]
    for side in added:
        layers.insert(side["layer"], side["text"].partition(" (")[0])
    assert layers == [layer.operator for layer in other.architecture.layers]
    figures = {row["metric"]: row for row in found["metrics"]}
    assert figures["params"]["ratio"] == pytest.approx(
        other.evaluation.metrics["params"] / one.evaluation.metrics["params"]
    )
    text = call("diff", "first:0", "first:4")[1]
    assert "second / first" in text
    assert "the same architecture" in call("diff", "first:2", "first:2")[1]
    assert call("diff", "first", "first:1")[2].startswith("error: first: expected a candidate as well")


def test_a_page_is_written_whole_or_not_at_all(call: Call, results: Path, tmp_path: Path) -> None:
    code, out, err = call("report", "first", "second", "--to", "page.html")
    assert (code, err) == (0, "")
    assert out.startswith("page: page.html (")
    assert (tmp_path / "page.html").read_text(encoding="utf-8").endswith("</html>\n")
    (tmp_path / "folder.html").mkdir()
    for arguments, said in (
        (["first", "--to", "folder.html"], "--to folder.html: expected a file, got a folder"),
        (["first", "--to", "page.pdf"], "--to page.pdf: expected a file that ends in .html"),
        (["third", "--to", "page.html"], "unknown run 'third'"),
        (["first", "results/first", "--to", "page.html"], "given twice, expected each run once"),
        (["first", "--to", "page.html/x.html"], "cannot be written: "),
    ):
        code, _, err = call("report", *arguments)
        assert code == 1
        assert len(err.splitlines()) == 1
        assert said in err


def test_a_run_without_candidates_has_a_page(call: Call, tmp_path: Path) -> None:
    make_run(tmp_path / "results" / "empty", 0 + 1)
    config = open_ledger(tmp_path / "results" / "empty" / "ledger.db").config
    from search.runs import ledger as ledger_module

    (tmp_path / "results" / "none").mkdir()
    ledger_module.create(tmp_path / "results" / "none" / "ledger.db", config, started="now").close()
    assert call("report", "none", "empty", "--to", "page.html")[0] == 0


def test_keys_are_changed_on_the_command_line() -> None:
    data = {"proxy": {"tokens": 1, "batch_size": 2}, "seed": 1}
    texts = [
        "proxy.tokens=2e6",
        "objectives=[loss, params]",
        "space.genes={attention: {head_dim: [64]}}",
        "device = cpu",
    ]
    right = {
        "proxy": {"tokens": 2_000_000, "batch_size": 2},
        "seed": 1,
        "objectives": ["loss", "params"],
        "space": {"genes": {"attention": {"head_dim": [64]}}},
        "device": "cpu",
    }
    assert changed(data, texts) == right
    assert data["proxy"]["tokens"] == 1
    assert changed(None, ["constraints=['params <= 2e6']"]) == {"constraints": ["params <= 2e6"]}
    assert changed(data, []) is data
    assert config_module.load(Path("quick"), ["proxy.tokens=3e4"]).proxy.tokens == 30_000


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["tokens"], "--set tokens: expected KEY=VALUE, as in proxy.tokens=2e6"),
        (["=3"], "--set =3: expected KEY=VALUE"),
        (["proxy..tokens=3"], "--set proxy..tokens=3: expected KEY=VALUE"),
        (["seed=1", "seed=2"], "--set seed=2: seed is set already, expected each key once"),
        (["proxy={}", "proxy.tokens=2"], "--set proxy.tokens=2: proxy is set already"),
        (["seed.x=1"], "--set seed.x=1: expected a mapping of keys above x, got 1"),
        (["seed=["], "--set seed=[: not a value in YAML: "),
    ],
)
def test_changes_that_are_none_are_refused(texts: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        changed({"seed": 1}, texts)
    assert str(refused.value).startswith(said)
    assert len(str(refused.value).splitlines()) == 1


def test_a_changed_key_has_the_error_of_the_file(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("proxy: {tokenz: 3}\n")
    (tmp_path / "b.yaml").write_text("seed: 1\n")
    in_file = call("search", "a.yaml", "--name", "x")[2].replace("a.yaml", "b.yaml")
    assert call("search", "b.yaml", "--set", "proxy.tokenz=3", "--name", "x") == (1, "", in_file)
    assert "unknown key tokenz" in in_file
    assert not (tmp_path / "results").exists()


def completed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """What a shell is offered for the last of the words."""
    monkeypatch.setenv("_FRONTRUNNER_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(["frontrunner", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    monkeypatch.setattr("sys.argv", ["frontrunner"])
    capfd.readouterr()
    with pytest.raises(SystemExit):
        cli.main()
    return capfd.readouterr().out.split()


def test_shells_complete_runs_configurations_and_commands(
    results: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(results.parent)
    assert completed(monkeypatch, capfd, "show", "fi") == ["first"]
    assert completed(monkeypatch, capfd, "report", "first", "") == ["first", "second"]
    assert completed(monkeypatch, capfd, "diff", "se") == ["second:"]
    assert completed(monkeypatch, capfd, "search", "quick_") == ["quick_vision"]
    assert completed(monkeypatch, capfd, "fron") == ["frontier"]
    monkeypatch.chdir("/")
    assert completed(monkeypatch, capfd, "rm", "") == []
    assert completed(monkeypatch, capfd, "rm", "--results", str(results), "s") == ["second"]


def test_a_shell_gets_its_script(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    monkeypatch.setattr("sys.argv", ["frontrunner", "--show-completion", "bash"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert "_FRONTRUNNER_COMPLETE=complete_bash" in capfd.readouterr().out


WITHOUT_TABLE = {
    *("configs copy", "data pages", "data prepare", "export", "import", "law run", "logs"),
    *("report", "rm", "serve", "stop", "submit"),
}
"""Commands that print no table."""


def test_every_command_that_prints_a_table_prints_json_too() -> None:
    def leaves(command, name=""):
        for each, inner in getattr(command, "commands", {}).items():
            yield from leaves(inner, f"{name} {each}".strip())
        if not getattr(command, "commands", {}):
            yield name, command

    lacking = {
        name
        for name, command in leaves(typer.main.get_command(cli.app))
        if not any("--json" in option.opts for option in command.params)
    }
    assert lacking == WITHOUT_TABLE
