"""What `frontrunner warm` is given, as jobs for profiler.kernels.warm."""

from collections.abc import Sequence
from pathlib import Path

from operators.architecture import Architecture
from profiler.kernels.warm import Job, Workload, jobs
from search.config.run import RunConfig
from search.config.space import choices_of
from search.evaluation.fidelity import proxy_of
from search.runs.sources import run_or_architecture


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
