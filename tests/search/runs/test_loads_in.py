"""Where a candidate loads, as a ledger keeps it: never another answer than that of the code that runs."""

import json
import sqlite3
from types import SimpleNamespace

import pytest

from operators import Architecture
from operators.published.engines import where_it_loads
from search.runs import ledger as ledger_module
from search.runs import loads_in
from search.runs.folder import RunFolder
from search.searchers.contract import Proposal
from tests.helpers.vision_models import vision_language

MODELS = (
    Architecture.from_shorthand("a f", width=64, vocabulary=300),
    Architecture.from_shorthand("mamba3 retnet", width=64, vocabulary=300),
    vision_language(),
)
LINES = (*map(where_it_loads, MODELS[:2]), "")


def test_what_is_kept_is_what_looking_again_gives() -> None:
    assert LINES[0].startswith("transformers")
    assert LINES[1].startswith("none")
    assert tuple(map(loads_in.line, MODELS)) == LINES
    assert tuple(loads_in.read(loads_in.write(model)) for model in MODELS) == LINES


@pytest.mark.parametrize("text", [None, "null", json.dumps(["0123456789abcdef", "vllm"])])
def test_what_other_code_found_is_not_taken(text: str | None) -> None:
    assert loads_in.read(text) is None


def test_what_depends_on_another_package_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    own = SimpleNamespace(library_names=lambda: ("swiglu",))
    monkeypatch.setattr(loads_in, "registry", own)
    assert loads_in.read(loads_in.write(MODELS[0])) is None


@pytest.mark.parametrize(
    "change", ["", "DELETE FROM trial_user_attributes WHERE key = 'loads_in'"], ids=["kept", "not kept"]
)
def test_an_entry_of_a_ledger_says_what_its_model_says(tmp_path, tiny_config, change: str) -> None:
    folder = RunFolder(tmp_path)
    ledger = ledger_module.create(folder.ledger, tiny_config, started="now")
    for number, model in enumerate(MODELS):
        ledger.propose(Proposal(number, model, (), "seed"), {})
    with sqlite3.connect(folder.ledger) as connection:
        connection.execute(change)
    for entry, model, line in zip(ledger.entries(), MODELS, LINES, strict=True):
        assert (entry.loads_in, entry.shorthand, entry.size) == (
            line,
            model.shorthand,
            (model.width, model.depth),
        )
        assert entry.architecture == model
