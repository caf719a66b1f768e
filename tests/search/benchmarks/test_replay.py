"""Scores that are interpolated from recorded evaluations: exact where something was evaluated, and near it
close to it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from operators import Architecture
from search.benchmarks.replay import WIDTH, Replay, read_replay
from search.config.run import RunConfig


def architecture(layers: str, *, width: int = 128, ratio: float = 2.0) -> Architecture:
    return Architecture.from_shorthand(
        layers, width=width, vocabulary=512, genes={"swiglu": {"ratio": ratio}}
    )


MEMBERS = [
    architecture(layers)
    for layers in ("a f", "m f", "a f m f", "d f d f a f", "m m f", "f a f a f", "d d d f", "a m d f a")
]
SCORES = np.random.default_rng(0).random((len(MEMBERS), 2))


def edits(a: list[tuple[str, float]], b: list[tuple[str, float]]) -> float:
    """The recursive definition, with half an edit for the same operator of other genes."""
    if not a or not b:
        return len(a) + len(b)
    change = 0.0 if a[0] == b[0] else 0.5 if a[0][0] == b[0][0] else 1.0
    return min(edits(a[1:], b) + 1, edits(a, b[1:]) + 1, edits(a[1:], b[1:]) + change)


@pytest.mark.parametrize(("width", "ratio"), [(128, 2.0), (128, 3.0), (256, 2.0)])
def test_distances_are_edits_and_octaves_of_width(width: int, ratio: float) -> None:
    def words(member: Architecture, ratio: float) -> list[tuple[str, float]]:
        return [(layer.operator, ratio if layer.operator == "swiglu" else 0.0) for layer in member.layers]

    replay = Replay(MEMBERS, SCORES)
    for layers in ("f", "a f d f", "m f m f m f", "a a a a a a a a a"):
        member = architecture(layers, width=width, ratio=ratio)
        expected = [
            edits(words(member, ratio), words(other, 2.0)) + WIDTH * (width == 256) for other in MEMBERS
        ]
        assert replay.distances(member) == pytest.approx(expected)


def test_what_was_evaluated_has_its_scores_and_one_edit_away_is_nearer_to_them_than_the_trend() -> None:
    replay, trend = Replay(MEMBERS, SCORES), Replay(MEMBERS, SCORES * 0)
    assert [replay(member) for member in MEMBERS] == [pytest.approx(tuple(row), abs=1e-6) for row in SCORES]
    assert trend(architecture("a d m f")) == pytest.approx((0, 0))
    outlier = SCORES.copy()
    outlier[3] += 1  # of which a line through eight members takes only a part
    gained = [
        np.subtract(Replay(MEMBERS, outlier)(member), replay(member))
        for member in (MEMBERS[3], architecture("d f d f a f f"))
    ]
    assert gained[0] == pytest.approx([1, 1], abs=1e-6)
    assert (gained[1] > 0.6).all()


def test_a_record_gives_all_whose_losses_after_the_first_rung_are_known(tmp_path: Path) -> None:
    config = RunConfig.model_validate(
        {
            "objectives": ["loss", "decode_ms@b1"],
            "data": {"vocabulary": 512},
            "fidelity": {"rungs": [512, 1024]},
            "proxy": {"tokens": 4096},
        }
    )

    def row(member: Architecture, status: str, metrics: dict[str, float]) -> dict[str, Any]:
        layers = member.model_dump(mode="json", include={"layers"}, exclude_defaults=True)["layers"]
        return {"status": status, "width": member.width, "layers": layers, "metrics": metrics}

    samples = {
        "guided": [
            row(MEMBERS[0], "ok", {"loss@t1024": 3.0, "loss@t512": 4.0, "loss": 2.0, "decode_ms@b1": 6.0})
        ],
        "random": [
            row(MEMBERS[1], "stopped", {"loss@t512": 5.0, "decode_ms@b1": 7.0}),
            row(MEMBERS[2], "timeout", {}),
        ],
        "designs": [{"name": "llama"}],
    }
    path = tmp_path / "search.json"
    path.write_text(json.dumps({"samples": samples}))
    replay = read_replay(path, config)
    assert replay(MEMBERS[0]) == pytest.approx((4, 6), abs=1e-6)
    assert replay(MEMBERS[1]) == pytest.approx((5, 7), abs=1e-6)
