"""How kernel libraries are imported: little of them, and their kernels for any number of heads."""

import json
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

from operators.kernels import compiling, libraries  # noqa: E402
from tests.helpers.without_interpreter import printed  # noqa: E402

KERNEL = """
import triton
import triton.language as tl

@triton.autotune([triton.Config({"block": 16}), triton.Config({"block": 32})], key=["H", "K"])
@triton.jit
def tuned(x, H: tl.constexpr, K: tl.constexpr, block: tl.constexpr):
    tl.store(x + H * K, block)

@triton.jit
def plain(x, HV: tl.constexpr, V: tl.constexpr):
    tl.store(x + HV * V, 1)
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `fla` whose top levels cannot be imported, as if what they need were not there."""
    folder = tmp_path / "fla" / "ops" / "gla"
    folder.mkdir(parents=True)
    for heavy in (tmp_path / "fla", folder.parent):
        (heavy / "__init__.py").write_text("raise RuntimeError('all of it was imported')")
    (folder / "__init__.py").write_text(KERNEL)
    monkeypatch.syspath_prepend(tmp_path)
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "fla"}
    for name in before:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 9))
    monkeypatch.setattr(libraries, "set_up_triton", lambda: None)
    yield folder
    libraries.load.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "fla"]:
        del sys.modules[name]
    sys.modules.update(before)


def test_a_number_of_heads_is_an_argument_of_kernels_and_no_case_of_its_own(library: Path) -> None:
    module = libraries.load("fla.ops.gla")
    constants = {
        kernel.__name__: [parameter.name for parameter in kernel.params if parameter.is_constexpr]
        for kernel in (module.tuned.fn, module.plain)
    }
    assert constants == {"tuned": ["K", "block"], "plain": ["V"]}
    assert all(
        parameter.do_not_specialize
        for kernel in (module.tuned.fn, module.plain)
        for parameter in kernel.params
        if parameter.name in ("H", "HV")
    )
    assert module.tuned.keys == ["K"]


def test_nothing_is_compiled_while_a_library_is_imported(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = SimpleNamespace(calls=0)

    def counted(function: Any = None, **_: Any) -> Any:
        compiler.calls += 1
        return function

    monkeypatch.setattr(torch, "compile", counted)
    (library / "__init__.py").write_text(
        "import torch\n\n@torch.compile\ndef one():\n    return 1\n\n"
        "@torch.compile(fullgraph=True)\ndef two():\n    return 2\n"
    )
    module = libraries.load("fla.ops.gla")
    assert (module.one(), module.two(), compiler.calls) == (1, 2, 0)
    assert torch.compile is counted


def test_losses_are_deterministic_without_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "use_deterministic_algorithms", None)
    before = torch.are_deterministic_algorithms_enabled()
    with libraries.deterministic():
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.are_deterministic_algorithms_enabled() == before


@pytest.mark.parametrize("there", [False, True])
def test_the_user_s_environment_decides_how_triton_compiles(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    environment = {"TRITON_CACHE_DIR": "/mine"}
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: there)
        patch.setattr(libraries, "cache_folder", lambda: Path("/kernels"))
        patch.setattr(os, "environ", environment)
        libraries.set_up_triton()
    added = {"TRITON_CACHE_AUTOTUNING": "1", "TRITON_DEFAULT_FP_FUSION": "1"} if there else {}
    assert environment == {"TRITON_CACHE_DIR": "/mine", **added}


def test_what_was_fastest_is_kept_for_other_processes_also_with_a_function_before_the_kernel(
    tmp_path: Path,
) -> None:
    """A choice that each process made anew would change the order of sums, and with it losses."""

    taken = {"taken": {"block": 32}, "called": [32]}
    assert json.loads(printed("tune_for_hopper", tmp_path, "1", "1")) == {"timed": 3, **taken}
    assert json.loads(printed("tune_for_hopper", tmp_path, "2", "1")) == {"timed": 0, **taken}


def test_processes_that_meet_a_kernel_at_the_same_time_take_one_choice(tmp_path: Path) -> None:
    """To each another configuration seems the fastest."""

    def found(fastest: int) -> Any:
        return json.loads(printed("tune_for_hopper", tmp_path, str(fastest), "3"))

    with ThreadPoolExecutor(3) as several:
        processes = list(several.map(found, range(3)))
    assert sorted(each["timed"] for each in processes) == [0, 0, 3]
    assert len({each["taken"]["block"] for each in processes}) == 1


def test_who_waits_for_another_one_s_choice_lets_go_of_the_device_and_at_last_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that tunes may wait for the device, which all others must have left for that."""
    let_go, came_back = threading.Event(), threading.Event()

    @contextmanager
    def without_device() -> Iterator[None]:
        let_go.set()
        yield
        came_back.set()

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling, "_context", without_device)

    def wait() -> bool:
        with libraries._alone("kernel"):
            return came_back.is_set()

    with ThreadPoolExecutor(1) as beside:
        with libraries._alone("kernel"):
            other = beside.submit(wait)
            assert let_go.wait(30)
            assert not came_back.is_set()
        assert other.result()
        monkeypatch.setattr(libraries, "_TURN_S", 0.05)
        with libraries._alone("kernel"):
            beside.submit(wait).result()
