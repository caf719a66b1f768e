"""Formats figures for people, and gives them exactly for scripts.

People read a few digits with their unit. Scripts read every digit, and integers as integers.
"""

import math
from typing import Any

from profiler.metrics import MetricName
from search.objectives import base_of, metric_named

# SI prefixes by their size.
_PREFIXES = ((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"))
# Units that `formatted` writes behind the number.
_IN_CELLS = {"bytes": "B", "bytes/s": "B/s"}
# Counts have a prefix but no unit in their cells: the metrics' names contain it.
_COUNTS = ("parameters", "tokens/s")
# Units of metrics that are integers.
_WHOLE = ("parameters", "bytes", "rows")


def formatted(name: str, value: Any) -> str:
    """Formats a cell for people.

    It has three or four significant digits. Counts and bytes have SI prefixes, and bytes have their unit.
    """
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if hasattr(value, "item"):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    metric = metric_named(base_of(name))
    unit = metric.unit if metric is not None else ""
    if unit in _IN_CELLS:
        number, prefix = scaled(value)
        return f"{number} {prefix}{_IN_CELLS[unit]}"
    if unit in _COUNTS:
        return "".join(scaled(value))
    return digits(value) if isinstance(value, float) else str(value)


def digits(value: float) -> str:
    """Formats four significant digits, zeros at the end included: 3.870, 12.35, 1.235e+06."""
    return f"{value + 0.0:#.4g}".replace(".e", "e").rstrip(".")  # adding 0.0 makes -0.0 a plain zero


def scaled(value: float) -> tuple[str, str]:
    """Returns three significant digits, and the SI prefix that follows them: ("1.19", "M")."""
    for size, prefix in _PREFIXES:
        number = f"{value / size + 0.0:.3g}"
        if abs(float(number)) < 1000:
            return number, prefix
    size, prefix = _PREFIXES[-1]
    return f"{value / size:.0f}", prefix


def percent(share: float) -> str:
    """Formats two significant digits, or all before the point: 0.52%, 2%, 12%, 150%."""
    value = 100 * share
    return f"{value:.0f}%" if abs(value) >= 9.95 else f"{value:.2g}%"


def with_unit(name: str) -> str:
    """Returns the header of a metric's column.

    It has the unit where neither the metric's name nor its cells have it.
    """
    metric = metric_named(base_of(name))
    if metric is None or not metric.unit or metric.unit in (*_IN_CELLS, *_COUNTS):
        return name
    in_name = metric.unit.lower().replace("/", "_per_")  # as in decode_ms and energy_j_per_token
    return name if f"_{base_of(name)}".endswith(f"_{in_name}") else f"{name} [{metric.unit}]"


def unit_of(name: str) -> str:
    """Returns the unit of a metric where `formatted` does not write it; empty where it has none."""
    metric = metric_named(base_of(name))
    return metric.unit if metric is not None and metric.unit not in _IN_CELLS else ""


def exact_value(name: str, value: float) -> float | int:
    """Returns a metric as scripts read it: parameters, bytes and rows are integers."""
    metric = metric_named(base_of(name))
    whole = metric is not None and metric.unit in _WHOLE and float(value).is_integer()
    return int(value) if whole else value


def axis_label(metric: str) -> str:
    """The label of a metric, as `decode_ms [ms], batch 1, context 32768, H100`."""
    name = MetricName.parse(metric)
    known = metric_named(name.metric)
    unit = known.unit if known is not None else ""
    numbers = {"batch": name.batch, "context": name.context}
    parts = [f"{word} {number}" for word, number in numbers.items() if number is not None]
    kinds = [name.kind] if name.kind else []
    return ", ".join([f"{name.metric} [{unit}]" if unit else name.metric, *parts, *kinds])


def suffix_of(name: str) -> str | None:
    """Returns what `formatted` writes behind a number and its SI prefix; None where it writes neither."""
    metric = metric_named(base_of(name))
    unit = metric.unit if metric is not None else ""
    return _IN_CELLS.get(unit, "" if unit in _COUNTS else None)
