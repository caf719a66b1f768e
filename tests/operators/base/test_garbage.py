"""The collector of garbage rests while many values are made, and goes on afterwards."""

import gc

import pytest

from operators.base.garbage import many_that_stay


def test_the_collector_rests_and_goes_on_even_after_an_error() -> None:
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    try:
        with pytest.raises(KeyError), many_that_stay():
            made = [[number] for number in range(1000)]
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled()
        assert gc.get_freeze_count() >= frozen + len(made)
        gc.disable()
        with many_that_stay():
            pass
        assert not gc.isenabled()  # it was off before
    finally:
        gc.enable()
        gc.unfreeze()
