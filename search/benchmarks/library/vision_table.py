"""Benchmark: how well the latency table predicts the time to the first token of models that see.

A search for models that see rejects candidates by the table, and trades their parts at equal predicted time.
40 models are drawn at random from a space that is declared for the kind of device, measured from the pictures
to the first token, and compared with the table's sums over pictures, tower, projector and prefill.

    pip install 'frontrunner[vision]'
    frontrunner bench vision_table --device cuda:0

Spaces: configs/table_vision_cpu.yaml and configs/table_vision_cuda.yaml. Entries that the device's table has
are not measured again.
"""

from functools import partial

from search.benchmarks.benchmark import Benchmark
from search.benchmarks.table_accuracy import table_accuracy

HOLDOUT = 40

BENCHMARK = Benchmark(
    "vision_table",
    "how well the latency table predicts the time to the first token of models that see",
    partial(table_accuracy, "table_vision", HOLDOUT),
    needs={"PIL": "pip install 'frontrunner[vision]'"},
)
