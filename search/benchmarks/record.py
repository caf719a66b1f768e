"""Records of benchmarks, the code that they measured, and the folders where interrupted ones continue."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from operators.base.errors import ConfigError
from operators.base.files import write_whole
from operators.base.value import Value
from profiler.device.device import Device, open_device
from profiler.device.names import computes_on
from proxy_train.text.data_settings import DataSettings
from proxy_train.text.prepare import prepared
from search.benchmarks.benchmark import Measured

RESULTS = Path("results")
RECORDS = RESULTS / "benchmarks"
# The keys that readers of a record use.
_READ = ("figures", "samples", "device", "started", "command")


def default_path(name: str, device: Device) -> Path:
    """Returns where the record of a benchmark on a kind of device lies, unless `--out` names a place."""
    return RECORDS / device.label.partition(":")[0] / f"{name}.json"


def write(path: Path, name: str, measured: Measured, *, device: Device, started: datetime) -> None:
    """Writes the files of a benchmark beside `path`, then its record as JSON to `path`. Raises RunError."""
    record = {
        "name": name,
        "figures": dict(measured.figures),
        "device": device.describe(),
        "started": started.isoformat(timespec="seconds"),
        "commit": commit(),
        "command": " ".join(["frontrunner", *sys.argv[1:]]),
        "samples": measured.samples,
    }
    content = (json.dumps(record, indent=1) + "\n").encode()
    for suffix, beside in measured.files.items():
        write_whole(path.with_suffix(f".{suffix}"), beside)
    write_whole(path, content)


def read(path: Path) -> Mapping[str, Any]:
    """Reads the record in a file. Raises ConfigError where the file is missing or holds something else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a record: {error}") from None
    known = record if isinstance(record, dict) else {}
    if absent := [key for key in _READ if key not in known]:
        raise ConfigError(f"{path}: not a record: it has no {', '.join(absent)}")
    return known


def folder(kind: str, settings: Value, data: DataSettings, device: str) -> Path:
    """Returns the folder of a run that continues when the same is measured again.

    Its name depends on settings, text, commit, device and versions. A record is of one of each, so a run that
    began with others is left alone.
    """
    identity = [
        settings.model_dump(mode="json"),
        prepared(data).name,
        commit(),
        open_device(computes_on(device)).describe(),
    ]
    return RESULTS / f"bench-{kind}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]}"


def retire(folders: Iterable[Path]) -> None:
    """Renames folders whose content is on record, so that the same benchmark begins afresh."""
    for each in folders:
        each.rename(f"{each}-{datetime.now():%Y%m%d-%H%M%S-%f}")


def commit() -> str:
    """Returns the commit that is measured, with `+` if files differ from it; `unknown` outside a checkout."""
    try:
        where = Path(__file__).parent
        head = _git("rev-parse", "--short=12", "HEAD", where=where)
        changed = _git("status", "--porcelain", "--", ":/", ":(top,exclude)results", where=where)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def _git(*words: str, where: Path) -> str:
    done = subprocess.run(  # noqa: S603 - the words are ours
        ["git", *words],  # noqa: S607
        cwd=where,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
