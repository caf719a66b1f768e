"""The latency table: what each layer costs on a device, and from it, by addition, what a whole model costs.

An entry is the time that one more layer, with its normalization and residual connection, adds to a model of
feed-forward networks. It holds for one phase, batch size and context. What a model has besides layers is an
entry too. Where a layer's cost depends on how much it remembers, entries at two contexts give a line a +
b·context.

A table belongs to one device in one state of its software. It is one JSON file. Several processes may extend
it at once.
"""

import hashlib
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import sqrt
from pathlib import Path
from typing import Literal, NamedTuple, Self

import torch
from pydantic import ValidationError

from operators.architecture import Architecture
from operators.base.errors import TableError, one_line
from operators.base.files import locked, write_whole
from operators.base.value import Value
from operators.vision.vision_language import Model, VisionLanguage
from profiler.device.device import Device
from profiler.measuring.pace import usual_ms
from profiler.table.parts import (
    Entry,
    Part,
    Phase,
    Point,
    depends_on_context,
    image_parts_of,
    language_point,
    layer_key,
    part_key,
    parts_of,
    place,
    rest_of,
)
from profiler.vision_point import PICTURE, Picture

_PACKAGE = Path(__file__).resolve().parent.parent.parent
# A line serves contexts up to this many times the longest that was measured, because meta tokens lengthen
# them.
_BEYOND = 1.125


@dataclass(frozen=True)
class Estimate:
    """A predicted time.

    ms: the time (ms)
    error_ms: the entries' own errors added up, without the error that adding layers makes (ms)
    """

    ms: float
    error_ms: float


@dataclass(frozen=True)
class Prediction:
    """The predicted speed of one model.

    decode: the time of one decode step of the whole batch
    prefill: the time of reading a prompt
    decode_tokens_per_s: tokens of the whole batch in a second of such steps
    """

    decode: Estimate
    prefill: Estimate
    decode_tokens_per_s: float


class Validation(Value):
    """How far predictions for models of one space were off at one point.

    See `profiler.table.validate.Accuracy`.

    space: digest of the space's settings
    phase, batch, context, images, picture: the point
    models: how many models were measured
    p95: 95th percentile of |predicted / measured − 1|
    """

    space: str
    phase: Phase
    batch: int
    context: int
    images: int = 0
    picture: Picture = PICTURE
    models: int
    p95: float


class _File(Value):
    """A table as it is stored."""

    format: Literal[3] = 3
    conditions: dict[str, str]
    validations: tuple[Validation, ...] = ()
    entries: tuple[Entry, ...]


class _Costs(NamedTuple):
    ms: float
    error_ms: float


def conditions(device: Device) -> dict[str, str]:
    """What an entry's time depends on besides its part.

    That is the device, the number format, the versions, and the code of the operators.
    """
    found = {
        "name": device.name,
        "dtype": str(device.dtype).removeprefix("torch."),
        **device.versions(),
        "code": _code(),
    }
    if device.torch_device.type == "cpu":
        # A CPU's times are given at one pace. Another measurement of the anchor would make it another unit.
        found |= {"threads": str(torch.get_num_threads()), "anchor_ms": f"{usual_ms(device):.4g}"}
    return found


