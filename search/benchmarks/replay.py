"""Scores any architecture of a space from a search's recorded evaluations, without a measurement or training.

An architecture that was evaluated has the loss and latency that were measured, as means where both searches
evaluated it. Any other has what a linear model of depth, parameters and bytes of a decode step expects,
corrected by the errors of that model at the most similar evaluated architectures. Similarity is the distance
of sequences (Levenshtein 1966) and of widths. Our searcher's surrogates look at neither.
"""

import json
from collections.abc import Hashable, Sequence
from math import log2
from pathlib import Path
from typing import Any

import numpy as np

from operators import Architecture
from operators.cost import cost
from search.benchmarks.runs import latency, recorded
from search.config.run import RunConfig
from search.evaluation.fidelity import rung_metric
from search.pareto import Floats

# Evaluated architectures whose errors correct the linear model.
NEAREST = 8
WIDTH = 4.0
"""A width half as large is as far away as this many different layers."""

Word = tuple[str, Hashable]


class Replay:
    """Callable: architecture -> loss (nats per token) and time of a decode step (ms).

    The loss is the one after the tokens of the first rung: every evaluated candidate was trained that far.
    """

    def __init__(self, members: Sequence[Architecture], scores: Floats) -> None:
        """Fits the linear model to the scores [n, 2] of n members."""
        longest = max(member.depth for member in members)
        self._known: dict[Word, int] = {}
        self._operators: dict[str, int] = {}
        coded = [self._words(member) for member in members]
        self._layers = np.stack(
            [np.pad(each, ((0, longest - len(each)), (0, 0)), constant_values=-1) for each in coded]
        )
        self._depths = np.array([member.depth for member in members])
        self._widths = np.array([log2(member.width) for member in members])
        trend = np.array([_trend(member) for member in members])
        self._weights = np.linalg.lstsq(trend, scores, rcond=None)[0]
        self._errors = scores - trend @ self._weights

    def __call__(self, member: Architecture) -> tuple[float, float]:
        distances = self.distances(member)
        nearest = np.argsort(distances, kind="stable")[:NEAREST]
        weights = np.maximum(distances[nearest], 1e-6) ** -2.0
        loss, ms = _trend(member) @ self._weights + weights @ self._errors[nearest] / weights.sum()
        return float(loss), float(ms)

    def distances(self, member: Architecture) -> Floats:
        """Returns the distance from a member to each evaluated architecture: [n].

        An edit of a layer counts 1, or a half where only the genes differ. The difference in width is added.
        """
        lengths = np.arange(self._layers.shape[1] + 1)
        row = np.broadcast_to(lengths, (len(self._layers), len(lengths))).astype(float)
        for count, (operator, word) in enumerate(self._words(member), start=1):
            changed = (
                row[:, :-1]
                + 0.5 * (self._layers[:, :, 0] != operator)
                + 0.5 * (self._layers[:, :, 1] != word)
            )
            best = np.minimum(row[:, 1:] + 1, changed)
            row = np.concatenate([np.full((len(row), 1), float(count)), best], axis=1)
            # Layers that only the evaluated architecture has count as edits too.
            row = np.minimum.accumulate(row - lengths, axis=1) + lengths
        edits = row[np.arange(len(row)), self._depths]
        return np.asarray(edits + WIDTH * np.abs(self._widths - log2(member.width)), float)

    def _words(self, member: Architecture) -> np.ndarray[Any, np.dtype[np.int_]]:
        """Returns two numbers for each layer: one of its operator, one of operator and genes: [depth, 2]."""
        words: list[Word] = [
            (layer.operator, tuple(sorted(layer.shape.genes(member.width).items())))
            for layer in member.layers
        ]
        numbers = [
            (
                self._operators.setdefault(operator, len(self._operators)),
                self._known.setdefault((operator, genes), len(self._known)),
            )
            for operator, genes in words
        ]
        return np.array(numbers)


def read_replay(record: Path, config: RunConfig) -> Replay:
    """Reads the searches of a record of `bench search` with that configuration."""
    samples = json.loads(record.read_text())["samples"]
    rows = [
        row for name in ("guided", "random") for row in samples[name] if row["status"] in ("ok", "stopped")
    ]
    metrics = (rung_metric(config.fidelity.rungs[0]), latency(config))
    return Replay(
        [recorded(row, config) for row in rows],
        np.array([[row["metrics"][name] for name in metrics] for row in rows]),
    )


def _trend(member: Architecture) -> Floats:
    found = cost(member, batch=1, context=8192)
    return np.array([1.0, member.depth, log2(found.params), found.decode_bytes / 1e9])
