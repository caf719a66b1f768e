"""Settings and folders of the benchmarks that are studies.

The folder's name is made of everything that the record depends on. An interrupted study continues there when
the same is measured again.
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
    """Loads configs/NAME_cpu.yaml or configs/NAME_h100.yaml, with `device` in place of the file's.

    Raises ConfigError.
    """
    path = Path(f"{name}_{_CONFIGS[open_device(device).torch_device.type]}")
    return experiment.load(of, path).model_copy(update={"device": device})


def folder(settings: ExperimentSettings) -> Path:
    """Returns the folder in which a study with these settings keeps its trainings."""
    return record.folder(settings.kind, settings, settings.data, settings.device)
