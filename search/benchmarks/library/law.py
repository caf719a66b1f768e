"""Benchmark: the depth-width law, and its error on shapes that were held out.

The law predicts a loss from depth, width and tokens, so that a good shape need not be searched for. It is
worth as much as its predictions for shapes larger than those that it was fitted to. The largest shapes are
therefore held out.

    frontrunner bench law --device cuda

Settings: configs/law_cpu.yaml or configs/law_h100.yaml. An interrupted run goes on when the command is given
again.
"""

from rich.console import Console

from profiler.device.device import open_device
from search.benchmarks import study
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.record import RESULTS
from search.studies.law import law
from search.studies.law import report as law_report
from search.studies.law.law import LawSettings

HOLDOUT = 3  # the largest shapes, which the fit does not see


def depth_width_law(device: str, console: Console) -> Measured:
    """Coefficients of the law, relative errors of its perplexities, every point, and the plot."""
    settings = study.load(LawSettings, "law", device)
    folder = law.run(settings, results=RESULTS, name=study.folder(settings).name, console=console)
    grid = law.grid(RESULTS, folder.name)
    checked = law_report.check(grid, of="loss", holdout=HOLDOUT, tokens=None)
    law_report.print_check(console, checked)
    report = law_report.figures(checked)
    path = folder / "law.png"
    drawn = law_report.plot(grid, checked, path, title=open_device(device).name)
    figures: Figures = {
        "points_fitted": len(checked.points),
        "points_held_out": len(checked.held),
        **{
            name: value
            for name, value in report.items()
            if name.startswith(("perplexity_error", "held_out_perplexity"))
        },
        **{f"law.{name}": coefficient["value"] for name, coefficient in report["law"].items()},
        "block": settings.block,
    }
    times = [{"depth": shape[0], "width": shape[1], **metrics} for shape, metrics in grid.decode_ms.items()]
    files = {"png": path.read_bytes()} if drawn else {}
    return Measured(figures, {**report, "decode_ms": times}, files, [folder])


BENCHMARK = Benchmark(
    "law", "the depth-width law, and its error on shapes that were held out", depth_width_law
)
