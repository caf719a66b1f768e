"""The trackers of a run, by name."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from operators.base.errors import ConfigError, flat
from search.config.trackers import PACKAGES
from search.runs.trackers.contract import Begun, Tracked, Tracker

OnFailure = Callable[[str, str], None]


def require(names: Sequence[str]) -> None:
    """Raises ConfigError for a tracker whose package is not installed."""
    for name in names:
        package = PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"trackers: {name} needs the package {package}, which is not installed: "
                f"`pip install {package}` installs it"
            )


class Trackers:
    """The open trackers of a run. One that fails is told of and left alone: the search goes on."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        run: str,
        folder: Path,
        config: Mapping[str, Any],
        on_failure: OnFailure,
    ) -> None:
        """Opens them.

        names: of the trackers.
        run: its name.
        folder: in which each tracker gets a folder of its own.
        config: of the run, as JSON takes it.
        on_failure: hears the name of a tracker and why it failed.

        Raises ConfigError for one that is not installed.
        """
        require(names)
        self._on_failure = on_failure
        self._open: dict[str, Tracker] = {}
        for name in names:
            self._guarded(name, partial(self._begin, name, Begun(run, folder / name, config)))

    def evaluated(self, tracked: Tracked) -> None:
        for name, tracker in list(self._open.items()):
            self._guarded(name, partial(tracker.evaluated, tracked))

    def close(self) -> None:
        for name, tracker in list(self._open.items()):
            self._guarded(name, tracker.close)
        self._open.clear()

    def _begin(self, name: str, begun: Begun) -> None:
        begun.folder.mkdir(parents=True, exist_ok=True)
        module = importlib.import_module(
            f"search.runs.trackers.{name}"
        )  # its library takes a while to import
        self._open[name] = module.open_tracker(begun)

    def _guarded(self, name: str, action: Callable[[], None]) -> None:
        """What goes wrong in a tracker, a library of others, does not end a search of hours."""
        try:
            action()
        except Exception as error:
            self._open.pop(name, None)
            self._on_failure(name, flat(error, at_most=300) or type(error).__name__)
