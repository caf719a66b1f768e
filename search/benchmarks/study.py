"""Settings and folders of the benchmarks that are studies.

The folder's name is made of everything that the record depends on. A study that was interrupted goes on there
when the same is measured again.
"""

from pathlib import Path
from typing import TypeVar

from profiler.device.device import open_device
from search.benchmarks import record
from search.studies import experiment
from search.studies.experiment import ExperimentSettings

S = TypeVar("S", bound=ExperimentSettings)
_CONFIGS = {"cpu": "cpu", "cuda": "h100"}


def load(of: type[S], name: str, device: str) -> S:
    """The settings of configs/NAME_cpu.yaml or configs/NAME_h100.yaml, for `device`. Raises ConfigError."""
    path = Path(f"{name}_{_CONFIGS[open_device(device).torch_device.type]}")
    return experiment.load(of, path).model_copy(update={"device": device})


def folder(settings: ExperimentSettings) -> Path:
    """Where a study with these settings keeps its trainings."""
    return record.folder(settings.kind, settings, settings.data, settings.device)
