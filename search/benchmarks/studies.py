"""The depth-width law and studies of mixers, ranks, normalization and learning rates, as configurations for a CPU and an H100 have them.

Each is an experiment, whose folder has a name made of everything that its record depends on: one that was interrupted goes on there when
the same is measured again, and nothing else meets it (`folders`).
"""

from dataclasses import asdict
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from profiler.device import open_device
from search.benchmarks import folders
from search.benchmarks.folders import RESULTS
from search.studies import (
    experiment,
    law,
    law_report,
    study_normalization,
    study_operators,
    study_ranks,
    study_rates,
)
from search.studies.experiment import ExperimentSettings
from search.studies.law import LawSettings
from search.studies.ranks import Correlation
from search.studies.study_normalization import NormalizationSettings
from search.studies.study_operators import OperatorSettings
from search.studies.study_ranks import RankSettings
from search.studies.study_rates import RateSettings
from search.studies.study_report import normalization_table, operators_table, print_ranks, rates_table

HOLDOUT = 3
_CONFIGS = {"cpu": "cpu", "cuda": "h100"}

Figures = dict[str, float | int | str]
Found = tuple[Figures, Any, dict[str, bytes], list[Path]]


def depth_width_law(device: str, console: Console) -> Found:
    """Figures, every point, the plot, and the experiment's folder. Errors are relative ones of perplexity."""
    settings = experiment.load(LawSettings, _config("law", device)).model_copy(update={"device": device})
    folder = law.run(settings, results=RESULTS, name=_folder(settings).name, console=console)
    grid = law.grid(RESULTS, folder.name)
    checked = law_report.check(grid, of="loss", holdout=HOLDOUT, tokens=None)
    law_report.print_check(console, checked)
    found = law_report.figures(checked)
    path = folder / "law.png"
    drawn = law_report.plot(grid, checked, path, title=open_device(device).name)
    figures: Figures = {
        "points_fitted": len(checked.points),
        "points_held_out": len(checked.held),
        **{
            name: value
            for name, value in found.items()
            if name.startswith(("perplexity_error", "held_out_perplexity"))
        },
        **{f"law.{name}": coefficient["value"] for name, coefficient in found["law"].items()},
        "block": settings.block,
    }
    times = [{"depth": shape[0], "width": shape[1], **metrics} for shape, metrics in grid.decode_ms.items()]
    return figures, {**found, "decode_ms": times}, {"png": path.read_bytes()} if drawn else {}, [folder]


def rank_study(device: str, console: Console) -> Found:
    """Figures, every architecture with both losses, no files, and the experiment's folder."""
    settings = experiment.load(RankSettings, _config("study_ranks", device)).model_copy(
        update={"device": device}
    )
    folder = _folder(settings)
    study = study_ranks.run(settings, results=RESULTS, name=folder.name, console=console)
    print_ranks(console, study)
    figures: Figures = {
        "architectures": len(study.compared),
        "failed": len(study.failed),
        "short_tokens": settings.proxy.tokens,
        "long_tokens": settings.long_tokens,
        "learning_rate": settings.proxy.learning_rate,
        "weight_normalization": settings.proxy.weight_normalization,
        "short_s_per_training": fmean(one.seconds_short for one in study.compared),
        "long_s_per_training": fmean(one.seconds_long for one in study.compared),
    }
    for predictor, both in study.correlations.items():
        for name, found in both.items():
            figures |= {f"{predictor.replace(' ', '_')}.{name}{part}": value for part, value in _parts(found)}
    return (
        figures,
        {"architectures": [asdict(one) for one in study.compared], "failed": study.failed},
        {},
        [folder],
    )


def mixers_alone_and_in_pairs(device: str, console: Console) -> Found:
    """Figures, every block with its loss and latencies, no files, and the experiment's folder."""
    settings = experiment.load(OperatorSettings, _config("study_operators", device)).model_copy(
        update={"device": device}
    )
    folder = _folder(settings)
    rows = study_operators.run(settings, results=RESULTS, name=folder.name, console=console)
    console.print(operators_table(rows, settings))
    figures: Figures = {
        "tokens": settings.proxy.tokens,
        "seeds": len(settings.seeds),
        "blocks": len(rows),
        "equal": settings.equal,
    }
    for row in rows:
        found = (
            {"problem": row.problem}
            if row.problem
            else {"loss": row.loss or 0.0, "params": row.params, **row.decode_ms}
        )
        figures |= {f"{'+'.join(row.mixers)}.{name}": value for name, value in found.items()}
    return figures, [asdict(row) for row in rows], {}, [folder]


def weight_normalization(device: str, console: Console) -> Found:
    """Figures, the losses of every seed, no files, and the experiment's folder."""
    settings = experiment.load(NormalizationSettings, _config("study_normalization", device)).model_copy(
        update={"device": device}
    )
    folder = _folder(settings)
    effects = study_normalization.run(settings, results=RESULTS, name=folder.name, console=console)
    console.print(normalization_table(effects, settings))
    figures: Figures = {"tokens": settings.proxy.tokens, "seeds": len(settings.seeds)}
    figures |= {
        "learning_rate": settings.proxy.learning_rate,
        "normalized_learning_rate": settings.rate_with_it,
    }
    for effect in effects:
        found = (
            {"problem": effect.problem}
            if effect.problem
            else {"params": effect.params, "gain": effect.gain, "gain_error": effect.error}
        )
        figures |= {f"{effect.family}.{name}": value for name, value in found.items()}
    return figures, [asdict(effect) for effect in effects], {}, [folder]


def learning_rates(device: str, console: Console) -> Found:
    """Figures, the losses of every width and rate, no files, and the experiment's folder."""
    settings = experiment.load(RateSettings, _config("study_rates", device)).model_copy(
        update={"device": device}
    )
    folder = _folder(settings)
    sweeps = study_rates.run(settings, results=RESULTS, name=folder.name, console=console)
    console.print(rates_table(sweeps, settings))
    figures: Figures = {
        "tokens": settings.proxy.tokens,
        "seeds": len(settings.seeds),
        "best_rate_at_base_width": sweeps[0].chosen,
    }
    figures |= {"weight_normalization": settings.proxy.weight_normalization}
    for sweep in sweeps:
        where = f"width{sweep.width}.{'carried' if sweep.carried else 'as_it_is'}"
        figures |= {
            f"{where}.best_rate": sweep.best,
            f"{where}.lost": sweep.lost if isfinite(sweep.lost) else "failed",
        }
    return figures, [asdict(sweep) for sweep in sweeps], {}, [folder]


def _parts(found: Correlation) -> tuple[tuple[str, float], ...]:
    return ("", found.value), (".low", found.low), (".high", found.high)


def _config(what: str, device: str) -> Path:
    return Path("configs") / f"{what}_{_CONFIGS[open_device(device).torch_device.type]}.yaml"


def _folder(settings: ExperimentSettings) -> Path:
    return folders.folder(settings.kind, settings, settings.data, settings.device)
