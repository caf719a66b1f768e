"""What `promote` finds out, as values: models with their losses, and what two of them show."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

from search.studies.differences import Difference, Verdict, paired

# Times within this factor count as equal: the times of small models go in steps of whole layers.
EQUAL = 1.1


@dataclass(frozen=True)
class Member:
    """A candidate or a rival.

    label: the candidate's id, or the rival's name with its width and depth.
    candidate: the id of the candidate, or of the one that this rival is as fast as.
    rival: the name of the rival; empty for a candidate.
    ms: the measured time.
    tainted: why that time is not to be trusted.
    losses: by seed (nats per token).
    problems: by seed, why a training failed.
    folders: by seed, where the trained model lies.
    """

    label: str
    candidate: int
    rival: str
    params: int
    width: int
    depth: int
    ms: float | None
    tainted: tuple[str, ...] = ()
    losses: Mapping[int, float] = field(default_factory=dict)
    problems: Mapping[int, str] = field(default_factory=dict)
    folders: Mapping[int, str] = field(default_factory=dict)

    @property
    def loss(self) -> float | None:
        """The mean over the seeds; None before any."""
        return fmean(self.losses.values()) if self.losses else None

    @property
    def error(self) -> float | None:
        """The standard error of the mean; None for fewer than two seeds."""
        count = len(self.losses)
        return stdev(self.losses.values()) / count**0.5 if count > 1 else None


@dataclass(frozen=True)
class Comparison:
    """A candidate against one rival.

    time_ratio: the rival's time over the candidate's.
    difference: the rival's loss less the candidate's, over the seeds that both have; None for none.
    verdict: `better`, `worse` or `cannot tell`: the candidate, compared with the rival.
    remark: why nothing can be told, where more than the interval is the reason.
    """

    candidate: Member
    rival: Member
    time_ratio: float | None
    difference: Difference | None
    verdict: Verdict
    remark: str = ""


@dataclass(frozen=True)
class Promotion:
    """What `promote` found out.

    tokens: of each training.
    seeds: of each model.
    metric: the time that is equal.
    comparisons: in the order of the candidates, then of the rivals.
    """

    run: str
    path: Path
    tokens: int
    seeds: tuple[int, ...]
    metric: str
    members: tuple[Member, ...]
    comparisons: tuple[Comparison, ...]


def compared(candidate: Member, rival: Member) -> Comparison:
    """A candidate against a rival, by the seeds that both were trained with."""
    ratio = rival.ms / candidate.ms if rival.ms and candidate.ms else None
    for one in (candidate, rival):
        for seed, problem in one.problems.items():
            remark = f"{one.label}, seed {seed}: {problem}"
            return Comparison(candidate, rival, ratio, None, "cannot tell", remark)
    seeds = [seed for seed in candidate.losses if seed in rival.losses]
    if not seeds:
        return Comparison(candidate, rival, ratio, None, "cannot tell", "not trained yet")
    difference = paired([rival.losses[seed] for seed in seeds], [candidate.losses[seed] for seed in seeds])
    verdict, remark = difference.verdict, "one seed has no interval" if len(seeds) == 1 else ""
    if ratio is not None and _by_time(ratio, verdict):
        verdict, remark = "cannot tell", f"{rival.label} takes {ratio:.3f} of the candidate's time: not equal"
    return Comparison(candidate, rival, ratio, difference, verdict, remark)


def _by_time(ratio: float, verdict: Verdict) -> bool:
    """Whether the better one of two had clearly more time, which may be the reason."""
    return (verdict == "better" and ratio < 1 / EQUAL) or (verdict == "worse" and ratio > EQUAL)
