"""What `frontrunner warm` is given, as jobs for profiler.kernels.warm."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from operators.architecture import Architecture
from profiler.kernels.warm import Job, Warmed, Workload, jobs
from search.config.run import RunConfig
from search.evaluation.fidelity import proxy_of
from search.runs.sources import run_or_architecture
from search.spaces.free import choices_of


def warm_jobs(
    sources: Sequence[str],
    *,
    batches: Sequence[int] | None,
    tokens: int | None,
    device: str,
    results: Path = Path("results"),
) -> list[Job]:
    """Jobs for every shape in run files, runs and models (see `search.runs.sources`), each once.

    Where a run trains narrower models than it measures, shapes of the one are trained only, and those of the other measured.
    batches and tokens replace the sizes that a run trains and measures with. Raises ConfigError and ArchitectureError.
    """
    found: dict[tuple[str, str, Workload], Job] = {}
    for source in sources:
        given = run_or_architecture(source, results)
        workload = _workload(given, batches, tokens)
        if isinstance(given, Architecture):
            work = jobs([given], workload, device)
        else:
            members = _members(given)
            trained = [proxy_of(member, given.fidelity) for member in members]
            if trained == members:
                work = jobs(members, workload, device)
            else:
                work = jobs(trained, workload.model_copy(update={"decoding": ()}), device)
                work += jobs(members, workload.model_copy(update={"training": ()}), device)
        for job in work:
            found.setdefault((job.layer.operator, job.layer.shape.model_dump_json(), job.workload), job)
    return list(found.values())


def print_warmed(console: Console, done: Warmed) -> None:
    what = done.problem or f"{done.backend:<14}{done.seconds:6.1f} s, start {done.start_s:.1f} s"
    console.print(f"{done.operator:<16}{what}  {done.shape}", soft_wrap=True, markup=False)


def _members(run: RunConfig) -> list[Architecture]:
    """At each width an architecture of all layers that the run's space can put there."""
    choices = choices_of(run.space)
    found: dict[int, list[Architecture]] = {width: [] for width in choices.widths}
    for (_, width), table in choices.layers.items():
        found[width] += [Architecture(width=width, vocabulary=2, layers=(layer,)) for layer in table.values()]
    return [architecture for members in found.values() for architecture in members]


def _workload(run: RunConfig | Architecture, batches: Sequence[int] | None, tokens: int | None) -> Workload:
    if isinstance(run, Architecture):
        sizes = tuple((batch, tokens or 1024) for batch in batches or (1, 8))
        return Workload(training=sizes[-1:], decoding=sizes)
    proxy, profile = run.proxy, run.profile
    return Workload(
        training=(
            (
                batches[-1] if batches else proxy.micro_batch_size or proxy.batch_size,
                tokens or proxy.sequence_length,
            ),
        ),
        decoding=tuple(
            (batch, size)
            for size in ([tokens] if tokens else profile.contexts)
            for batch in batches or profile.batch_sizes
        ),
    )
