"""Kernels compile for a Hopper GPU: the interpreter accepts more than the compiler."""

from pathlib import Path

from tests.helpers.without_interpreter import printed

OF_DECODING, OTHERS = 17, 3


def test_kernels_compile_and_those_of_decoding_wait_for_the_kernel_before(tmp_path: Path) -> None:
    lines = printed("compile_for_hopper", tmp_path).splitlines()
    assert [line.split()[1] for line in lines] == ["early"] * OF_DECODING + ["late"] * OTHERS
