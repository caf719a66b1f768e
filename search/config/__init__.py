"""The settings of a run: frozen values that import no machinery."""

from search.config.run import RunConfig, load

__all__ = ["RunConfig", "load"]
