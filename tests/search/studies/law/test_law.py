"""`frontrunner law`: the shape that it picks against brute force, and its commands on records whose law is
known.
"""

import json
from itertools import product
from math import exp
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from operators import Architecture
from operators.base.errors import ConfigError, TableError
from operators.cost import parameters
from profiler.table.latency_table import LatencyTable
from profiler.table.parts import Point
from search.cli import law as law_cli
from search.studies import experiment_store
from search.studies.experiment_store import Latency, Training
from search.studies.law.fit import Fitted, Law
from search.studies.law.law import LawSettings, label
from search.studies.law.pick import LatencyLaw, from_measurements, from_table, latency_law, pick
from tests.fixtures import Call

LAW = Law(floor=2.2, a=1.4, alpha=0.8, b=30.0, beta=0.7)
LATENCY = LatencyLaw(t0=0.2, u=0.01, v=1e-4, w=2e-6)
SETTINGS = LawSettings(
    depths=(1, 2, 4, 8), widths=(32, 64, 128), genes={"attention": {"head_dim": 16, "group": 1}}
)
SHAPES = list(product(SETTINGS.depths, SETTINGS.widths))
MEASURED = {shape: float(LATENCY.ms(*shape)) for shape in SHAPES}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Records of a law named `some` that follow LAW and LATENCY exactly."""
    fixed = SETTINGS.fixed()
    with experiment_store.opened(
        tmp_path, "some", settings=SETTINGS.model_dump(mode="json"), fixed=fixed
    ) as store:
        for shape in SHAPES:
            store.add(Latency(label=label(*shape), decode_ms={"decode_ms@b1": MEASURED[shape]}))
            common = {
                "label": label(*shape),
                "tokens": SETTINGS.proxy.tokens,
                "seed": 0,
                "seconds": 1.0,
                "params": 1,
                "flops": 1,
            }
            store.add(Training.model_validate({**common, "status": "ok", "loss": float(LAW.loss(*shape))}))
    return tmp_path


def test_the_latency_law_is_recovered_from_its_own_times() -> None:
    found = latency_law(MEASURED)
    assert [found.t0, found.u, found.v, found.w] == pytest.approx(
        [LATENCY.t0, LATENCY.u, LATENCY.v, LATENCY.w], rel=1e-4
    )
    assert found.ms(6, 96) == pytest.approx(0.2 + 6 * (0.01 + 96e-4 + 96**2 * 2e-6), rel=1e-4)


@pytest.mark.parametrize("measured", [{}, {(1, 32): 1.0, (1, 64): 1.1, (1, 96): 1.2, (1, 128): 1.3}])
def test_too_few_latencies_are_refused(measured: dict[tuple[int, int], float]) -> None:
    with pytest.raises(ConfigError, match="expected at least 4 measured points of 2 depths and 2 widths"):
        latency_law(measured)


@pytest.mark.parametrize("budget_ms", [0.25, 0.3, 0.4, 0.55])
def test_the_pick_is_the_best_of_all_shapes_by_brute_force(budget_ms: float) -> None:
    choices = pick(
        SETTINGS, Fitted(LAW, (LAW,)), from_measurements(MEASURED), MEASURED, budget_ms=budget_ms, tokens=1
    )
    within = [(d, w) for d in range(1, 9) for w in (32, 64, 96, 128) if LATENCY.ms(d, w) <= budget_ms]
    best = min(within, key=lambda shape: LAW.loss(*shape))
    assert (choices[0].depth, choices[0].width) == best
    assert len(choices) == len(within)
    assert [choice.loss for choice in choices] == sorted(float(LAW.loss(*shape)) for shape in within)
    assert all(choice.measured == ((choice.depth, choice.width) in MEASURED) for choice in choices)
    architecture = Architecture.from_shorthand(
        " ".join(["a f"] * best[0]), width=best[1], vocabulary=4096, genes=SETTINGS.genes
    )
    assert choices[0].params == parameters(architecture)


def test_a_measured_time_goes_before_the_laws() -> None:
    slow = {**MEASURED, (8, 128): 99.0}
    assert from_measurements(slow)(8, 128) == 99.0


def test_an_empty_latency_table_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(TableError, match="attention"):
        from_table(LatencyTable(Path("none.json"), {}), SETTINGS, Point("decode", 1, 256))


def test_fit_recovers_the_law_of_the_records_and_predicts_what_it_did_not_see(
    results: Path, call: Call
) -> None:
    code, out, err = call("law", "fit", "some", "--holdout", "2", "--results", results, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert {name: one["value"] for name, one in found["law"].items()} == pytest.approx(
        {"floor": 2.2, "a": 1.4, "alpha": 0.8, "b": 30.0, "beta": 0.7, "c": 0, "gamma": 0}, rel=0.02
    )
    assert [(row["depth"], row["width"]) for row in found["held_out"]] == [(4, 128), (8, 128)]
    assert found["held_out_perplexity_error_max"] < 1e-3
    assert len(found["fitted"]) == 10
    assert (results / "some" / "law.png").read_bytes().startswith(b"\x89PNG")


def test_fit_of_perplexity_fits_its_exponential(results: Path, call: Call) -> None:
    found = json.loads(call("law", "fit", "some", "--of", "perplexity", "--results", results, "--json")[1])
    row = found["held_out"][-1]
    assert row["measured"] == pytest.approx(exp(float(LAW.loss(8, 128))))
    assert row["perplexity_error"] == pytest.approx(row["predicted"] / row["measured"] - 1)


def test_pick_prints_the_best_shape_and_says_where_its_time_is_from(
    results: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(law_cli, "console", Console(width=80, highlight=False))
    code, out, _ = call("law", "pick", "some", "--latency-ms", "0.55", "--results", results, "--json")
    best = json.loads(out)[0]
    brute = min(
        ((d, w) for d in range(1, 9) for w in (32, 64, 96, 128) if LATENCY.ms(d, w) <= 0.55),
        key=lambda shape: float(LAW.loss(*shape)),
    )
    assert (code, best["depth"], best["width"]) == (0, *brute)
    assert best["low"] <= best["loss"] <= best["high"]
    lines = call("law", "pick", "some", "--latency-ms", "0.55", "--results", results)[1].splitlines()
    first = next(line.split() for line in lines if line.strip()[:1].isdigit())
    assert first[:2] == [str(best["depth"]), str(best["width"])]
    assert first[4] == ("measured" if best["measured"] else "law")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["pick", "some", "--latency-ms", "0.01"],
            "no shape is as fast: the fastest, depth 1 and width 32, takes",
        ),
        (
            ["pick", "some", "--latency-ms", "1", "--batch", "3"],
            "--batch 3: expected one that was measured: 1, 8",
        ),
        (
            ["pick", "some", "--latency-ms", "1", "--tokens", "5"],
            "--tokens 5: expected a budget that was trained: 150000",
        ),
        (["fit", "some", "--holdout", "12"], "--holdout: expected 0 to 11 of 12 shapes"),
        (["fit", "some", "--holdout", "7"], "expected at least"),
        (["fit", "none"], "unknown experiment 'none': expected one of those in"),
        (["fit", "../some"], "unknown experiment '../some'"),
    ],
)
def test_what_cannot_be_answered_is_one_line(
    results: Path, call: Call, arguments: list[str], message: str
) -> None:
    code, _, err = call("law", *arguments, "--results", results)
    assert (code, err.count("\n")) == (1, 1)
    assert message in err


def test_an_experiment_without_trainings_has_no_law(tmp_path: Path, call: Call) -> None:
    with experiment_store.opened(
        tmp_path, "new", settings=SETTINGS.model_dump(mode="json"), fixed=SETTINGS.fixed()
    ):
        pass
    for command in (["fit", "new"], ["pick", "new", "--latency-ms", "1"]):
        code, _, err = call("law", *command, "--results", tmp_path)
        assert (code, err) == (
            1,
            "error: the law: expected at least 3 different depths, got 0; a power cannot "
            "be told from a constant by fewer\n",
        )


def test_latency_grows_with_depth_and_width() -> None:
    noisy = {
        shape: ms * (1 + 0.05 * np.sin(17 * number)) for number, (shape, ms) in enumerate(MEASURED.items())
    }
    found = latency_law(noisy)
    times = np.array([[found.ms(d, w) for w in (32, 64, 96, 128)] for d in (1, 2, 4, 8)])
    assert (np.diff(times, axis=0) >= 0).all()
    assert (np.diff(times, axis=1) >= 0).all()
