"""One file for each benchmark; each ends in `BENCHMARK = Benchmark(...)`."""
