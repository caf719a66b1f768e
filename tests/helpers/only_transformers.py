"""Loads exported folders where nothing of this project can be imported."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from tests.helpers.without_kernels import plain_definitions

HIDDEN = ("operators", "profiler", "proxy_train", "search", "tests", "pydantic", "einops", "fla", "typer")
_COPIES = "transformers_modules"


@contextmanager
def only_transformers(folder: Path) -> Iterator[None]:
    """Within it an import of this project, or of what it needs besides torch and transformers, fails.

    folder: where `transformers` puts its copies of the code that it runs.
    """
    with (
        plain_definitions(),
        patch.object(sys, "path", list(sys.path)),
        patch("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder)),
    ):
        hidden = {name: module for name, module in sys.modules.items() if _top(name) in HIDDEN}
        sys.modules.update(dict.fromkeys([*HIDDEN, *hidden]))  # None: an import raises ImportError
        try:
            yield
        finally:
            for name in [name for name in sys.modules if _top(name) in (*HIDDEN, _COPIES)]:
                del sys.modules[name]
            sys.modules.update(hidden)


def _top(module: str) -> str:
    return module.partition(".")[0]
