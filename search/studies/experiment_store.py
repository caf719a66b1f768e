"""The records of an experiment: one line of JSON for each training and each measured latency.

A line is whole as soon as it is there. One process at a time adds to the folder of an experiment, which lies
in `results/` as that of a run does. The next process drops a last line that a kill cut short. A record that
was acknowledged stays.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from operators.base.errors import RunError, one_line
from operators.base.files import write_whole
from operators.base.value import Value
from search.config.name import check_name
from search.runs.folder import RunFolder, find_folder

SETTINGS, RECORDS = "experiment.json", "records.jsonl"


class Training(Value):
    """One architecture trained once, or why it could not be.

    label: which architecture of the experiment.
    tokens, seed: what it was trained with.
    status, reason: `ok`, or how and why it failed.
    params: exact number of parameters.
    flops: forward FLOPs of one sequence of the training.
    loss: nats per token on the validation text; None where the status is not `ok`.
    seconds: wall time of all of it.
    scores: further figures of a model that sees, by metric; its loss is that of answers, its tokens are
        examples.
    warnings: signs of failed stages of such a model.
    """

    kind: Literal["training"] = "training"
    label: str
    tokens: int
    seed: int
    status: Literal["ok", "diverged", "out_of_memory", "unbuildable", "crashed"]
    reason: str = ""
    loss: float | None = None
    tokens_per_s: float | None = None
    seconds: float
    params: int
    flops: int
    scores: Mapping[str, float] = {}
    warnings: tuple[str, ...] = ()


class Latency(Value):
    """One architecture measured.

    label: which architecture of the experiment.
    decode_ms: by metric, as in `decode_ms@b1`, and other times of models that see; empty where the
        measurement failed.
    problem: why it failed.
    tainted: why the times are not to be trusted.
    """

    kind: Literal["latency"] = "latency"
    label: str
    decode_ms: Mapping[str, float] = {}
    tainted: tuple[str, ...] = ()
    problem: str = ""


class Rescaled(Value):
    """The size of a design that takes about as long as another architecture. It stays, once it is chosen.

    label: which architecture of the experiment takes as long.
    design: the design's name.
    digest: the design's.
    width, depth: the size.
    """

    kind: Literal["rescaled"] = "rescaled"
    label: str
    design: str
    digest: str
    width: int
    depth: int


AnyRecord = Training | Latency | Rescaled
_RECORD: TypeAdapter[AnyRecord] = TypeAdapter(Annotated[AnyRecord, Field(discriminator="kind")])


class Store:
    """All records of one experiment. Only the process inside `opened` may call `add`."""

    def __init__(self, folder: RunFolder, settings: Mapping[str, Any], records: Iterable[AnyRecord]) -> None:
        self.folder, self.settings = folder, settings
        self.trainings: dict[tuple[str, int, int], Training] = {}
        self.latencies: dict[str, Latency] = {}
        self.sizes: dict[tuple[str, str, str], Rescaled] = {}
        for record in records:
            self._take(record)

    def add(self, record: AnyRecord) -> None:
        """Writes a record that survives a kill or a crash; an error leaves the file as it was.

        Raises RunError.
        """
        path = self.folder.path / RECORDS
        size = path.stat().st_size if path.exists() else 0
        try:
            with path.open("ab") as file:
                file.write(record.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.truncate(path, size)
            raise RunError(f"{path}: cannot be written: {error.strerror}") from None
        self._take(record)

    def _take(self, record: AnyRecord) -> None:
        if isinstance(record, Training):
            self.trainings[record.label, record.tokens, record.seed] = record
        elif isinstance(record, Latency):
            self.latencies[record.label] = record
        else:
            self.sizes[record.label, record.design, record.digest] = record


@contextmanager
def opened(
    results: Path,
    name: str,
    *,
    settings: Mapping[str, Any],
    fixed: Mapping[str, Any],
    filled: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> Iterator[Store]:
    """Opens the experiment of that name for the one process that may add to it; makes it where it is missing.

    settings: of the experiment. They may differ from those of an earlier process in everything but `fixed`.
    fixed: what every result depends on.
    filled: adds the defaults of keys that are missing, because an earlier version did not know them.

    Raises RunError: for the folder of another experiment or of a run, where another process has the folder,
    and where it cannot be written.
    """
    folder = RunFolder(results / check_name(name))
    if folder.path.exists() and not (folder.path / SETTINGS).exists() and any(folder.path.glob("ledger.db")):
        raise RunError(f"{folder.path} is the folder of a run: choose another --name")
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder.path}: cannot be made: {error.strerror}") from None
    with folder.driving():
        file = folder.path / SETTINGS
        if file.exists():
            before = filled(_settings(file)["fixed"])
            changed = [key for key, value in filled(fixed).items() if before.get(key) != value]
            if changed:
                raise RunError(
                    f"{folder.path} was begun with another {', '.join(changed)}: expected "
                    "the same, or another --name"
                )
        write_whole(file, (json.dumps({"settings": settings, "fixed": fixed}, indent=1) + "\n").encode())
        records = folder.path / RECORDS
        if records.exists():
            content = records.read_bytes()
            os.truncate(records, content.rfind(b"\n") + 1)
        yield Store(folder, settings, _records(records))


def folder_of(results: Path, name: str) -> RunFolder:
    """Returns the folder of an experiment, by its name in `results` or a path to it. Raises RunError."""
    return find_folder(results, name, holds=SETTINGS, what="experiment")


def read(results: Path, name: str, *, kind: str) -> Store:
    """Reads the experiment of that name and kind (`law` …), without adding to it. Raises RunError."""
    folder = folder_of(results, name)
    found = _settings(folder.path / SETTINGS)
    if found["fixed"].get("kind") != kind:
        raise RunError(
            f"{folder.path}: expected the results of a {kind}, got those of a {found['fixed'].get('kind')}"
        )
    return Store(folder, found["settings"], _records(folder.path / RECORDS))


def _settings(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {"settings": dict(found["settings"]), "fixed": dict(found["fixed"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file}: not the settings of an experiment: {error}") from None


def _records(path: Path) -> list[AnyRecord]:
    """Returns all records but a last line that is not complete yet."""
    if not path.exists():
        return []
    found: list[AnyRecord] = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            found.append(_RECORD.validate_json(line))
        except ValidationError as error:
            raise RunError(f"{path}: line {number} is damaged: {one_line(error)}") from None
    return found
