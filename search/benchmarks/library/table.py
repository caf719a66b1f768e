"""Benchmark: how well the latency table predicts whole models.

A search by the table never measures most of its candidates, so the table's errors become the search's. 60
models are drawn at random from a space that is declared for the kind of device, measured, and compared with
the table's sums.

    frontrunner bench table --device cuda:0

Spaces: configs/table_cpu.yaml and configs/table_cuda.yaml. Entries that the device's table has are not
measured again.
"""

from functools import partial

from search.benchmarks.benchmark import Benchmark
from search.benchmarks.table_accuracy import table_accuracy

HOLDOUT = 60

BENCHMARK = Benchmark(
    "table", "how well the latency table predicts whole models", partial(table_accuracy, "table", HOLDOUT)
)
