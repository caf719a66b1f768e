"""Benchmark: what a search found against published designs, at full size and after ten times the tokens.

A search scores architectures by short trainings of smaller models. Whether its winners still win after longer
trainings is what counts.

    frontrunner bench search --device cuda
    frontrunner bench winners --device cuda

The first command writes the record that the second one reads. Of that record, the designs are taken that come
nearest to what the search found, each with the best candidate that decodes no slower. Both are trained longer
and measured anew.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from operators import Architecture
from operators.base.errors import ConfigError
from profiler.device.device import open_device
from search.benchmarks import runs as runs_of
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.record import RECORDS, folder, read
from search.config.run import RunConfig
from search.runs.preflight import prepare_run
from search.studies import experiment
from search.studies.experiment import Wanted
from search.studies.parallel import train_ahead
from search.view.tables import MARK

LONGER = 10
PAIRS = 3
_RECORDS = {
    "cpu": RECORDS / "cpu" / "search.json",
    "cuda": RECORDS / "h200" / "search.json",
}


@dataclass(frozen=True)
class Pair:
    """A published design at one width, and the best candidate that decodes no slower.

    gain: the design's loss less the candidate's in the search (nats per token).
    """

    design: str
    width: int
    candidate: int
    gain: float


def train_longer(device: str, console: Console) -> Measured:
    """Gains in the search and after the longer trainings, and each pair with its losses and latencies.

    Raises ConfigError without the record of a search.
    """
    path = _RECORDS[open_device(device).torch_device.type]
    if not path.is_file():
        raise ConfigError(
            f"bench winners: expected the record of `frontrunner bench search` in {path}, which is not there"
        )
    samples = read(path)["samples"]
    config = runs_of.load(device)
    pairs = hardest(samples, runs_of.latency(config))
    if not pairs:
        raise ConfigError(
            f"bench winners: expected a design in {path} with a candidate that is as fast, got none"
        )
    members = _members(pairs, samples, config)
    settings = runs_of.member_settings(config, tokens=LONGER * config.proxy.tokens)
    at_work = folder("winners", settings, settings.data, settings.device)
    with experiment.session(settings, results=at_work.parent, name=at_work.name, console=console) as at:
        wanted = {name: Wanted(name, member, settings.proxy, config.seed) for name, member in members.items()}
        experiment.prepare_kernels(at, members.values(), measured=True)
        train_ahead(at, wanted.values())
        results = {
            name: (experiment.trained(at, one), experiment.measured(at, name, one.architecture))
            for name, one in wanted.items()
        }
    figures: Figures = {"tokens": settings.proxy.tokens, "pairs": len(pairs)}
    rows = []
    for pair in pairs:
        row: dict[str, Any] = {**vars(pair)}
        for side, name in (("design", _design(pair)), ("candidate", _candidate(pair))):
            training, latency = results[name]
            row |= {
                f"{side}_params": training.params,
                f"{side}_loss": training.loss,
                f"{side}_decode_ms": latency.decode_ms,
            }
            row |= {f"{side}_tainted": list(latency.tainted)}
            row |= {f"{side}_problem": latency.problem or training.reason}
        not_trusted = [side for side in ("design", "candidate") if row[f"{side}_tainted"]]
        if row["design_loss"] is not None and row["candidate_loss"] is not None:
            row["gain_longer"] = row["design_loss"] - row["candidate_loss"]
            figures |= {
                f"{pair.design}.gain_short": pair.gain,
                f"{pair.design}.gain_longer": row["gain_longer"],
            }
            gains = f"{pair.gain:+.4f} in the search, {row['gain_longer']:+.4f} trained longer"
            gains += f"; {MARK} latency tainted: {', '.join(not_trusted)}" if not_trusted else ""
            console.print(
                f"{_candidate(pair)} against {_design(pair)}: {gains}", soft_wrap=True, highlight=False
            )
        rows.append(row)
    return Measured(figures, rows, folders=[at_work])


def hardest(samples: Mapping[str, Any], latency: str) -> list[Pair]:
    """The widths at which designs come nearest to what was found, one of each design, nearest first.

    samples: those of a record of `frontrunner bench search`.
    latency: the metric of a candidate's time.
    """
    least: dict[str, Mapping[str, Any]] = {}
    for design in samples["designs"]:
        if (
            design["gain"] is not None
            and design["gain"] < least.get(design["name"], {"gain": float("inf")})["gain"]
        ):
            least[design["name"]] = design
    nearest = sorted(least.values(), key=lambda design: float(design["gain"]))[:PAIRS]
    return [
        Pair(design["name"], design["width"], _best(samples["guided"], latency, design["ms"]), design["gain"])
        for design in nearest
    ]


def _best(rows: Iterable[Mapping[str, Any]], latency: str, ms: float) -> int:
    as_fast = [row for row in rows if row["status"] == "ok" and row["metrics"][latency] <= ms]
    return int(min(as_fast, key=lambda row: float(row["metrics"]["loss"]))["id"])


def _members(pairs: Iterable[Pair], samples: Mapping[str, Any], config: RunConfig) -> dict[str, Architecture]:
    """By label, each once."""
    designs = {(member.name, member.width): member for member in prepare_run(config).space.designs()}
    rows = {row["id"]: row for row in samples["guided"]}
    members: dict[str, Architecture] = {}
    for pair in pairs:
        members[_design(pair)] = designs[pair.design, pair.width]
        members[_candidate(pair)] = runs_of.recorded(rows[pair.candidate], config)
    return members


def _design(pair: Pair) -> str:
    return f"{pair.design} width {pair.width}"


def _candidate(pair: Pair) -> str:
    return f"candidate {pair.candidate}"


BENCHMARK = Benchmark(
    "winners", "what the recorded search found against published designs, trained longer", train_longer
)
