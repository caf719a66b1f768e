"""The public way to read an exported folder: `from search.export import load`."""

from search.runs.export import load

__all__ = ["load"]
