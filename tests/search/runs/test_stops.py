"""The way of a configuration from the command `search` to the first recorded result, counted.

A stop is a function of ours that is given the configuration, a part of it, or a value that holds one of them,
such as a job. A method of such a value is no stop of its own. The process that measures counts too.
Functions that take a part and keep it, as a surrogate its settings, are stops like those that pass it on.

The same counter finds 76 in the commit before search/ was split into folders (994e6aa). Since then trackers,
kernels that are compiled meanwhile and evaluations that share a GPU have added 3.

    pytest tests/search/runs/test_stops.py -rP

prints the stops in their order.
"""

import dataclasses
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from operators.base.value import Value
from profiler.device.device import open_device
from profiler.measuring.anchor import Anchor
from profiler.process import worker_process
from profiler.process.worker import ProfilingWorker, Request
from search.cli import app
from search.config.run import RunConfig
from search.objectives import Constraint, Objective
from search.runs.ledger import Ledger

ROOT = Path(worker_process.__file__).parents[2]
PACKAGES = ("operators", "profiler", "proxy_train", "search")
# A ratchet: where a change makes the way shorter, the number here becomes smaller; it never grows.
MOST = 33


def parts(config: RunConfig) -> Iterator[type]:
    """The classes of the configuration and of its sections."""
    yield RunConfig
    for name in RunConfig.model_fields:
        if isinstance(value := getattr(config, name), Value):
            yield type(value)


class Stops:
    """Notes every stop by its file and name."""

    def __init__(self, config: RunConfig) -> None:
        self._parts = (*parts(config), Objective, Constraint)
        self.found: dict[tuple[str, str], str] = {}
        self._files: dict[CodeType, str] = {}  # of functions that are ours and not found yet, else empty

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        file = self._files.get(code)
        if file is None:
            path = Path(code.co_filename)
            ours = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PACKAGES
            named = not code.co_name.startswith("<")
            file = self._files[code] = str(path.relative_to(ROOT)) if ours and named else ""
        if not file:
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        held = [name for name in names if name != "self" and self._holds(frame.f_locals.get(name))]
        if held:
            self.found[file, code.co_qualname] = ", ".join(held)
            self._files[code] = ""

    def _holds(self, value: Any) -> bool:
        if isinstance(value, tuple):
            return any(isinstance(each, self._parts) for each in value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = (getattr(value, field.name, None) for field in dataclasses.fields(value))
            return isinstance(value, self._parts) or any(isinstance(each, self._parts) for each in fields)
        return isinstance(value, self._parts)


class Recorded(BaseException):
    """The way is at its end."""


def test_the_way_of_a_configuration_is_short(
    tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, device = ProfilingWorker._asked, open_device("cpu")

    def on_both_sides(worker: ProfilingWorker, child: Any, request: Request, deadline_s: float) -> Any:
        answer = asked(worker, child, request, deadline_s)
        if isinstance(request, Request):
            worker_process._serve(request, device, Anchor(device))
        return answer

    def recorded(*_: object) -> None:
        raise Recorded

    monkeypatch.setattr(ProfilingWorker, "_asked", on_both_sides)
    monkeypatch.setattr(Ledger, "record", recorded)
    proxy = tiny_config.proxy.model_copy(update={"tokens": 256})
    path = tmp_path / "one.yaml"
    path.write_text(tiny_config.model_copy(update={"candidates": 1, "proxy": proxy}).to_yaml())
    stops = Stops(tiny_config)
    threading.settrace(stops)
    sys.settrace(stops)
    try:
        with pytest.raises(Recorded):
            app.search(path, name="one", results=tmp_path, executor=app.ExecutorName.inline)
    finally:
        sys.settrace(None)
        threading.settrace(None)
    lines = [
        f"{number:3} {file}: {name}({held})"
        for number, ((file, name), held) in enumerate(stops.found.items(), 1)
    ]
    listed = "\n".join(lines)
    print(listed)  # noqa: T201 - shown by pytest -rP
    assert {"start", "drive", "evaluate", "_serve", "train"} <= {name for _, name in stops.found}, listed
    assert len(lines) <= MOST, listed
