"""Measures profiles of architectures, and prints them side by side with the conditions of measurement."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from operators import Architecture, VisionLanguage
from operators.base.errors import ConfigError, one_line
from profiler.device.device import open_device
from profiler.device.names import LLAMA_CPP, computes_on, engine_of, engine_on
from profiler.engines.packages import PACKAGES
from profiler.process.worker import ProfilingWorker
from profiler.profile import Conditions, Profile, ProfileSettings
from profiler.timing import Timing
from search.evaluation.figures import formatted, percent
from search.evaluation.profiling import Failure, profiled
from search.view.tables import MARK
from search.view.terminal_tables import Sheet, sheet, show
from search.view.vision_profiles import first_tokens

DEADLINE_S = 3600.0
"""Seconds after which one profile is given up. A large model may take long on a CPU; no search waits here."""
Titled = Sequence[tuple[str, Profile]]
"""Profiles with the names of their architectures."""


@dataclass(frozen=True)
class Profiled:
    """The result for one architecture.

    title: name of the architecture.
    profile: its profile, if it could be measured.
    problem: the reason why it could not.
    engine: of others that it was measured in; empty for our own runtime.
    """

    title: str
    profile: Profile | None
    problem: str = ""
    engine: str = ""

    @property
    def name(self) -> str:
        return f"{self.title} in {self.engine}" if self.engine else self.title


def profile_settings(**values: Any) -> ProfileSettings:
    """Profile settings from options of the command line. Raises ConfigError."""
    try:
        return ProfileSettings(**values)
    except ValidationError as error:
        raise ConfigError(one_line(error)) from None


def profile_each(
    architectures: Sequence[tuple[str, Architecture | VisionLanguage]],
    settings: ProfileSettings,
    *,
    device: str,
    backend: str,
    engines: Sequence[str] = (),
    on_measured: Callable[[Profiled], None] = lambda result: None,
) -> list[Profiled]:
    """Measures architectures one after the other, in one worker for each engine. Raises DeviceError.

    An architecture that fails does not end the measurement of the others.

    architectures: (name, architecture) of each.
    backend: `auto`, or the backend that every operator of ours shall use.
    engines: engines of others on the same device, whose results stand behind ours.
    on_measured: called after each measurement, those of our own runtime first.
    """
    names = dict.fromkeys([device, *(engine_on(engine, computes_on(device)) for engine in engines)])
    for name in names:
        open_device(name, engines=True)  # one that is missing ends the command before anything is measured
    by_device = [
        _in_one_worker(
            architectures,
            settings if engine_of(name) == LLAMA_CPP else settings.model_copy(update={"quantization": None}),
            device=name,
            backend=backend if name == device else "auto",
            on_measured=on_measured,
        )
        for name in names
    ]
    return [result for of_architecture in zip(*by_device, strict=True) for result in of_architecture]


def _in_one_worker(
    architectures: Sequence[tuple[str, Architecture | VisionLanguage]],
    settings: ProfileSettings,
    *,
    device: str,
    backend: str,
    on_measured: Callable[[Profiled], None],
) -> list[Profiled]:
    results, engine = [], engine_of(device)
    with ProfilingWorker(device) as worker:
        for title, architecture in architectures:
            sees = isinstance(architecture, VisionLanguage)
            own = settings if sees else settings.model_copy(update={"images": 0})
            profile = profiled(worker, architecture, own, backend=backend, seed=0, deadline_s=DEADLINE_S)
            results.append(
                Profiled(title, None, f"{profile.status}: {profile.reason}", engine)
                if isinstance(profile, Failure)
                else Profiled(title, profile, engine=engine)
            )
            on_measured(results[-1])
    return results


def tell(console: Console) -> Callable[[Profiled], None]:
    """What prints a line after each measurement, with the seconds since the one before."""
    last = perf_counter()

    def line(result: Profiled) -> None:
        nonlocal last
        before, last = last, perf_counter()
        how = "not measured" if result.problem else "measured"
        console.print(f"{result.name}: {how}, {last - before:.0f} s", markup=False, soft_wrap=True)

    return line


def profiles_json(profiled: Sequence[Profiled]) -> list[dict[str, Any]]:
    """All measurements, with metrics by name, their errors, and their ratios to the first architecture."""
    first = next((model.profile.metrics() for model in profiled if model.profile), {})
    out: list[dict[str, Any]] = []
    for model in profiled:
        if model.profile is None:
            out.append({"architecture": model.title, "engine": model.engine, "problem": model.problem})
            continue
        metrics = model.profile.metrics()
        ratios = {name: value / first[name] for name, value in metrics.items() if first.get(name)}
        figures = {
            "metrics": metrics,
            "errors": model.profile.errors(),
            "ratios": ratios,
            "tainted": model.profile.tainted,
        }
        out.append(
            {
                "architecture": model.title,
                "engine": model.engine,
                **figures,
                **model.profile.model_dump(mode="json"),
            }
        )
    return out


def print_profiles(console: Console, profiled: Sequence[Profiled]) -> None:
    """Prints one table of all profiles, then remarks on tainted or missing figures, with the reasons."""
    profiles = [(model.name, model.profile) for model in profiled if model.profile]
    if profiles:
        for line in dict.fromkeys(_where(profile) for _, profile in profiles):
            console.print(line, soft_wrap=True, markup=False)
        show(console, timings(profiles))
        if any(profile.vision for _, profile in profiles):
            show(console, first_tokens(profiles))
        print_remarks(console, profiles)
    for model in profiled:
        if model.problem:
            console.print(f"{model.name}: {model.problem}", soft_wrap=True, markup=False)


def _where(profile: Profile) -> str:
    """The device, its number format and threads, and how an engine of others was run."""
    on_cpu = computes_on(profile.device) == "cpu"
    threads = f", {profile.threads} thread{'s' if profile.threads > 1 else ''}" if on_cpu else ""
    engine = engine_of(profile.device)
    packages = [f"{name} {profile.versions[name]}" for name in PACKAGES.get(engine, ())]
    how = [profile.backends[engine]] if engine in profile.backends else []
    details = f": {', '.join(packages + how)}" if engine else ""
    return f"{profile.device_name} ({profile.device}), {profile.dtype}{threads}{details}"


def timings(profiles: Titled) -> Sheet:
    """A row for each architecture, batch size and context, and for the largest batch at each context.

    The largest batch has no prefill. ± is the relative error of a decode step's time. × is the time of a
    token over that of the first architecture at the same batch size and context. MARK stands behind tainted
    figures.
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
    """((batch size or 0 for the largest batch, context), batch size, decode timing) of every row."""
    points = [((point.batch, point.context), point.batch, point.decode) for point in profile.points]
    return points + [((0, largest.context), largest.batch, largest.decode) for largest in profile.largest]


