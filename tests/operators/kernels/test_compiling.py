"""What is done around each compilation of a kernel: a device that is held is left meanwhile."""

import json
from pathlib import Path

import pytest

from tests.helpers.without_interpreter import printed

pytest.importorskip("triton")


def test_a_device_is_free_while_a_kernel_compiles_for_its_holder(tmp_path: Path) -> None:
    assert json.loads(printed("compile_outside_the_lock", tmp_path)) == {
        "while _one compiles": True,
        "behind it": False,
        "while _two compiles": True,
        "while _wrong compiles": True,
        "refused": True,
        "behind the wrong one": False,
        "at the end": True,
    }
