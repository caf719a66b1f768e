"""`load` by its name of earlier versions; today it is `from frontrunner import load`."""

from search.runs.export import load

__all__ = ["load"]
