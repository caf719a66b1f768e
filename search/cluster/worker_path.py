"""The folders that workers import from: those of the driver, and not the one that it was started in."""

import os
import sys
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import Any

INSTALLED = ("site-packages", "dist-packages")
"""Names of folders with installed packages. Every Python has its own on its path."""


def driver_path() -> list[str]:
    """The folders that this process searches before the standard library, in its order.

    The folder of these packages is one of them unless they are installed: an editable install may find them
    by other means than the path, which the Python of a running cluster may lack.
    """
    library = Path(os.__file__).parent
    first = takewhile(lambda folder: folder != library, (Path(entry).absolute() for entry in sys.path))
    folders = [folder for folder in first if folder.exists()]
    here = Path(__file__).resolve().parents[2]
    if here.name not in INSTALLED and here not in (folder.resolve() for folder in folders):
        folders.append(here)
    return [str(folder) for folder in folders]


class _DriverPath(list[str]):
    """The list that Ray extends with the start folder and the script's. It takes `driver_path` instead.

    Ray extends it with nothing for a job that brings its code.
    """

    def extend(self, folders: Iterable[str]) -> None:
        # Ray's workers put one after the other at the front of their path.
        super().extend(reversed(driver_path()))


def job_config(address: str) -> Any:
    """An argument of `ray.init`, each time a new one: its workers import what this process imports.

    By Ray's own rule the start folder would be the first on their path. A folder `search` or a file
    `profiler.py` there would be imported in the place of these packages.

    address: as for `ray.init`.
    """
    # Ray's client (ray://) does not send the start folder, and its server could not read our list.
    if "://" in address:
        return None
    from ray.job_config import JobConfig

    config = JobConfig()
    # Ray has no public setting for this path.
    config._py_driver_sys_path = _DriverPath()
    return config
