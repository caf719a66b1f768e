"""Which slow libraries the program does not import before it needs them: users wait for each."""

import json
import subprocess
import sys

import pytest

# Seconds of CPU: torch 2.5, scipy.stats 1.4, matplotlib 1, transformers 1, ray 1, optuna 0.6, pandas 0.5.
LIBRARIES = ("torch", "scipy.stats", "matplotlib", "transformers", "ray", "optuna", "pandas")
# Each part is imported after the ones before it, in one process.
PARTS = {
    "python -m search.cli.main --help": set(),
    "profiler.process.worker_process": {"torch"},
    "search.cluster.worker": {"torch"},
    "frontrunner": {"torch", "optuna"},
}
CODE = """
import contextlib, importlib, io, json, runpy, sys
libraries, parts, imported = json.loads(sys.argv[1]), json.loads(sys.argv[2]), {}
for part in parts:
    if part.startswith("python -m "):
        sys.argv = part.split()[2:]
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        importlib.import_module(part)
    imported[part] = [name for name in libraries if name in sys.modules]
print(json.dumps(imported))
"""


@pytest.mark.usefixtures("cold_python")
def test_slow_libraries_are_imported_where_they_are_needed() -> None:
    command = [sys.executable, "-c", CODE, json.dumps(LIBRARIES), json.dumps(list(PARTS))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {part: set(names) for part, names in json.loads(done.stdout).items()} == PARTS
