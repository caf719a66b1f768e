"""Benchmark: what mixers are worth alone and in pairs.

A hybrid model pays off where two kinds of mixer do better together than either does alone. Models of equal
size are trained with each mixer and with each pair in turns, and timed while they decode.

    frontrunner bench mixers --device cuda

Settings: configs/study_operators_cpu.yaml or configs/study_operators_h100.yaml. An interrupted run goes on
when the command is given again.
"""

from dataclasses import asdict

from rich.console import Console

from search.benchmarks import study
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.record import RESULTS
from search.studies import operators as study_operators
from search.studies.operators import OperatorSettings
from search.studies.report import operators_table
from search.view.terminal_tables import show


def mixers_alone_and_in_pairs(device: str, console: Console) -> Measured:
    """Loss, parameters and latencies of every block."""
    settings = study.load(OperatorSettings, "study_operators", device)
    folder = study.folder(settings)
    rows = study_operators.run(settings, results=RESULTS, name=folder.name, console=console)
    show(console, operators_table(rows, settings))
    figures: Figures = {
        "tokens": settings.proxy.tokens,
        "seeds": len(settings.seeds),
        "blocks": len(rows),
        "equal": settings.equal,
    }
    for row in rows:
        of_block: Figures = {"loss": row.loss or 0.0, "params": row.params, **row.decode_ms}
        if row.problem:
            of_block = {"problem": row.problem}
        figures |= {f"{'+'.join(row.mixers)}.{name}": value for name, value in of_block.items()}
    return Measured(figures, [asdict(row) for row in rows], folders=[folder])


BENCHMARK = Benchmark(
    "mixers", "loss and latency of models of one mixer, and of two in turns", mixers_alone_and_in_pairs
)
