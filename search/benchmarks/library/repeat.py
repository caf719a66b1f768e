"""Benchmark: how closely fresh processes repeat a measurement.

Candidates are compared by times that different processes measured, so a difference below what repeating the
measurement makes means nothing. Measured are one decode step of the anchor model, its energy, and how long
the device's lock is held.

    frontrunner bench repeat --device cuda:0
"""

from statistics import mean, stdev
from time import perf_counter

from rich.console import Console

from profiler.device.device import open_device
from profiler.measuring.anchor import CONTEXT, anchor_architecture
from profiler.profile import ProfileSettings
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.tables import print_figures
from search.evaluation.profiling import started

PROCESSES, ENERGY_RUNS = 5, 3
ENERGY_SECONDS = 5.0
DEADLINE_S = 600.0
SETTINGS = ProfileSettings(batch_sizes=(1,), contexts=(CONTEXT,), min_seconds=0.5, max_seconds=2.0)


def repeat_anchor(device: str, console: Console) -> Measured:
    """How far times and energies scatter, and every profile.

    The first ENERGY_RUNS processes measure energy as well, where the device counts it.
    """
    kind = open_device(device).torch_device.type
    profiles = []
    began = perf_counter()
    with started(device, PROCESSES) as workers:
        start_s = perf_counter() - began
        for number, worker in enumerate(workers):
            seconds = ENERGY_SECONDS if number < ENERGY_RUNS else 0.0
            settings = SETTINGS.model_copy(update={"energy_seconds": seconds})
            profiles.append(worker.profile(anchor_architecture(kind), settings, deadline_s=DEADLINE_S))
            worker.close()
            point, conditions = profiles[-1].points[0], profiles[-1].conditions
            tainted = f", tainted: {'; '.join(conditions.tainted)}" if conditions.tainted else ""
            console.print(
                f"process {number}: {point.decode.median_ms:.5f} ms, "
                f"{point.decode.median_ms / conditions.anchor_ms:.5f} of the anchor, "
                f"lock {conditions.lock_s:.2f} s, busy {conditions.busy_s:.2f} s{tainted}",
                soft_wrap=True,
            )
    times = [profile.points[0].decode.median_ms for profile in profiles]
    ratios = [time / profile.conditions.anchor_ms for time, profile in zip(times, profiles, strict=True)]
    without_energy = profiles[ENERGY_RUNS:]
    figures: Figures = {
        "processes": PROCESSES,
        "start_s": start_s,
        "decode_ms": mean(times),
        "decode_coefficient_of_variation": stdev(times) / mean(times),
        "anchor_ratio": mean(ratios),
        "anchor_ratio_coefficient_of_variation": stdev(ratios) / mean(ratios),
        "tainted": sum(bool(profile.conditions.tainted) for profile in profiles),
        "attempts": sum(profile.conditions.attempts for profile in profiles),
        "longest_lock_s": max(profile.conditions.lock_s for profile in without_energy),
        "least_busy_fraction": min(
            profile.conditions.busy_s / profile.conditions.lock_s for profile in without_energy
        ),
    }
    energies = [
        profile.metrics()["energy_j_per_token@b1"]
        for profile in profiles
        if "energy_j_per_token@b1" in profile.metrics()
    ]
    if energies:
        figures |= {
            "energy_j_per_token": mean(energies),
            "energy_range_fraction": (max(energies) - min(energies)) / mean(energies),
            "power_w": mean(profile.metrics()["power_w@b1"] for profile in profiles[:ENERGY_RUNS]),
        }
    print_figures(console, figures)
    return Measured(figures, [profile.model_dump(mode="json") for profile in profiles])


BENCHMARK = Benchmark("repeat", "how closely fresh processes repeat a measurement", repeat_anchor)
