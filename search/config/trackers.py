"""The trackers that a run may have."""

from collections.abc import Mapping
from typing import Literal

TrackerName = Literal["tensorboard", "wandb", "mlflow"]
PACKAGES: Mapping[str, str] = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
"""Tracker -> the package that it needs, by the name to import and to install."""
