"""Copies this program into a folder that another machine can run it from."""

import shutil
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("operators", "profiler", "proxy_train", "search")


def write_own_code(folder: Path) -> None:
    """Copies the packages into a folder, with the metadata that tells Python their version."""
    here = Path(__file__).resolve().parent.parent.parent
    for name in PACKAGES:
        shutil.copytree(here / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    number = version("frontrunner")
    described = folder / f"frontrunner-{number}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: frontrunner\nVersion: {number}\n", encoding="utf-8"
    )
