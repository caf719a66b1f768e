"""docs/notebook.ipynb: its cells run one after the other, in this process, with times that are made up."""

import json
from pathlib import Path

import pytest

import frontrunner
from operators import Architecture
from profiler.measuring.comparison import Comparison, compare_times
from profiler.profile import ProfileSettings
from tests.docs.pages import ROOT
from tests.helpers.made_up_profile import decode_ms, measure_on_made_up_device

pytestmark = pytest.mark.slow

NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    measure_on_made_up_device(monkeypatch)
    monkeypatch.setattr(frontrunner, "_compare", compared)  # which would start six processes
    names: dict[str, object] = {}
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)  # noqa: S102 - the notebook's own code
    run = names["run"]
    assert isinstance(run, frontrunner.Run)
    assert len(run.candidates()) == 4
    assert "</html>" in Path("notebook.html").read_text(encoding="utf-8")
    assert Path("winner/model.safetensors").is_file()
    first, last = (run.candidate(number).architecture for number in (0, 3))
    right = decode_ms(last, 1, 16) / decode_ms(first, 1, 16)
    comparison = names["comparison"]
    assert isinstance(comparison, Comparison)
    assert comparison.ratio == pytest.approx(right)


def compared(
    a: Architecture, b: Architecture, settings: ProfileSettings, *, rounds: int, **rest: object
) -> Comparison:
    """Stands for the comparison in processes."""
    times = ([decode_ms(each, settings.batch_sizes[0], settings.contexts[0])] * rounds for each in (a, b))
    return compare_times(*times, indistinct=0.01)


def test_it_is_a_notebook_without_outputs() -> None:
    """As nbformat 4.5 wants it, and nothing that a run of it left behind."""
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in NOTEBOOK["cells"]:
        assert set(cell) == {"cell_type", "id", "metadata", "source"} | (
            {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        )
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
