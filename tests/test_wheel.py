"""The wheel: built from the sources, installed into an empty folder, and used where the checkout is not on
the path.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SOURCES = ("operators", "profiler", "proxy_train", "search", "configs")
FILES = ("frontrunner.py", "pyproject.toml", "README.md", "LICENSE")
TINY = """
candidates: 1
repeats: 0
data: {source: texts, vocabulary: 300, validation_fraction: 0.2}
proxy: {tokens: 256, batch_size: 2, sequence_length: 32, validation_tokens: 64}
profile: {batch_sizes: [1], contexts: [16], min_samples: 5, min_seconds: 0.001, max_seconds: 0.01,
  attempts: 1}
space:
  operators: [attention, swiglu]
  widths: [16]
  min_depth: 2
  max_depth: 2
  genes: {attention: {head_dim: [8]}}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel was installed into; its dependencies are those of the running environment."""
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in SOURCES:
        shutil.copytree(
            ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-deps", "--no-index"]
    subprocess.run(
        [*pip, "wheel", *alone, "--no-build-isolation", "-w", str(wheels), str(source)], check=True
    )
    target = tmp_path_factory.mktemp("target")
    subprocess.run(
        [*pip, "install", *alone, "--target", str(target), *map(str, wheels.glob("*.whl"))], check=True
    )
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
    start = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import operators; "
        "assert operators.__file__.startswith(sys.path[0]), operators.__file__; "
        "from search.cli.main import main; main()"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(own_cache), "COLUMNS": "200"}
    empty = tmp_path / "empty"
    empty.mkdir()

    def command(*arguments: str) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-I", "-c", start, str(installed), *arguments],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout, done.stderr

    listed, _ = command("configs")
    assert "h100_small " in listed
    assert "A whole search in a few minutes on two CPU cores." in listed
    assert command("configs", "copy", "quick") == ("wrote quick.yaml\n", "")
    copied = (empty / "quick.yaml").read_bytes()
    assert copied == (ROOT / "configs" / "quick.yaml").read_bytes()
    assert command("configs", "copy", "quick")[1].startswith("error: quick.yaml exists already")
    assert "text is not prepared yet" in command("data", "info", "quick")[1]  # the shipped file was read
    profiled, problem = command("profile", "tiny-hybrid", "--batch", "1", "--context", "16")
    assert "tiny-hybrid" in profiled, problem
    shutil.copytree(text_folder, empty / "texts")
    (empty / "quick.yaml").write_text(TINY)
    found, problem = command("search", "quick.yaml", "--name", "r", "--executor", "inline")
    assert "frontier of r: 1 of 1 candidates" in found, problem
    written, problem = command("report", "r", "--to", "page.html")
    assert written.startswith("page: page.html ("), problem
    assert (empty / "page.html").read_text(encoding="utf-8").endswith("</html>\n")
