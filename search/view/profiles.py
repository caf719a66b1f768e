"""Profiles of several architectures side by side, and the conditions that they were measured under."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from operators import Architecture
from operators.base.errors import ConfigError, one_line
from profiler.process.worker import ProfilingWorker
from profiler.profile import Conditions, Profile, ProfileSettings
from profiler.timing import Timing
from search.evaluation.figures import formatted, percent
from search.evaluation.profiling import Failure, profiled
from search.view.tables import MARK
from search.view.terminal_tables import Sheet, sheet, show

# For one architecture named on the command line, where a large model on a CPU may rightly take long.
DEADLINE_S = 3600.0
Titled = Sequence[tuple[str, Profile]]


@dataclass(frozen=True)
class Profiled:
    """What became of one architecture: its profile, or in words why it has none."""

    title: str
    profile: Profile | None
    problem: str = ""


def profile_settings(**values: Any) -> ProfileSettings:
    """Settings from the command line. Raises ConfigError."""
    try:
        return ProfileSettings(**values)
    except ValidationError as error:
        raise ConfigError(one_line(error)) from None


def profile_each(
    architectures: Sequence[tuple[str, Architecture]], settings: ProfileSettings, *, device: str, backend: str
) -> list[Profiled]:
    """Measures one after the other, all by one worker; one that fails does not keep the others from it. Raises DeviceError."""
    found = []
    with ProfilingWorker(device) as worker:
        for title, architecture in architectures:
            one = profiled(worker, architecture, settings, backend=backend, seed=0, deadline_s=DEADLINE_S)
            found.append(
                Profiled(title, None, f"{one.status}: {one.reason}")
                if isinstance(one, Failure)
                else Profiled(title, one)
            )
    return found


def profiles_json(profiled: Sequence[Profiled]) -> list[dict[str, Any]]:
    """Everything that was measured, with the figures by name, their errors and their ratios to the first architecture that has any."""
    first = next((found.profile.metrics() for found in profiled if found.profile), {})
    out: list[dict[str, Any]] = []
    for found in profiled:
        if found.profile is None:
            out.append({"architecture": found.title, "problem": found.problem})
            continue
        metrics = found.profile.metrics()
        ratios = {name: value / first[name] for name, value in metrics.items() if first.get(name)}
        figures = {
            "metrics": metrics,
            "errors": found.profile.errors(),
            "ratios": ratios,
            "tainted": found.profile.tainted,
        }
        out.append({"architecture": found.title, **figures, **found.profile.model_dump(mode="json")})
    return out


def print_profiles(console: Console, profiled: Sequence[Profiled]) -> None:
    """One table, a line for each architecture, batch size and context; below it, what is not to be trusted or is missing, and why."""
    profiles = [(found.title, found.profile) for found in profiled if found.profile]
    if profiles:
        first = profiles[0][1]
        where = f", {first.threads} thread{'s' if first.threads > 1 else ''}" if first.device == "cpu" else ""
        console.print(
            f"{first.device_name} ({first.device}), {first.dtype}{where}", soft_wrap=True, markup=False
        )
        show(console, timings(profiles))
        print_remarks(console, profiles)
    for found in profiled:
        if found.problem:
            console.print(f"{found.title}: {found.problem}", soft_wrap=True, markup=False)


def timings(profiles: Titled) -> Sheet:
    """A line for each architecture, batch size and context, and for the largest batch at each context, which has no prefill.

    ± is how far a decode step's time may be off, relative to it.
    × is the time a token over that of the first architecture in the same place.
    A mark is behind what was measured under conditions that are not to be trusted.
    """
    with_energy = any(point.energy for _, profile in profiles for point in profile.points)
    names: tuple[str, ...] = (
        "model",
        "batch",
        "context",
        "prefill [ms]",
        "decode [ms]",
        "±",
        "tok/s",
        "memory",
        "state",
    )
    names = (*names, "of copy", "×", *(["J/tok"] if with_energy else []))
    first = {place: (batch, decode) for place, batch, decode in _decoded(profiles[0][1])}
    rows = []
    for title, profile in profiles:
        name = f"{title} {formatted('params', profile.params)}"
        taints, errors = profile.taints(), profile.errors()
        for point in profile.points:
            prefill = profile.key("prefill_ms", batch=point.batch, context=point.context)
            decode = profile.key("decode_ms", batch=point.batch, context=point.context)
            mark = MARK if decode in taints else ""
            cells = (
                name,
                str(point.batch),
                str(point.context),
                _ms(point.prefill) + (MARK if prefill in taints else ""),
                _ms(point.decode) + mark,
                percent(errors[decode]),
                formatted("decode_tokens_per_s", point.decode_tokens_per_s) + mark,
                formatted("peak_memory_bytes", point.peak_memory_bytes),
                formatted("state_bytes", point.state_bytes),
                f"{point.achieved_bytes_per_s / profile.copy_bytes_per_s:.0%}{mark}",
                _ratio(point.batch, point.decode, first.get((point.batch, point.context))),
            )
            energy = f"{point.energy.j_per_token:.3g}{mark}" if point.energy else ""
            rows.append((*cells, *([energy] if with_energy else [])))
            name = ""
        for largest in profile.largest:
            throughput = profile.key("throughput_tokens_per_s", context=largest.context)
            mark = MARK if throughput in taints else ""
            cells = (
                name,
                str(largest.batch),
                str(largest.context),
                "largest",
                _ms(largest.decode) + mark,
                percent(errors[throughput]),
                formatted("decode_tokens_per_s", largest.tokens_per_s) + mark,
                *("", "", ""),
                _ratio(largest.batch, largest.decode, first.get((0, largest.context))),
            )
            rows.append((*cells, *([""] if with_energy else [])))
            name = ""
    optional = ("of copy", "state", "memory", "tok/s")
    return sheet(names, rows, words=("model",), optional=optional[::-1])


def _decoded(profile: Profile) -> list[tuple[tuple[int, int], int, Timing]]:
    """Place in the table (batch size or 0 for the largest, context), batch size and decode timing of every line."""
    points = [((point.batch, point.context), point.batch, point.decode) for point in profile.points]
    return points + [((0, found.context), found.batch, found.decode) for found in profile.largest]


def _ratio(batch: int, decode: Timing, first: tuple[int, Timing] | None) -> str:
    return f"{decode.median_ms / batch * first[0] / first[1].median_ms:.3f}" if first else ""


def _ms(timing: Timing) -> str:
    """Four digits, or all before the point."""
    whole = len(str(int(timing.median_ms)))
    return f"{timing.median_ms:.{max(0, 4 - whole)}f}"


def print_remarks(console: Console, profiles: Titled) -> None:
    for title, profile in profiles:
        tainted = dict.fromkeys(profile.tainted)
        attempts = max(found.attempts for found in (profile.conditions, profile.largest_conditions) if found)
        if tainted:
            console.print(
                f"! {title}, not to be trusted after {attempts} attempts: {'; '.join(tainted)}",
                soft_wrap=True,
                markup=False,
            )
        for reason in dict.fromkeys(profile.absent.values()):
            names = ", ".join(name for name, why in profile.absent.items() if why == reason)
            console.print(f"{title}, without {names}: {reason}", soft_wrap=True, markup=False)


def print_conditions(console: Console, profile: Profile, kind: str = "") -> None:
    """What held while the profile was measured, in a few lines. kind: of device, where there are several."""
    for what, conditions in (
        ("conditions", profile.conditions),
        ("conditions of the largest batch", profile.largest_conditions),
    ):
        if conditions is not None:
            for line in _told(conditions):
                console.print(f"{what}{kind and f' on {kind}'}: {line}", soft_wrap=True, markup=False)


def _told(found: Conditions) -> list[str]:
    lines = [
        f"anchor {found.anchor_before.median_ms:.4g} ms before, {found.anchor_after.median_ms:.4g} ms after "
        f"(drift {found.drift:.1%}, at most {found.max_drift:.0%}), attempts {found.attempts}, "
        f"device held {found.lock_s:.1f} s, {found.busy_s:.1f} s of them in samples"
    ]
    if found.before.sm_clock_mhz is not None:
        lines.append(
            f"clocks {found.before.sm_clock_mhz} to {found.after.sm_clock_mhz} MHz, memory {found.before.memory_clock_mhz} to "
            f"{found.after.memory_clock_mhz} MHz, {found.before.temperature_c} to {found.after.temperature_c} °C"
        )
    if found.clock_reasons:
        lines.append(f"clocks limited by {', '.join(found.clock_reasons)}")
    held = {name: ns for name, ns in found.violations_ns.items() if ns}
    if held:
        lines.append(
            f"performance held down by {', '.join(f'{name} for {ns / 1e6:.3g} ms' for name, ns in held.items())}"
        )
    lines += [f"not known: {note}" for note in found.notes]
    lines += [f"tainted by {reason}" for reason in found.tainted]
    return lines