@cache
def _code() -> str:
    """A digest of the files that decide which kernels run."""
    files = [
        *(_PACKAGE / "operators").rglob("*.py"),
        *(_PACKAGE / "operators").rglob("*.json"),
        _PACKAGE / "profiler" / "measuring" / "decoder.py",
    ]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(str(file.relative_to(_PACKAGE)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def default_path(device: Device, *, folder: Path = Path("results/tables")) -> Path:
    """Where the table of a device lies: one file for each set of conditions."""
    found = conditions(device)
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:8]
    return folder / f"{device.label.partition(':')[0]}-{digest}.json"


class LatencyTable:
    """The entries of one device.

    Entries that other processes add to the file are seen after `add`, and by opening the file again.
    """

    def __init__(
        self,
        path: Path,
        conditions: Mapping[str, str],
        entries: Iterable[Entry] = (),
        validations: Iterable[Validation] = (),
    ) -> None:
        self.path, self.conditions = path, dict(conditions)
        self._validations: dict[tuple[str, Point], Validation] = {}
        self._entries: dict[Hashable, dict[int, Entry]] = {}
        self._costs: dict[tuple[Phase, int, int], dict[Hashable, _Costs]] = {}
        self._take(entries, validations)

    @classmethod
    def open(cls, path: Path, device: Device) -> Self:
        """The table in that file; an empty one where there is no file.

        Raises TableError for a damaged table, or one of other conditions.
        """
        found = conditions(device)
        if not path.exists():
            return cls(path, found)
        table = cls.read(path)
        _require_same(path, table.conditions, found)
        return table

    @classmethod
    def read(cls, path: Path) -> Self:
        """The table in that file, of whatever device, to be looked at.

        Raises TableError where it cannot be read or is damaged.
        """
        try:
            stored = _File.model_validate_json(path.read_bytes())
        except OSError as error:
            hint = (
                "; `frontrunner table build RUN.yaml` measures one"
                if isinstance(error, FileNotFoundError)
                else ""
            )
            raise TableError(f"{path}: cannot be read: {error.strerror}{hint}") from None
        except ValidationError as error:
            raise TableError(
                f"{path}: no latency table, or a damaged one: {one_line(error, limit=1)}"
            ) from None
        return cls(path, stored.conditions, stored.entries, stored.validations)

    @property
    def entries(self) -> tuple[Entry, ...]:
        found = [entry for by_context in self._entries.values() for entry in by_context.values()]
        return tuple(
            sorted(
                found,
                key=lambda entry: (
                    entry.phase,
                    entry.batch,
                    entry.width,
                    entry.name,
                    entry.details,
                    entry.context,
                ),
            )
        )

    @property
    def validations(self) -> tuple[Validation, ...]:
        return tuple(self._validations.values())

    def validation(self, space: str, point: Point) -> Validation | None:
        """The latest validation by models of that space at that point; None where there is none."""
        return self._validations.get((space, point))

    def add(self, entries: Iterable[Entry], validations: Iterable[Validation] = ()) -> None:
        """Stores entries and validations, beside those that other processes have stored by now.

        Raises TableError where the stored ones belong to other conditions.
        """
        with _alone(self.path):
            if self.path.exists():
                stored = type(self).read(self.path)
                _require_same(self.path, stored.conditions, self.conditions)
                self._take(stored.entries, stored.validations)
            self._take(entries, validations)
            file = _File(conditions=self.conditions, validations=self.validations, entries=self.entries)
            content = file.model_dump(mode="json")
            rows = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in content.pop("entries"))
            head = json.dumps(content, indent=1).removesuffix("\n}")
            write_whole(self.path, f'{head},\n "entries": [\n{rows}\n]}}\n'.encode())

    def missing(self, architectures: Iterable[Model], points: Sequence[Point]) -> tuple[Part, ...]:
        """The parts to measure before these architectures can be predicted at these points, each once.

        For a layer on a line, that is the context asked for and half of it. Any other context that this line
        then serves is left out.
        """
        parts = {
            (place(part), part.context): part
            for architecture in architectures
            for point in points
            for part in parts_of(architecture, point)
        }
        found: list[Part] = []
        contexts: dict[Hashable, set[int]] = {}
        for part in sorted(parts.values(), key=lambda part: part.context):
            known = contexts.setdefault(place(part), set(self._entries.get(place(part), ())))
            if not _served(part, known):
                wanted = {part.context, part.context // 2} if depends_on_context(part) else {part.context}
                found += [
                    part.model_copy(update={"context": context})
                    for context in sorted(wanted - known, reverse=True)
                ]
                known |= wanted
        return tuple(found)

    def predict(self, architecture: Model, *, batch: int, context: int) -> Prediction:
        """Latency and throughput of a model, by arithmetic alone.

        Raises TableError that names the missing entries.
        """
        decode = self.latency(architecture, Point("decode", batch, context))
        prefill = self.latency(architecture, Point("prefill", batch, context))
        return Prediction(decode, prefill, batch / decode.ms * 1e3)

    def latency(self, architecture: Model, point: Point) -> Estimate:
        """The time of a model at one point: the sum over its layers and its rest.

        Raises TableError that names the missing entries.
        """
        if isinstance(architecture, VisionLanguage):
            return self._seeing(architecture, point)
        phase, batch, tokens = point.phase, point.batch, point.context + architecture.meta_tokens
        known = self._costs.setdefault((phase, batch, tokens), {})
        width, rope = architecture.width, architecture.rope is not None
        ms = variance = 0.0
        counts = Counter([layer_key(layer, width, rope) for layer in architecture.layers])
        counts[(width, *rest_of(architecture).__dict__.values())] = 1
        for key, count in counts.items():
            costs = known.get(key)
            if costs is None:
                self._learn(architecture, point)
                costs = known[key]
            ms += count * costs.ms
            # A layer's error is the same every time the layer occurs, so that its errors add up.
            variance += (count * costs.error_ms) ** 2
        return Estimate(ms, sqrt(variance))

    def _seeing(self, value: VisionLanguage, point: Point) -> Estimate:
        """The same of a model that sees: the parts before its language model, and the language model."""
        before = [(self._found(part), count) for part, count in image_parts_of(value, point)]
        if any(costs is None for costs, _ in before):
            raise self._lacking(value, point)
        language = self.latency(value.language, language_point(value, point))
        times = [(count * costs.ms, count * costs.error_ms) for costs, count in before if costs is not None]
        ms = language.ms + sum(each for each, _ in times)
        return Estimate(ms, sqrt(language.error_ms**2 + sum(error**2 for _, error in times)))

    def _learn(self, architecture: Architecture, point: Point) -> None:
        """Looks up every part of a language model once, for all later sums."""
        known = self._costs[point.phase, point.batch, point.context + architecture.meta_tokens]
        for part in parts_of(architecture, point):
            costs = self._found(part)
            if costs is None:
                raise self._lacking(architecture, point)
            known[part_key(part)] = costs

    def _lacking(self, model: Model, point: Point) -> TableError:
        lacking = self.missing([model], [point])
        some = "; ".join(map(str, lacking[:3])) + (
            f"; and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        )
        return TableError(
            f"{self.path}: {len(lacking)} entries are missing, which `frontrunner "
            f"table build` measures: {some}"
        )

    def _found(self, part: Part) -> _Costs | None:
        """The cost of a part, from its own entry or a line through two entries; None without either."""
        by_context = self._entries.get(place(part), {})
        if not _served(part, by_context.keys()):
            return None
        entry = by_context.get(part.context)
        if entry is not None:
            return _Costs(entry.ms, entry.error_ms)
        measured = sorted(by_context)
        right = min(bisect_left(measured, part.context), len(measured) - 1)
        low, high = by_context[measured[right - 1]], by_context[measured[right]]
        share = (part.context - low.context) / (high.context - low.context)
        return _Costs(
            ms=low.ms + share * (high.ms - low.ms),
            error_ms=sqrt(((1 - share) * low.error_ms) ** 2 + (share * high.error_ms) ** 2),
        )

    def _take(self, entries: Iterable[Entry], validations: Iterable[Validation]) -> None:
        for entry in entries:
            self._entries.setdefault(place(entry), {})[entry.context] = entry
        for found in validations:
            point = Point(found.phase, found.batch, found.context, found.images, found.picture)
            self._validations[found.space, point] = found
        self._costs.clear()


def _served(part: Part, contexts: Collection[int]) -> bool:
    """Whether entries of the part's kind at these contexts give its cost."""
    if part.context in contexts:
        return True
    return (
        depends_on_context(part)
        and len(contexts) > 1
        and min(contexts) <= part.context <= _BEYOND * max(contexts)
    )


def _require_same(path: Path, stored: Mapping[str, str], here: Mapping[str, str]) -> None:
    names = [name for name in {**stored, **here} if stored.get(name) != here.get(name)]
    if names:
        said = "; ".join(
            f"{name} {stored.get(name, 'none')} there, {here.get(name, 'none')} here" for name in names
        )
        raise TableError(f"{path}: measured under other conditions: {said}")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keeps other processes from changing the table.

    Raises TableError where the table's folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f".{path.name}.lock")):
            yield
    except OSError as error:
        raise TableError(f"{path}: cannot be written: {error.strerror}") from None
