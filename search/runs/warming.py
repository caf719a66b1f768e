"""What `frontrunner warm` is given, as jobs for profiler.kernels.warm."""

from collections.abc import Sequence
from pathlib import Path

from operators.architecture import Architecture
from profiler.kernels.warm import Job, Workload, jobs
from profiler.profile import ProfileSettings
from proxy_train.settings import ProxySettings
from search.config.space import SpaceSettings, choices_of
from search.evaluation.fidelity import proxy_of
from search.runs.sources import run_or_architecture

BATCHES, TOKENS = (1, 8), 1024  # of a model that is given without a run


def warm_jobs(
    sources: Sequence[str],
    *,
    batches: Sequence[int] | None,
    tokens: int | None,
    device: str,
    results: Path = Path("results"),
) -> list[Job]:
    """Jobs for every shape in the sources, each once.

    Where a run trains narrower models than it measures, the narrow shapes are only trained, the others only
    measured.

    sources: run files, runs and models (see `search.runs.sources`).
    batches: batch sizes; None for those that a run trains and measures with.
    tokens: of a sequence; None for those that a run trains and measures with.
    device: cpu or cuda:N.
    results: folder that holds the runs.

    Raises ConfigError and ArchitectureError.
    """
    distinct: dict[tuple[str, str, Workload], Job] = {}
    for source in sources:
        given = run_or_architecture(source, results)
        if isinstance(given, Architecture):
            work = jobs([given], _workload_of_model(batches or BATCHES, tokens or TOKENS), device)
        else:
            members = _members(given.space)
            trained = [proxy_of(member, given.fidelity.width_scale) for member in members]
            workload = _workload(given.proxy, given.profile, batches, tokens)
            if trained == members:
                work = jobs(members, workload, device)
            else:
                work = jobs(trained, workload.model_copy(update={"decoding": ()}), device)
                work += jobs(members, workload.model_copy(update={"training": ()}), device)
        for job in work:
            distinct.setdefault((job.layer.operator, job.layer.shape.model_dump_json(), job.workload), job)
    return list(distinct.values())


def _members(settings: SpaceSettings) -> list[Architecture]:
    """At each width an architecture of all layers that the space can put there."""
    choices = choices_of(settings)
    members: dict[int, list[Architecture]] = {width: [] for width in choices.widths}
    for (_, width), table in choices.layers.items():
        members[width] += [
            Architecture(width=width, vocabulary=2, layers=(layer,)) for layer in table.values()
        ]
    return [architecture for of_width in members.values() for architecture in of_width]


def _workload_of_model(batches: Sequence[int], tokens: int) -> Workload:
    """Decoding with each batch size, and training with the last."""
    sizes = tuple((batch, tokens) for batch in batches)
    return Workload(training=sizes[-1:], decoding=sizes)


def _workload(
    proxy: ProxySettings, profile: ProfileSettings, batches: Sequence[int] | None, tokens: int | None
) -> Workload:
    """What a run trains and measures with, or the sizes that are given instead."""
    trained = batches[-1] if batches else proxy.micro_batch_size or proxy.batch_size
    contexts = [tokens] if tokens else profile.contexts
    decoding = tuple((batch, size) for size in contexts for batch in batches or profile.batch_sizes)
    return Workload(training=((trained, tokens or proxy.sequence_length),), decoding=decoding)
