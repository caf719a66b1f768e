"""Which slow libraries the program does not import before it needs them: users wait for each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from operators import Architecture
from search.config.run import RunConfig
from search.evaluation.outcome import Evaluation
from search.runs import ledger as ledger_module
from search.searchers.contract import Proposal

# Seconds of CPU: torch 2.5, scipy.stats 1.4, matplotlib 1, transformers 1, ray 1, optuna 0.6, pandas 0.5,
# sqlalchemy 0.5.
LIBRARIES = ("torch", "scipy.stats", "matplotlib", "transformers", "ray", "optuna", "pandas", "sqlalchemy")
# What only reads a run.
READING = (
    "runs",
    "status run",
    "watch run --once",
    "watch run --json",
    "frontier run",
    "frontier run --all --json",
    "frontier run --format csv",
    "frontier run --objectives loss,params --where params<=6e6 --sort width --format markdown",
)
# Each part is imported after the ones before it, in one process.
PARTS = {
    "python -m search.cli.main --help": set(),
    **{f"python -m search.cli.main {command}": set() for command in READING},
    "profiler.process.worker_process": {"torch"},
    "search.cluster.worker": {"torch"},
    "frontrunner": {"torch"},
}
CODE = """
import contextlib, importlib, io, json, runpy, sys
libraries, parts, results, imported = *map(json.loads, sys.argv[1:3]), sys.argv[3], {}
for part in parts:
    if part.startswith("python -m "):
        sys.argv = part.split()[2:] + (["--results", results] if part != next(iter(parts)) else [])
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        assert out.getvalue(), part
    else:
        importlib.import_module(part)
    imported[part] = [name for name in libraries if name in sys.modules]
print(json.dumps(imported))
"""


@pytest.mark.usefixtures("cold_python")
def test_slow_libraries_are_imported_where_they_are_needed(tmp_path: Path, tiny_config: RunConfig) -> None:
    (tmp_path / "run").mkdir()
    ledger = ledger_module.create(tmp_path / "run" / "ledger.db", tiny_config, started="now")
    for number, shorthand in enumerate(("a f", "a r", "f a f")):
        model = Architecture.from_shorthand(shorthand, width=32, vocabulary=300)
        ledger.propose(Proposal(number, model, (), "seed"), {})
        metrics = {"loss": 3.0 - number, "decode_ms@b1": 1.0 + number, "params": 1000.0}
        ledger.record(number, Evaluation(status="ok", metrics=metrics, seed=0))
    command = [sys.executable, "-c", CODE, json.dumps(LIBRARIES), json.dumps(list(PARTS)), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {part: set(names) for part, names in json.loads(done.stdout).items()} == PARTS
