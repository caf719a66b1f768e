"""Executors: they run evaluations in this process or on a Ray cluster."""
