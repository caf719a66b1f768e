"""Our Triton kernels run on a GPU where there is one, and in Triton's interpreter elsewhere."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from tests.operators.conftest import INTERPRETED


@pytest.fixture(autouse=True, scope="package")
def _runnable() -> Iterator[None]:
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():
            patch.setenv(INTERPRETED, "1")
            _patch_language_once(patch)
        yield


def _patch_language_once(patch: pytest.MonkeyPatch) -> None:
    """The interpreter makes the modules of Triton's language its own whenever a function is called, which
    takes a quarter of the time. Within a kernel they are its own already, since the kernel's launch.
    """
    from triton import language
    from triton.runtime import interpreter

    own, modules = interpreter._patch_lang, (language, language.core)

    def patched(function: Any) -> Any:
        seen = [module for module in modules if module in function.__globals__.values()]
        original = any(language.core.is_builtin(module.load) for module in seen)
        return own(function) if original else interpreter._LangPatchScope()

    patch.setattr(interpreter, "_patch_lang", patched)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """New memory is full of NaN, so that what a kernel does not write is seen."""

    def poison(make: Any) -> Any:
        def made(*args: Any, **kwargs: Any) -> torch.Tensor:
            tensor: torch.Tensor = make(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor.fill_(2**30)

        return made

    for place, name in ((torch.Tensor, "new_empty"), (torch, "empty"), (torch, "empty_like")):
        monkeypatch.setattr(place, name, poison(getattr(place, name)))
