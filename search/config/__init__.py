"""The settings of a run: frozen values that import no machinery.

The two names are imported when they are first used: they need torch, and `search.config.name` does not.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.config.run import RunConfig, load

__all__ = ["RunConfig", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from search.config import run

    return getattr(run, name)
