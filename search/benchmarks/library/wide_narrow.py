"""Benchmark: is a wide space worth it? Equal GPU time in a wide and in a narrow one, and the winners of both.

A narrow space has fewer kernels to compile and fewer choices to get wrong. It lacks what it does not name.

    frontrunner bench wide_narrow --device cuda

Both searches are runs of configs/wide_h100.yaml with twenty minutes of a GPU each, one after the other from
empty kernel caches. The narrow one has the operators and shapes of configs/h100_small.yaml, and all else of
the wide one. With N GPUs each takes an Nth of the time. The three best of the wide space then meet the three
best of the narrow one, and published designs, at equal measured time: with ten times the tokens and three
seeds (`frontrunner promote`). On a CPU two searches of configs/quick.yaml only show that the benchmark runs.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from search.benchmarks import runs as runs_of
from search.benchmarks.benchmark import Benchmark, Measured
from search.benchmarks.kernel_cache import empty_kernel_cache
from search.benchmarks.library import wide
from search.benchmarks.library.search import volumes_over_time
from search.config.run import RunConfig
from search.config.space import SpaceSettings
from search.runs.entry import Entry
from search.runs.frontier import best

GPU_S = 1200.0  # of each search
_NARROW = {"cuda": Path("h100_small"), "cpu": Path("laptop")}


def search_both(device: str, console: Console) -> Measured:
    """Hypervolumes and rates of both searches, and what came of the wide one's winners.

    wide.NAME and narrow.NAME: of a search, as `bench wide` has them
    SPACE.hypervolume@SHARE: of its frontier by that share of the time, both scaled alike
    ID against RUN:ID.NAME: a winner of the wide space against one of the narrow space
    """
    config = runs_of.load(device, wide.CONFIGS)
    if device != "cpu":
        config = config.model_copy(update={"time_s": GPU_S / config.workers})
    narrow = narrowed(config, runs_of.load(device, _NARROW).space)
    with empty_kernel_cache():
        of_narrow, narrow_path, narrow_figures = wide.searched_from_empty(narrow, "narrow", device, console)
    with empty_kernel_cache():
        of_wide, wide_path, wide_figures = wide.searched_from_empty(config, "wide", device, console)
        against = (*wide.AGAINST, *winners(narrow_path.name, of_narrow, narrow))
        promotion = wide.promoted(wide_path, config, against, device, console)
    figures = wide.machine_figures(config)
    figures |= {f"narrow.{key}": value for key, value in narrow_figures.items()}
    figures |= {f"wide.{key}": value for key, value in wide_figures.items()}
    for moment, volumes in volumes_over_time({"narrow": of_narrow, "wide": of_wide}, config).items():
        figures |= {f"{name}.hypervolume@{moment:.0%}": volume for name, volume in volumes.items()}
    samples = wide.samples(of_wide, promotion)
    samples |= {"narrow candidates": [runs_of.row(entry) for entry in of_narrow]}
    return Measured(figures | wide.promotion_figures(promotion), samples, folders=[narrow_path, wide_path])


def narrowed(config: RunConfig, space: SpaceSettings) -> RunConfig:
    """The run with the operators and shapes of another space, and all else of its own."""
    fewer = config.space.model_copy(update={"operators": space.operators, "genes": space.genes})
    return config.model_copy(update={"space": fewer})


def winners(run: str, entries: Sequence[Entry], config: RunConfig) -> list[str]:
    """What names the best three of a run: those without which its hypervolume would shrink the most."""
    return [f"{run}:{entry.number}" for entry in best(entries, config.parsed_objectives(), wide.TOP)]


BENCHMARK = Benchmark(
    "wide_narrow",
    "equal GPU time in a wide and in a narrow space, and the winners of both trained longer",
    search_both,
)
