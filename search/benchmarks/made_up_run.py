"""A run whose evaluations are made up: a real ledger of any length, without measuring or training anything.

The proposals are those of a real searcher. The times follow from the bytes and FLOPs of each architecture, as
on a GPU of 2 TB/s, and the losses from its parameters with a little noise. Some candidates fail, break a
constraint, or have tainted figures.
"""

import shutil
from datetime import datetime
from pathlib import Path
from typing import cast

import numpy as np
from numpy.random import Generator
from rich.console import Console

from operators import Architecture
from operators.cost import cost
from operators.vision.vision_language import Model
from profiler.device.nvml import Reading
from profiler.profile import Conditions, PointProfile, Profile, ProfileSettings
from profiler.timing import Timing
from proxy_train.settings import ProxyScore
from search.benchmarks.record import RESULTS
from search.config import run as config_module
from search.config.run import RunConfig
from search.evaluation.outcome import Evaluation
from search.runs import ledger as ledger_module
from search.runs.folder import RunFolder
from search.runs.replay import scores
from search.searchers.contract import Proposer
from search.searchers.registry import searcher
from search.spaces.free import ArchitectureSpace

VOCABULARY = 4096
_BYTES_PER_S, _FLOPS_PER_S, _LAYER_MS = 2e12, 2e14, 0.004  # of the made-up GPU; a layer's least time (ms)
_DIVERGED, _TAINTED = 31, 47  # every so many candidates
_POINTS = 24  # of a loss curve
_TOKENS = 2_000_000
_SAMPLES = 8  # of a timing


def config(candidates: int) -> RunConfig:
    """What such a run is asked to do."""
    return config_module.parse(
        {
            "candidates": candidates,
            "repeats": 0,
            "objectives": ["loss", "decode_ms@b1"],
            "constraints": ["params <= 12e6"],
            "proxy": {"tokens": _TOKENS},
            "profile": {"batch_sizes": [1, 8], "contexts": [1024]},
            "space": {"widths": [128, 192, 256, 384], "min_depth": 4, "max_depth": 16},
            "searcher": {"name": "evolution"},
            "evolution": {"population": 24, "tournament": 4},
        },
        where="made up",
    )


