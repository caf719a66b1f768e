"""`frontier` and `watch` in narrow and wide terminals, in colour and without, and in a pipe."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from search.benchmarks.made_up_run import make_run
from search.cli import frontier as frontier_command
from search.runs.folder import RunFolder
from search.runs.frontier import scored
from search.runs.ledger import open_ledger
from search.view.terminal_tables import show
from search.view.watch import picture
from tests.fixtures import Call

ANSI = re.compile(r"\x1b\[([\d;]*)m")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("made") / "first", 12)


def losses(folder: RunFolder) -> list[str]:
    """The losses of the frontier as tables show them."""
    ledger = open_ledger(folder.ledger)
    members = scored(ledger.entries(), ledger.config.parsed_objectives()).frontier()
    return [f"{entry.evaluation.metrics['loss']:#.4g}" for entry in members if entry.evaluation]


def terminal(width: int, **options: Any) -> Console:
    return Console(width=width, file=io.StringIO(), force_terminal=True, highlight=False, **options)


def shown(command: str, folder: RunFolder, console: Console, monkeypatch: pytest.MonkeyPatch) -> str:
    if command == "watch":
        show(console, picture(folder, open_ledger(folder.ledger)))
    else:
        monkeypatch.setattr(frontier_command, "console", console)
        frontier_command.frontier(str(folder.path), results=folder.path.parent)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", ["frontier", "watch"])
@pytest.mark.parametrize("width", [80, 200])
def test_every_member_is_whole_within_the_width(
    folder: RunFolder, command: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = shown(command, folder, terminal(width, color_system=None), monkeypatch)
    assert max(map(cell_len, text.splitlines())) <= width
    for loss in losses(folder):
        assert re.search(rf"(?<![\w.]){re.escape(loss)}(?![\w.])", text), loss


@pytest.mark.parametrize("command", ["frontier", "watch"])
@pytest.mark.parametrize("no_colour", [True, False])
def test_no_colour_is_chosen_for_the_reader(
    folder: RunFolder, command: str, no_colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text has the terminal's own colours, which are readable on its own background, and is bold at most."""
    console = terminal(80, color_system="truecolor", no_color=no_colour)
    codes = {
        code
        for text in ANSI.findall(shown(command, folder, console, monkeypatch))
        for code in text.split(";")
    }
    assert codes == {"0", "1"}


def test_a_pipe_gets_one_line_for_each_candidate_and_no_codes(folder: RunFolder, call: Call) -> None:
    for arguments in (["frontier"], ["watch", "--once"]):
        code, out, err = call(*arguments, folder.path)
        assert (code, err) == (0, "")
        assert "\x1b" not in out
        rows = [line for line in out.splitlines() if any(loss in line.split() for loss in losses(folder))]
        assert len(rows) == len(losses(folder))


def test_json_of_watch_is_the_standing_with_the_frontier(folder: RunFolder, call: Call) -> None:
    watched = json.loads(call("watch", folder.path, "--json")[1])
    status = json.loads(call("status", folder.path, "--json")[1])
    members = json.loads(call("frontier", folder.path, "--json")[1])
    assert watched.pop("frontier") == members
    status.pop("frontier")
    assert watched == status
    assert Path(watched["folder"]) == folder.path
