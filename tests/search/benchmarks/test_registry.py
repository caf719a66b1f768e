"""`frontrunner bench`: which benchmarks there are, what each needs, records, and pages made from records."""

import importlib
import json
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from operators.base.errors import ConfigError, DeviceError
from search.benchmarks import record, registry
from search.benchmarks.benchmark import Benchmark, Measured

QUIET = Console(file=StringIO())
LIBRARY = Path(registry.__file__).parent / "library"
every_benchmark = pytest.mark.parametrize("name", registry.names())


def test_every_file_of_the_library_is_a_benchmark() -> None:
    assert set(registry.names()) == {path.stem for path in LIBRARY.glob("*.py")} - {"__init__"}
    assert {"quick", "searchers", "ranks"} <= set(registry.names())
    assert "report" not in registry.names()  # `bench report` makes the pages


@every_benchmark
def test_a_benchmark_is_called_as_its_file_and_says_what_it_measures_and_how_to_run_it(name: str) -> None:
    benchmark = registry.get(name)
    assert benchmark.name == name
    assert benchmark.summary
    assert "\n" not in benchmark.summary
    text = importlib.import_module(f"search.benchmarks.library.{name}").__doc__ or ""
    lines = [line.strip() for line in text.splitlines()]
    command = f"frontrunner bench {name}" + (" --device cuda" if benchmark.gpu else "")
    assert any(line.startswith(command) for line in lines)
    for needed in benchmark.needs.values():
        assert any(line.startswith(needed) for line in lines)


def test_finding_one_imports_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("search.benchmarks.library.")]:
        monkeypatch.delitem(sys.modules, module)
    registry.get.cache_clear()
    registry.get("repeat")
    loaded = {name for name in sys.modules if name.startswith("search.benchmarks.library.")}
    registry.get.cache_clear()
    assert loaded == {"search.benchmarks.library.repeat"}


def test_the_command_without_a_name_lists_all(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    code, out, _ = call("bench")
    assert code == 0
    for name in registry.names():
        assert name in out
        assert registry.get(name).summary in out
    assert "pip install 'frontrunner[bench]'" in out


def test_an_unknown_name_says_which_there_are(call) -> None:
    code, _, err = call("bench", "quik")
    assert code == 1
    assert err == f"error: unknown benchmark 'quik': expected one of {', '.join(registry.names())}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cpu"], "bench --device: expected the name of a benchmark before it, got none"),
        (
            ["report", "--out", "x.json"],
            "bench --out: expected the name of a benchmark before it, got report",
        ),
        (["quick", "--check"], "bench --check: expected `report` before it, got quick"),
        (["decode"], "bench decode: expected a GPU, as in --device cuda:0, got cpu"),
        (["quick", "--out", "."], "--out .: expected a file, got a folder"),
    ],
)
def test_what_cannot_be_measured_is_one_line(call, arguments: list[str], message: str) -> None:
    assert call("bench", *arguments) == (1, "", f"error: {message}\n")


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Benchmark]:
    """Benchmarks of the test's own, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    known: dict[str, Benchmark] = {}
    monkeypatch.setattr(registry, "get", known.__getitem__)
    return known


def test_missing_packages_are_named_with_the_commands_that_install_them(
    made_up: dict[str, Benchmark],
) -> None:
    made_up["x"] = Benchmark(
        "x",
        "never runs",
        lambda device, console: pytest.fail("it ran"),
        needs={
            "json": "pip install there",
            "no_such_one": "pip install one",
            "no_such_two": "pip install two",
        },
    )
    with pytest.raises(
        ConfigError,
        match=r"^bench x: no_such_one, no_such_two missing; `pip install one` and `pip install two`",
    ):
        registry.measure_and_write("x", device="cpu", out=None, console=QUIET)


def test_a_gpu_is_asked_for_before_anything_runs(made_up: dict[str, Benchmark]) -> None:
    made_up["x"] = Benchmark("x", "never runs", lambda device, console: pytest.fail("it ran"), gpu=True)
    with pytest.raises(DeviceError, match="expected a GPU"):
        registry.measure_and_write("x", device="cpu", out=None, console=QUIET)


def test_a_record_holds_what_was_measured_and_its_folders_are_renamed(made_up: dict[str, Benchmark]) -> None:
    folder = Path("results/bench-x")
    folder.mkdir(parents=True)
    made_up["x"] = Benchmark(
        "x", "a number", lambda device, console: Measured({"x_ms": 1.5}, [1, 2], {"txt": b"beside"}, [folder])
    )
    path = registry.measure_and_write("x", device="cpu", out=None, console=QUIET)
    assert path == Path("results/benchmarks/cpu/x.json")
    written = json.loads(path.read_text())
    assert (written["name"], written["figures"], written["samples"]) == ("x", {"x_ms": 1.5}, [1, 2])
    assert written["device"]["device"] == "cpu"
    assert path.with_suffix(".txt").read_bytes() == b"beside"
    assert record.read(path) == written
    assert not folder.exists()
    assert len(list(Path("results").glob("bench-x-*"))) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a record: .*No such file"),
        ("{", "not a record: "),
        ("[]", "not a record: it has no figures, samples, device, started, command"),
        ('{"figures": {}, "samples": [], "device": {}, "command": ""}', "not a record: it has no started"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message) as raised:
        record.read(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_every_committed_record_can_be_read() -> None:
    records = sorted((Path(__file__).parent.parent.parent.parent / record.RECORDS).glob("*/*.json"))
    assert len(records) > 20
    for path in records:
        if not path.name.endswith(".tuned.json"):
            assert record.read(path)["figures"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one record and two templates, in which the command runs."""
    monkeypatch.chdir(tmp_path)
    content = dict.fromkeys(("device", "started", "command", "samples"), "") | {"figures": {"x_ms": 1.5}}
    for name, text in {
        "cpu/x.json": json.dumps(content),
        "pages/a.md": 'x: {{ f("cpu/x")["x_ms"] }}\n',
        "pages/b.md": "no figure\n",
    }.items():
        path = record.RECORDS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_report_writes_stale_pages_alone_and_check_writes_none(call, checkout: Path) -> None:
    page, stale = (
        Path("docs/results/a.md"),
        "not what the records give; `frontrunner bench report` writes them",
    )
    code, _, err = call("bench", "report", "--check")
    assert (code, err) == (1, f"error: docs/results/a.md, docs/results/b.md: {stale}\n")
    assert not page.exists()
    assert call("bench", "report") == (0, "written: docs/results/a.md\nwritten: docs/results/b.md\n", "")
    assert page.read_text() == "x: 1.5\n"
    assert call("bench", "report", "--check")[0] == 0
    page.write_text("x: 1.6\n")
    code, _, err = call("bench", "report", "--check")
    assert (code, err) == (1, f"error: docs/results/a.md: {stale}\n")
    assert page.read_text() == "x: 1.6\n"
    assert call("bench", "report")[1] == "written: docs/results/a.md\n"
    assert "nothing was written" in call("bench", "report")[1]


def test_report_outside_a_checkout_says_so(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call("bench", "report")
    assert (code, err) == (
        1,
        "error: results/benchmarks/pages: expected templates of pages, got none; run this in a checkout\n",
    )