def kept_run(candidates: int, console: Console) -> RunFolder:
    """Such a run below RESULTS; several benchmarks read it, and the first one makes it."""
    path = RESULTS / f"bench-made-up-{candidates}"
    if not path.exists():
        console.print(f"making up {candidates} evaluations, which takes some minutes")
        unfinished = path.with_name(f"{path.name}-unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        make_run(unfinished, candidates)
        unfinished.rename(path)
    return RunFolder(path)


def make_run(path: Path, candidates: int, *, seed: int = 0) -> RunFolder:
    """Writes the folder of such a run. path: new; its name is the run's."""
    path.mkdir(parents=True)
    folder, settings, rng = RunFolder(path), config(candidates), np.random.default_rng(seed)
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    ledger = ledger_module.create(folder.ledger, settings, started=started)
    space = ArchitectureSpace(settings.space, VOCABULARY)
    name, evolution = settings.searcher.name, settings.evolution
    proposer = cast("Proposer[Model]", searcher(name, space, evolution, seed=seed))
    objectives, constraints = settings.parsed_objectives(), settings.parsed_constraints()
    for _ in range(candidates):
        proposal = proposer.ask()
        evaluation = evaluate(
            cast("Architecture", proposal.candidate), proposal.number, settings.profile, rng
        )
        if reason := next((text for each in constraints if (text := each.broken_by(evaluation.metrics))), ""):
            kept = {name: value for name, value in evaluation.metrics.items() if name != "loss"}
            update = {"status": "infeasible", "reason": reason, "metrics": kept, "proxy": None}
            evaluation = evaluation.model_copy(update=update)
        ledger.propose(proposal, {})
        ledger.begin(proposal.number, "made up")
        ledger.record(proposal.number, evaluation)
        proposer.tell(proposal.number, scores(objectives, evaluation))
    ledger.close()
    return folder


def evaluate(
    architecture: Architecture, number: int, settings: ProfileSettings, rng: Generator
) -> Evaluation:
    """The made-up evaluation of an architecture."""
    seconds = {"profile": round(rng.uniform(1, 3), 3), "train": round(rng.uniform(8, 20), 3)}
    versions = {"python": "3.11.0", "torch": "2.13.0"}
    profile = _profile(architecture, settings, rng, tainted=number % _TAINTED == _TAINTED - 1)
    known = {"profile": profile, "seconds": seconds, "versions": versions, "seed": 0}
    if number % _DIVERGED == _DIVERGED - 1:
        reason = f"the loss was not finite after {int(rng.integers(10, 900))} steps"
        return Evaluation(status="diverged", reason=reason, metrics=profile.metrics(), **known)
    score = _score(profile.params, rng)
    return Evaluation(status="ok", metrics={**profile.metrics(), **score.metrics()}, proxy=score, **known)


def _profile(
    architecture: Architecture, settings: ProfileSettings, rng: Generator, *, tainted: bool
) -> Profile:
    points = []
    for context in settings.contexts:
        for batch in settings.batch_sizes:
            each = cost(architecture, batch=batch, context=context)
            least = architecture.depth * _LAYER_MS
            step = least + 1e3 * (each.decode_bytes / _BYTES_PER_S + each.decode_flops / _FLOPS_PER_S)
            points.append(
                PointProfile(
                    batch=batch,
                    context=context,
                    prefill=_timing(least + 1e3 * each.prefill_flops / _FLOPS_PER_S, rng),
                    decode=_timing(step, rng),
                    peak_memory_bytes=each.param_bytes + each.state_bytes,
                    kv_bytes=each.kv_bytes,
                    recurrent_bytes=each.recurrent_bytes,
                    decode_bytes=each.decode_bytes,
                )
            )
    whole = cost(architecture, batch=1, context=1)
    return Profile(
        device="cuda:0",
        device_name="made-up GPU",
        dtype="float32",
        threads=1,
        contexts=settings.contexts,
        params=whole.params,
        param_bytes=whole.param_bytes,
        points=tuple(points),
        copy_bytes_per_s=_BYTES_PER_S,
        datasheet_bytes_per_s=_BYTES_PER_S,
        conditions=_conditions(tainted=tainted),
        backends={},
        versions={"frontrunner": "made up"},
        seed=0,
    )


def _timing(ms: float, rng: Generator) -> Timing:
    """A timing whose samples lie close together."""
    samples = np.sort(ms * (1 + 0.001 * rng.standard_normal(_SAMPLES)))
    spread = float(np.subtract(*np.percentile(samples, [75, 25])))
    return Timing(
        median_ms=float(np.median(samples)),
        iqr_ms=spread,
        p90_ms=float(np.percentile(samples, 90)),
        n=_SAMPLES,
        stopped_by="precision",
        samples_ms=tuple(samples.tolist()),
    )


def _conditions(*, tainted: bool) -> Conditions:
    anchor = Timing(median_ms=0.5, iqr_ms=0.0, p90_ms=0.5, n=1, stopped_by="precision", samples_ms=(0.5,))
    return Conditions(
        anchor_before=anchor,
        anchor_after=anchor,
        drift=0.0,
        max_drift=0.02,
        before=Reading(),
        after=Reading(),
        clock_reasons=(),
        violations_ns={},
        foreign_pids=(),
        notes=(),
        attempts=1,
        tainted=("anchor: its time moved by 4% meanwhile, expected at most 2%",) if tainted else (),
        lock_s=1.0,
        busy_s=0.5,
    )


def _score(params: int, rng: Generator) -> ProxyScore:
    loss = 2.2 + 28.0 / params**0.18 + 0.03 * rng.standard_normal()
    tokens = np.linspace(_TOKENS / _POINTS, _TOKENS, _POINTS).round().astype(int)
    fall = loss + 3.5 * (1 - tokens / _TOKENS) ** 2 + 0.02 * rng.standard_normal(_POINTS)
    return ProxyScore(
        loss=float(loss),
        perplexity=float(np.exp(loss)),
        bits_per_byte=float(loss / 2.9),
        unigram_loss=6.8,
        tokens=_TOKENS,
        steps=3906,
        seconds=round(float(rng.uniform(8, 20)), 2),
        tokens_per_s=round(float(rng.uniform(1e5, 2e5)), 1),
        curve=tuple(zip(tokens.tolist(), fall.tolist(), strict=True)),
        backends={},
        device="cuda:0",
        seed=0,
    )
