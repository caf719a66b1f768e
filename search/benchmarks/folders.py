"""Folders of searches and experiments in which a benchmark that was interrupted goes on."""

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from operators.value import Value
from profiler.device import open_device
from proxy_train.data import DataSettings
from proxy_train.prepare import prepared
from search.benchmarks.commit import commit

RESULTS = Path("results")


def folder(kind: str, settings: Value, data: DataSettings, device: str) -> Path:
    """Another one for other settings, another text, commit or device, or other versions: a record is of one of each."""
    identity = [
        settings.model_dump(mode="json"),
        prepared(data).name,
        commit(),
        open_device(device).describe(),
    ]
    return RESULTS / f"bench-{kind}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]}"


def retire(folders: Iterable[Path]) -> None:
    """Gives them other names, once what they hold is on record: from here on the same benchmark begins afresh."""
    for each in folders:
        each.rename(f"{each}-{datetime.now():%Y%m%d-%H%M%S-%f}")
