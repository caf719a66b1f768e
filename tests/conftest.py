"""Loads what the tests share into each process that runs tests."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

# The ledgers of runs wait for the disk after every step. In memory nothing waits.
MEMORY, ENOUGH_BYTES = Path("/dev/shm"), 4 * 2**30
if (
    "TMPDIR" not in os.environ
    and os.access(MEMORY, os.W_OK)
    and shutil.disk_usage(MEMORY).free > ENOUGH_BYTES
):
    os.environ["TMPDIR"], tempfile.tempdir = str(MEMORY), None

# Threads of a model that wait for each other would else keep cores busy that other tests need.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_configure(config: pytest.Config) -> None:
    """With `-n 3` one more process hands tests out. The others would wait until it had imported all of it."""
    if "PYTEST_XDIST_WORKER" in os.environ or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("tests.fixtures")
