"""A run of MLflow, in an SQLite file of the run's folder unless MLFLOW_TRACKING_URI names another place."""

import os
import re

from mlflow.tracking import MlflowClient

from search.runs.trackers.contract import Begun, Tracked

_EXPERIMENT = "frontrunner"
_ODD = re.compile(r"[^\w./ -]")  # of which no name of a metric may be made, as the @ of decode_ms@b1


class MLflow:
    def __init__(self, begun: Begun) -> None:
        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{begun.folder.resolve() / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=place)
        known = self._client.get_experiment_by_name(_EXPERIMENT)
        experiment = known.experiment_id if known else self._client.create_experiment(_EXPERIMENT)
        self._run = self._client.create_run(experiment, run_name=begun.run).info.run_id
        for section, value in begun.config.items():
            self._client.log_param(self._run, section, str(value)[:6000])

    def evaluated(self, tracked: Tracked) -> None:
        for name, value in tracked.scores.items():
            self._client.log_metric(self._run, _ODD.sub("/", name), value, step=tracked.order)
        for tokens, loss in tracked.curve:
            self._client.log_metric(self._run, f"training_loss/{tracked.number:05d}", loss, step=tokens)

    def close(self) -> None:
        self._client.set_terminated(self._run)


open_tracker = MLflow
