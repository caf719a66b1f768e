"""TensorBoard's event files, which `tensorboard --logdir RUN/trackers/tensorboard` shows.

Scores have the number of the evaluation as their step. Each candidate has a folder of its own with its
training loss, whose step is the tokens.
"""

from tensorboardX import SummaryWriter

from search.runs.trackers.contract import Begun, Tracked

_FLUSH_S = 2  # after which TensorBoard can read a score, and a kill cannot lose it


class TensorBoard:
    def __init__(self, begun: Begun) -> None:
        self._folder = begun.folder
        self._scores = SummaryWriter(str(self._folder / "scores"), flush_secs=_FLUSH_S)

    def evaluated(self, tracked: Tracked) -> None:
        for name, value in tracked.scores.items():
            self._scores.add_scalar(name, value, tracked.order)
        self._scores.add_text(
            "candidates", f"{tracked.number}: {tracked.status}: `{tracked.architecture}`", tracked.order
        )
        if tracked.curve:
            with SummaryWriter(str(self._folder / f"candidate-{tracked.number:05d}")) as curve:
                for tokens, loss in tracked.curve:
                    curve.add_scalar("training_loss", loss, tokens)

    def close(self) -> None:
        self._scores.close()


open_tracker = TensorBoard
