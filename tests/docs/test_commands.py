"""Command lines and YAML on the pages: each is one that the program takes."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from operators import Architecture, VisionLanguage
from operators.base import plain_yaml
from search.cli.app import app
from search.cli.arguments import joined
from search.config.run import RunConfig, parse
from tests.docs.pages import PAGES, ROOT, fenced, spans

COMMAND: Any = typer.main.get_command(app)
UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # of the click that typer carries along
LINE = re.compile(r"^\s*(?:\.venv/bin/)?frontrunner (.*)$", re.M)


def whole_lines(text: str) -> list[str]:
    """Commands in plain blocks, without the remarks behind them."""
    return [line for block in fenced(text) for line in LINE.findall(block)]


LINES = [(page, line) for page in PAGES for line in whole_lines(page.read_text(encoding="utf-8"))]
MENTIONS = [
    (page, span.removeprefix("frontrunner "))
    for page in PAGES
    for span in spans(page.read_text(encoding="utf-8"))
    if span.startswith("frontrunner ")
]


def check(line: str) -> None:
    """Parses a line as the command does, and runs nothing. Raises UsageError.

    ID stands for a number that a reader fills in; `…` for more of the same.
    """
    words = [word.rstrip("…") for word in shlex.split(line, comments=True)]
    arguments = joined(["17" if word == "ID" else word for word in words if word])
    command, context, name = COMMAND, None, "frontrunner"
    while hasattr(command, "get_command") and arguments:
        context = typer.Context(command, info_name=name, parent=context)
        name, *arguments = arguments
        command = command.get_command(context, name)
        if command is None:
            raise UsageError(f"no command {name}")
    command.make_context(name, arguments, parent=context)


def identity(case: object) -> str:
    return str(case.relative_to(ROOT)) if isinstance(case, Path) else str(case)


@pytest.mark.parametrize(("page", "line"), LINES, ids=identity)
def test_a_command_line_is_one(page: Path, line: str) -> None:
    check(line)


@pytest.mark.parametrize(("page", "line"), MENTIONS, ids=identity)
def test_a_command_in_a_sentence_exists(page: Path, line: str) -> None:
    try:
        check(line)
    except UsageError as error:
        kind = type(error).__name__
        if kind not in ("MissingParameter", "NoArgsIsHelpError"):  # such as `frontrunner search` alone
            raise


def test_the_check_refuses_what_does_not_exist() -> None:
    for line in ("serch quick", "search", "search quick --nmae x", "study order x.yaml", "show first seven"):
        with pytest.raises(UsageError):
            check(line)


YAML = [(page, block) for page in PAGES for block in fenced(page.read_text(encoding="utf-8"), "yaml")]


@pytest.mark.parametrize(("page", "text"), YAML, ids=[f"{page.name}-{text[:20]!r}" for page, text in YAML])
def test_an_example_in_yaml_is_a_run_or_an_architecture(page: Path, text: str) -> None:
    content = plain_yaml.parse(text)
    if set(content) & set(RunConfig.model_fields):
        parse(content, where=page.name)
    elif "tower" in content:
        VisionLanguage.parse(content, where=page.name)
    else:
        Architecture.parse(content, where=page.name)


def test_there_are_examples_to_check() -> None:
    assert len(LINES) > 30
    assert len(MENTIONS) > 20
    assert len(YAML) >= 3
