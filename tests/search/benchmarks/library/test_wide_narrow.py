"""`bench wide_narrow`: what both searches have in common, whom the winners meet, and the figures' names."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from operators import Architecture
from search.benchmarks import runs as runs_of
from search.benchmarks.library import wide_narrow
from search.config import run as config_module
from search.config.run import RunConfig
from search.evaluation.outcome import Evaluation
from search.runs.entry import Attempt, Entry
from search.studies import promotion
from search.studies.promoted import Promotion

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
ARCHITECTURE = Architecture.from_shorthand("a f", width=64, vocabulary=512)
# Of both searches: loss and time. Candidate 2 is dominated. Without 1 the volume would shrink the most.
POINTS = ((5.0, 1.0), (4.0, 2.0), (4.5, 3.0), (3.9, 4.0))


def entries(better_by: float) -> tuple[Entry, ...]:
    return tuple(
        Entry(
            number,
            ARCHITECTURE,
            (),
            "random",
            Evaluation.model_validate(
                {
                    "status": "ok",
                    "metrics": {"loss": loss - better_by, "decode_ms@b1": ms},
                    "seconds": {"train": 1.0},
                    "seed": 0,
                }
            ),
            number,
            (Attempt(at=BEGIN + timedelta(seconds=10 * number), place="here"),),
            BEGIN + timedelta(seconds=10 * number + 10),
        )
        for number, (loss, ms) in enumerate(POINTS)
    )


def test_the_narrow_run_differs_in_operators_and_shapes_alone() -> None:
    config, small = (config_module.load(Path(name)) for name in ("wide_h100", "h100_small"))
    narrow = wide_narrow.narrowed(config, small.space)
    assert (narrow.space.operators, narrow.space.genes) == (small.space.operators, small.space.genes)
    assert set(narrow.space.operators) < {*config.space.operators, "deltanet"}
    back = narrow.space.model_copy(update={"operators": config.space.operators, "genes": config.space.genes})
    assert narrow.model_copy(update={"space": back}) == config


def test_the_best_of_the_wide_space_meet_those_of_the_narrow_one_and_published_designs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[RunConfig] = []
    promoted: dict[str, Any] = {}

    def search(config: RunConfig, *, name: str, **_: object) -> tuple[tuple[Entry, ...], Path]:
        searched.append(config)
        return entries(0.5 if name == "wide" else 0.0), Path(f"results/bench-{name}-1")

    def promote(run: str, **named: Any) -> Promotion:
        promoted.update(named, run=run)
        return Promotion(run, Path(run), named["tokens"], (0, 1, 2), "decode_ms@b1", (), ())

    monkeypatch.setattr(runs_of, "searched", search)
    monkeypatch.setattr(promotion, "promote", promote)
    found = wide_narrow.search_both("cpu", Console(quiet=True))
    assert [config.space.operators for config in searched] == [
        ("attention", "short_conv", "swiglu"),
        config_module.load(Path("quick")).space.operators,
    ]
    assert promoted["run"] == "bench-wide-1"
    assert promoted["against"] == (
        "nemotron-flash-1b",
        "llama-3.2-1b",
        *(f"bench-narrow-1:{number}" for number in (1, 0, 3)),
    )
    assert (promoted["tokens"], promoted["seeds"], promoted["top"]) == (10 * searched[0].proxy.tokens, 3, 3)
    assert (found.figures["wide.candidates"], found.figures["narrow.candidates"]) == (4, 4)
    wide, narrow = (float(found.figures[f"{space}.hypervolume@100%"]) for space in ("wide", "narrow"))
    assert wide > narrow
    assert [path.name for path in found.folders] == ["bench-narrow-1", "bench-wide-1"]
    assert isinstance(found.samples, dict)
    assert len(found.samples["narrow candidates"]) == len(found.samples["candidates"]) == 4
