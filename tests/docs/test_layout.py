"""docs/layout.md and the other pages against the files: what they name is there, each folder is named."""

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from operators.base import plain_yaml
from tests.docs.pages import PAGES, ROOT, rows, section, spans

PACKAGES = ("operators", "profiler", "proxy_train", "search")
LAYOUT = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
A_PATH = re.compile(r"(?:operators|profiler|proxy_train|search|tests|configs|docs)/[\w./-]+")


def test_every_folder_of_the_packages_has_one_line():
    named = [folder.strip("`/") for folder, *_ in rows(section(LAYOUT, "The folders"))]
    folders = {
        str(file.parent.relative_to(ROOT)) for name in PACKAGES for file in (ROOT / name).rglob("*.py")
    }
    assert sorted(folder for folder in named if folder.split("/")[0] in PACKAGES) == sorted(folders)
    files = {folder for folder in named if not (ROOT / folder).is_dir()}
    assert files == {"frontrunner.py"}


def test_names_that_a_recipe_edits_are_in_its_file():
    cells = [cell for _, cell, *_ in rows(section(LAYOUT, "Where to add what"))]
    named = [
        (file, name)
        for cell in cells
        for file, names in re.findall(r"`([\w/]+\.py)`: (`\w+`(?:, `\w+`)*)", cell)
        for name in spans(names)
    ]
    assert len(named) > 15
    lacking = [
        (file, name)
        for file, name in named
        if not re.search(rf"^ *(?:class |def )?{name}\b", (ROOT / file).read_text(encoding="utf-8"), re.M)
    ]
    assert lacking == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = [path for span in spans(page.read_text(encoding="utf-8")) for path in A_PATH.findall(span)]
    written = [path for path in named if not re.search("NAME|FOLDER|DEVICE", path)]  # which a reader fills in
    assert [path for path in written if not (ROOT / path).exists()] == []


def test_the_contract_of_imports_is_the_one_that_is_checked():
    contract = (
        (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition('name = "Rooms of the search"')[2]
    )
    layers = re.findall(r'^    "([a-z| ]+)",$', contract.partition("]\n\n")[0], re.M)
    shown = re.search(r"^```\n(cli\n.*?)^```$", LAYOUT, re.M | re.S)
    assert shown is not None
    assert shown[1].split("\n")[:-1] == layers


LIBRARIES = {
    "Ray": "ray",
    "Optuna": "optuna",
    "NVML": "pynvml",
    "pandas": "pandas",
    "PyYAML": "yaml",
    "llama.cpp": "xllamacpp",
    "transformers": "transformers",
    "gguf": "gguf",
    "BoTorch": "botorch",
}


def imports(file: Path, package: str) -> bool:
    text = file.read_text(encoding="utf-8")
    if package not in text:
        return False
    nodes = list(ast.walk(ast.parse(text)))
    whole = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    parts = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return package in {name.partition(".")[0] for name in (*whole, *parts)}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_where_the_page_says(library: str) -> None:
    ((_, places),) = [row for row in rows(section(LAYOUT, "What may import what")) if row[0] == library]
    sources = [ROOT / "frontrunner.py", *(file for name in PACKAGES for file in (ROOT / name).rglob("*.py"))]
    found = [str(file.relative_to(ROOT)) for file in sources if imports(file, LIBRARIES[library])]
    assert found
    assert [file for file in found if not file.startswith(tuple(spans(places)))] == []


def test_the_site_shows_every_page_once():
    def shown(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return (
            [page for each in entry for page in shown(each)]
            if isinstance(entry, list)
            else (shown([*entry.values()]))
        )

    site = plain_yaml.parse((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES if (ROOT / "docs") in page.parents]
    assert sorted(shown(site["nav"])) == sorted(pages)


def test_modules_that_a_page_imports_are_there():
    code = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    modules = set(re.findall(rf"^from ((?:{'|'.join(PACKAGES)})[\w.]*) import", code, re.M))
    new = {"search.spaces.alternating", "search.searchers.hill_climbing"}
    assert [name for name in sorted(modules - new) if importlib.util.find_spec(name) is None] == []
