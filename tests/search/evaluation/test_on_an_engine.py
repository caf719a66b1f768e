"""Candidates of a search whose device is an engine of others: measured there, trained on the CPU."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from operators.published.gguf_export.homes import outline
from search.config.run import load
from search.evaluation.outcome import UNMEASURED, Job
from search.evaluation.training import train_measured
from search.spaces.free import ArchitectureSpace
from search.spaces.staged import make_space

NOT_WAITED = UNMEASURED.after({"wait": 0.0})


def test_a_candidate_is_trained_on_the_processor(job: Job) -> None:
    evaluation = train_measured(replace(job, device="llama.cpp"), NOT_WAITED).evaluation
    assert (evaluation.status, evaluation.reason) == ("ok", "")
    assert 0 < evaluation.metrics["loss"] < 10


def test_llama_cpp_holds_every_candidate_of_the_laptop() -> None:
    space, rng = make_space(load(Path("laptop")).space, 4096), np.random.default_rng(0)
    assert isinstance(space, ArchitectureSpace)
    families, parent = set(), space.sample(rng)
    for _ in range(100):
        candidate = space.sample(rng)
        mutated, crossed = space.mutate(parent, rng), space.crossover(parent, candidate, rng)
        children = [each for each in (mutated and mutated[0], crossed) if each]
        families |= {outline(model).family for model in (candidate, *children)}
        parent = children[0] if children else candidate
    families |= {outline(model).family for model in space.seeds()}
    assert families == {"qwen3", "lfm2"}
