"""A run of Weights & Biases. It is offline, in files, unless WANDB_MODE says otherwise."""

import os

import wandb

from search.runs.trackers.contract import Begun, Tracked


class WeightsAndBiases:
    def __init__(self, begun: Begun) -> None:
        self._run = wandb.init(
            project="frontrunner",
            name=begun.run,
            dir=str(begun.folder),
            config=dict(begun.config),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("scores/*", step_metric="evaluation")
        self._run.define_metric("training_loss/*", step_metric="tokens")

    def evaluated(self, tracked: Tracked) -> None:
        for tokens, loss in tracked.curve:
            self._run.log({"tokens": tokens, f"training_loss/{tracked.number:05d}": loss})
        scores = {f"scores/{name}": value for name, value in tracked.scores.items()}
        self._run.log(
            {"evaluation": tracked.order, "candidate": tracked.number, "status": tracked.status, **scores}
        )

    def close(self) -> None:
        self._run.finish()


open_tracker = WeightsAndBiases