def _ratio(batch: int, decode: Timing, first: tuple[int, Timing] | None) -> str:
    return f"{decode.median_ms / batch * first[0] / first[1].median_ms:.3f}" if first else ""


def _ms(timing: Timing) -> str:
    """Milliseconds with four digits, or more if more stand before the point."""
    whole = len(str(int(timing.median_ms)))
    return f"{timing.median_ms:.{max(0, 4 - whole)}f}"


def print_remarks(console: Console, profiles: Titled) -> None:
    """Prints which profiles are tainted and which metrics are missing, with the reasons."""
    for title, profile in profiles:
        tainted = dict.fromkeys(profile.tainted)
        attempts = max(
            conditions.attempts
            for conditions in (
                profile.conditions,
                profile.largest_conditions,
                profile.vision_conditions,
            )
            if conditions
        )
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
    """Prints the conditions that a profile was measured under.

    kind: kind of device; empty if the run has only one.
    """
    for what, conditions in (
        ("conditions", profile.conditions),
        ("conditions of the largest batch", profile.largest_conditions),
        ("conditions of the images", profile.vision_conditions),
    ):
        if conditions is not None:
            for line in _described(conditions):
                console.print(f"{what}{kind and f' on {kind}'}: {line}", soft_wrap=True, markup=False)


def _described(conditions: Conditions) -> list[str]:
    """Conditions as lines of text."""
    before, after = conditions.before, conditions.after
    first_ms, last_ms = conditions.anchor_before.median_ms, conditions.anchor_after.median_ms
    lines = [
        f"anchor {first_ms:.4g} ms before, {last_ms:.4g} ms after "
        f"(drift {conditions.drift:.1%}, at most {conditions.max_drift:.0%}), "
        f"attempts {conditions.attempts}, "
        f"device held {conditions.lock_s:.1f} s, {conditions.busy_s:.1f} s of them in samples"
    ]
    if before.sm_clock_mhz is not None:
        lines.append(
            f"clocks {before.sm_clock_mhz} to {after.sm_clock_mhz} MHz, "
            f"memory {before.memory_clock_mhz} to {after.memory_clock_mhz} MHz, "
            f"{before.temperature_c} to {after.temperature_c} °C"
        )
    if conditions.sm_mhz_before is not None and conditions.sm_mhz_after is not None:
        lines.append(
            f"clock counted on a multiprocessor: {conditions.sm_mhz_before:.0f} MHz just before, "
            f"{conditions.sm_mhz_after:.0f} MHz just after"
        )
    if conditions.clock_reasons:
        lines.append(f"clocks limited by {', '.join(conditions.clock_reasons)}")
    held = {name: ns for name, ns in conditions.violations_ns.items() if ns}
    if held:
        causes = ", ".join(f"{name} for {ns / 1e6:.3g} ms" for name, ns in held.items())
        lines.append(f"performance held down by {causes}")
    lines += [f"not known: {note}" for note in conditions.notes]
    lines += conditions.remarks
    lines += [f"tainted by {reason}" for reason in conditions.tainted]
    return lines
