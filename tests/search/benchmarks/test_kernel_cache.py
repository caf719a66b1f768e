"""An empty cache of compiled kernels: it is empty, and gone afterwards, whatever happens inside."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from search.benchmarks.kernel_cache import empty_kernel_cache


@pytest.mark.parametrize("before", [None, "/kept"])
def test_inside_the_cache_is_empty_and_afterwards_it_is_what_it_was(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    if before is not None:
        monkeypatch.setenv("TRITON_CACHE_DIR", before)
    inside: Path | None = None
    with suppress(KeyboardInterrupt), empty_kernel_cache():
        inside = Path(os.environ["TRITON_CACHE_DIR"])
        assert list(inside.iterdir()) == []
        raise KeyboardInterrupt
    assert inside is not None
    assert not inside.exists()
    assert os.environ.get("TRITON_CACHE_DIR") == before
