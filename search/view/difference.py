"""Two candidates beside each other: what differs between their architectures and their figures."""

import json
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from rich.console import Console

from operators import Architecture, VisionLanguage
from operators.architecture import Layer
from operators.vision.vision_language import Model
from search.evaluation.figures import formatted, percent
from search.runs.entry import Entry
from search.view.tables import MARK, spreads, taint_notes
from search.view.terminal_tables import Sheet, sheet, show

CHANGED, ADDED, REMOVED = "≠", "+", "-"


def difference(first: Entry, second: Entry) -> dict[str, Any]:
    """What differs, as JSON takes it.

    `keys` are those of the architectures beside their layers, `layers` the ones that were changed, added or
    removed with their numbers, and `metrics` all that both or one of them has.
    """
    keys = [_keys(entry.architecture) for entry in (first, second)]
    figures = [entry.evaluation.metrics if entry.evaluation else {} for entry in (first, second)]
    return {
        "keys": [
            {"key": key, "first": keys[0].get(key), "second": keys[1].get(key)}
            for key in dict.fromkeys((*keys[0], *keys[1]))
            if keys[0].get(key) != keys[1].get(key)
        ],
        "layers": _layers(_language(first.architecture).layers, _language(second.architecture).layers),
        "metrics": [
            {
                "metric": name,
                "first": figures[0].get(name),
                "second": figures[1].get(name),
                "ratio": _ratio(figures[0].get(name), figures[1].get(name)),
            }
            for name in dict.fromkeys((*figures[0], *figures[1]))
        ],
    }


def print_difference(console: Console, names: tuple[str, str], first: Entry, second: Entry) -> None:
    """Prints three tables: keys, layers and figures. names: of the two candidates."""
    found = difference(first, second)
    if not found["keys"] and not found["layers"]:
        console.print(f"{names[0]} and {names[1]} have the same architecture", soft_wrap=True)
    if found["keys"]:
        rows = [(row["key"], _text(row["first"]), _text(row["second"])) for row in found["keys"]]
        show(console, sheet(("key", *names), rows, words=("key", *names)))
    if found["layers"]:
        show(console, _layers_sheet(found["layers"], names))
    show(console, _figures_sheet(found["metrics"], names, (first, second)))


def _language(model: Model) -> Architecture:
    return model.language if isinstance(model, VisionLanguage) else model


def _keys(model: Model) -> dict[str, Any]:
    """The keys of an architecture without layers and name; parts of one that sees have their names before."""
    language = _language(model).model_dump(mode="json", exclude={"layers", "name"})
    if not isinstance(model, VisionLanguage):
        return language
    parts = model.model_dump(mode="json", include={"tower", "projector"})
    named = {f"{part}.{key}": value for part, keys in parts.items() for key, value in keys.items()}
    return {**named, **{f"language.{key}": value for key, value in language.items()}}


def _layers(first: Sequence[Layer], second: Sequence[Layer]) -> list[dict[str, Any]]:
    texts = [[layer_text(layer) for layer in layers] for layers in (first, second)]
    rows: list[dict[str, Any]] = []
    matcher = SequenceMatcher(a=texts[0], b=texts[1], autojunk=False)
    for kind, begin, end, other_begin, other_end in matcher.get_opcodes():
        if kind == "equal":
            continue
        # What was replaced stands beside what replaced it.
        for old, new in zip_longest(range(begin, end), range(other_begin, other_end)):
            rows.append(
                {
                    "sign": ADDED if old is None else REMOVED if new is None else CHANGED,
                    "first": None if old is None else {"layer": old, "text": texts[0][old]},
                    "second": None if new is None else {"layer": new, "text": texts[1][new]},
                }
            )
    return rows


def layer_text(layer: Layer) -> str:
    """A layer on one line: `attention (heads 2, …), rmsnorm before`."""
    return f"{layer.operator} ({shape_text(layer)}), {layer.norm} {layer.norm_position}"


def shape_text(layer: Layer) -> str:
    """The dimensions of a layer on one line."""
    values = layer.shape.model_dump().items()
    return ", ".join(
        f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in values
    )


def _ratio(first: float | None, second: float | None) -> float | None:
    return second / first if first and second is not None else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _layers_sheet(rows: Sequence[Mapping[str, Any]], names: tuple[str, str]) -> Sheet:
    cells = [
        (
            row["sign"],
            *(
                "" if side is None else f"{side['layer']} {side['text']}"
                for side in (row["first"], row["second"])
            ),
        )
        for row in rows
    ]
    headers = ("", *(f"layers of {name}" for name in names))
    return sheet(headers, cells, words=headers)


def _figures_sheet(
    rows: Sequence[Mapping[str, Any]], names: tuple[str, str], entries: tuple[Entry, Entry]
) -> Sheet:
    tainted, spread = [entry.tainted() for entry in entries], [spreads(entry) for entry in entries]

    def cell(row: Mapping[str, Any], side: int) -> str:
        value, name = row[("first", "second")[side]], row["metric"]
        if value is None:
            return ""
        error = f" ± {percent(spread[side][name])}" if name in spread[side] else ""
        return f"{formatted(name, value)}{MARK if name in tainted[side] else ''}{error}"

    cells = [
        (row["metric"], cell(row, 0), cell(row, 1), "" if row["ratio"] is None else f"{row['ratio']:.4g}")
        for row in rows
    ]
    notes = taint_notes({name: list(reasons.values()) for name, reasons in zip(names, tainted, strict=True)})
    return sheet(("metric", *names, "second / first"), cells, words=("metric",), notes=notes)
