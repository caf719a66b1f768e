"""The collector of garbage rests while many values are made, and goes on afterwards."""

import gc

import pytest

from operators.base.garbage import many_that_stay


def test_the_collector_rests_and_goes_on_even_after_an_error() -> None:
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    try:
        made: list[list[int]] = []
        with pytest.raises(KeyError):
            _make(made, 1000)
        assert gc.isenabled()
        assert gc.get_freeze_count() >= frozen + 1000
        gc.disable()
        with many_that_stay():
            pass
        assert not gc.isenabled()  # it was off before
    finally:
        gc.enable()
        gc.unfreeze()


def _make(made: list[list[int]], count: int) -> None:
    """Makes values, and raises KeyError."""
    with many_that_stay():
        made += [[number] for number in range(count)]
        assert not gc.isenabled()
        raise KeyError(count)
