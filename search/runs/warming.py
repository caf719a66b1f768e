"""What `frontrunner warm` is given, as jobs for profiler.kernels.warm."""

from collections.abc import Sequence
from math import inf
from pathlib import Path

from operators.architecture import Architecture
from profiler.device.names import computes_on
from profiler.kernels.prepare import Job, Workload
from profiler.kernels.warm import jobs
from profiler.measuring.anchor import CONTEXT, anchor_architecture
from profiler.profile import ProfileSettings
from proxy_train.settings import ProxySettings
from search.config.run import RunConfig
from search.config.space import SpaceSettings
from search.evaluation.fidelity import proxy_of
from search.runs.sources import run_or_architecture
from search.spaces.staged import make_space

BATCHES, TOKENS = (1, 8), 1024  # of a model that is given without a run


def warm_jobs(
    sources: Sequence[str],
    *,
    batches: Sequence[int] | None,
    tokens: int | None,
    device: str,
    results: Path = Path("results"),
    changes: Sequence[str] = (),
) -> list[Job]:
    """Jobs for every shape in the sources, each once, for their heads and for the anchor model.

    Where a run trains narrower models than it measures, the narrow shapes are only trained, the others only
    measured.

    sources: run files, runs and models (see `search.runs.sources`).
    batches: batch sizes; None for those that a run trains and measures with.
    tokens: of a sequence; None for those that a run trains and measures with.
    device: cpu or cuda:N.
    results: folder that holds the runs.
    changes: of keys of the run files, as in `space.max_depth=8`.

    Raises ConfigError and ArchitectureError.
    """
    distinct: dict[tuple[str, str, int, Workload], Job] = {}
    whole: list[Job] = []
    for source in sources:
        given = run_or_architecture(source, results, changes)
        if isinstance(given, Architecture):
            workload = _workload_of_model(batches or BATCHES, tokens or TOKENS)
            work = jobs([given], workload, device)
            whole += _heads([given], workload, device)
        else:
            members = _members(given.space, vocabulary=given.data.vocabulary)
            trained = [proxy_of(member, given.fidelity.width_scale) for member in members]
            workload = _workload(given.proxy, given.profile, batches, tokens)
            whole += _heads(members, workload, device)
            if trained == members:
                work = jobs(members, workload, device)
            else:
                work = jobs(trained, workload.model_copy(update={"decoding": ()}), device)
                work += jobs(members, workload.model_copy(update={"training": ()}), device)
        for job in work:
            shape = job.layer.shape.model_dump_json()
            distinct.setdefault((job.layer.operator, shape, job.architecture.width, job.workload), job)
    if computes_on(device) != "cpu":
        steps = Workload(training=(), decoding=((1, CONTEXT),))
        whole.append(Job(anchor_architecture("cuda"), steps, device, whole=True))
    heads = {(job.architecture.width, job.architecture.vocabulary, job.workload): job for job in whole}
    return [*heads.values(), *distinct.values()]


def first_candidates_first(work: Sequence[Job], config: RunConfig) -> list[Job]:
    """The jobs of a run in the order in which its candidates will need them, as far as that is known.

    First come the heads, then the shapes of the first candidate, of the second, and so on. Searchers begin
    with the seeds of the space. Behind them the jobs keep their order.
    """
    known: dict[tuple[str, str, int], float] = {}
    for number, seed in enumerate(make_space(config.space, config.data.vocabulary).seeds()):
        for member in (seed, proxy_of(seed, config.fidelity.width_scale)):
            for layer in member.layers:
                known.setdefault((layer.operator, layer.shape.model_dump_json(), member.width), number)

    def turn(job: Job) -> float:
        shape = job.layer.operator, job.layer.shape.model_dump_json(), job.architecture.width
        return -1 if job.whole else known.get(shape, inf)

    return sorted(work, key=turn)


def _heads(members: Sequence[Architecture], workload: Workload, device: str) -> list[Job]:
    """One job for the head at every width, with the first layer that is there."""
    first_at: dict[int, Architecture] = {}
    for member in members:
        first_at.setdefault(member.width, member)
    return [
        Job(member.model_copy(update={"layers": member.layers[:1]}), workload, device, whole=True)
        for member in first_at.values()
    ]


def _members(settings: SpaceSettings, *, vocabulary: int) -> list[Architecture]:
    """At each width an architecture for each layer that the space can put there."""
    choices = settings.choices()
    members: dict[int, list[Architecture]] = {width: [] for width in choices.widths}
    for (_, width), table in choices.layers.items():
        members[width] += [
            Architecture(
                width=width, vocabulary=vocabulary, layers=(layer,), normalized_head=settings.normalized_head
            )
            for layer in table.values()
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
