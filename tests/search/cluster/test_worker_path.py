"""Where workers import from, and what is said when they cannot."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from operators.base.errors import RunError
from search.cluster import ray_executor
from search.cluster.ray_executor import RayExecutor
from search.cluster.worker_path import driver_path
from tests.helpers.local_cluster import nodes

ROOT = Path(__file__).parents[3]
# Names of ours, of libraries and of Python's own that a user may well give to a file.
SHADOWS = ("search/__init__", "operators/__init__", "profiler", "numpy", "ray", "torch", "pickle", "random")
# Tells the path of a driver that is started in some folder.
TELL = "from search.cluster.worker_path import driver_path; print(*driver_path(), sep='\\n')"


def shadow(folder):
    """Writes modules that must not be imported."""
    for name in SHADOWS:
        file = folder / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text("raise ImportError('imported from the start folder')\n")


def path_of(folder, *options, **environment):
    """`driver_path` of a process that is started in a folder."""
    command = [sys.executable, *options, "-c", TELL]
    environment = {**os.environ, **environment}
    said = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    # Ray puts a folder with libraries of its own onto the path of processes that have imported it.
    return [Path(line) for line in said.stdout.splitlines() if "thirdparty_files" not in line]


def test_workers_get_the_drivers_folders_and_the_start_folder_only_if_it_is_one(tmp_path):
    ours, others = tmp_path / "ours", tmp_path / "others"
    ours.mkdir()
    others.mkdir()
    both = os.pathsep.join(map(str, (others, ROOT)))
    assert path_of(ours, "-P", PYTHONPATH=both) == [others, ROOT]
    assert path_of(ours, PYTHONPATH=both) == [ours, others, ROOT]


def test_packages_outside_the_path_are_added_unless_they_are_installed(monkeypatch):
    library = str(Path(os.__file__).parent)
    monkeypatch.setattr(sys, "path", [library, str(ROOT)])
    assert driver_path() == [str(ROOT)]
    monkeypatch.setattr("search.cluster.worker_path.INSTALLED", (ROOT.name,))
    assert driver_path() == []


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            "The actor died, \x1b[36mray::Worker.__init__()\x1b[39m (pid=7, ip=127.0.0.1)\n    ^^^^\n"
            '  File "/a/b.py", line 1, in <module>\n    import c\nOSError: one\n  two\n\nthree',
            "OSError: one two three",
        ),
        (
            "The actor died, \x1b[36mray::Worker.__init__()\x1b[39m (pid=7)\n   ^^^\nKeyError: 1",
            "KeyError: 1",
        ),
        (
            "The actor died.\n\tpid: 7\n\tip: 127.0.0.1\nExit code 2.\n\nSee the log.",
            "The actor died. Exit code 2.",
        ),
        ("\x1b[31mno room\x1b[0m", "no room"),
        ('Refused:\n  File "a", line 1', 'Refused: File "a", line 1'),
    ],
)
def test_of_rays_messages_the_reason_is_kept(message, line):
    assert ray_executor._line(RuntimeError(message)) == line


@pytest.mark.slow
@pytest.mark.parametrize("running", [False, True])
def test_a_start_folder_with_modules_of_the_same_names_harms_no_search(call, tiny_config, tmp_path, running):
    """On a cluster that the search starts, and on a running one."""
    (tmp_path / "run.yaml").write_text(tiny_config.model_copy(update={"candidates": 1}).to_yaml())
    command = ["search", "run.yaml", "--name", "first"]
    with nodes() if running else nullcontext() as cluster:
        shadow(tmp_path)
        code, said, error = call(*command, *(["--address", cluster.address] if running else []))
    assert (code, error) == (0, "")
    assert "frontier of first: 1 of 1 candidates" in said


@pytest.mark.slow
def test_workers_that_die_at_once_say_why_in_one_line(tmp_path, monkeypatch):
    """The module is whole here and fails in every other process."""
    (tmp_path / "only_here.py").write_text(
        f"import os\nif os.getpid() != {os.getpid()}:\n    import absent_library\nclass Worker:\n"
        "    def __init__(self, device): pass\n"
        "    def ready(self, *, alone, kinds): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ray_executor, "STILLBORN", 0)
    from only_here import Worker

    with pytest.raises(RunError) as caught:
        RayExecutor(workers=1, device="cpu", deadline_s=1, worker=Worker)
    assert str(caught.value) == (
        "no worker can be started, 1 in a row died at once: "
        "ModuleNotFoundError: No module named 'absent_library'"
    )
