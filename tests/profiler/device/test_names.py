"""Names of devices: which are engines of others, where they compute, and what is refused."""

import pytest

from operators.base.errors import DeviceError
from profiler.device.device import open_device
from profiler.device.names import computes_on, engine_of, engine_on


@pytest.mark.parametrize(
    ("name", "engine", "computes"),
    [
        ("cpu", "", "cpu"),
        ("cuda:1", "", "cuda:1"),
        ("llama.cpp", "llama.cpp", "cpu"),
        ("transformers", "transformers", "cpu"),
        ("transformers/cuda:2", "transformers", "cuda:2"),
        ("tpu", "", "tpu"),
    ],
)
def test_a_name_says_what_computes_where(name: str, engine: str, computes: str) -> None:
    assert (engine_of(name), computes_on(name)) == (engine, computes)
    if engine:
        assert engine_on(engine, computes) == name


@pytest.mark.parametrize(
    ("name", "engines", "message"),
    [
        ("llama.cpp", False, "device llama.cpp: llama.cpp is an engine of others, which only measures whole"),
        ("tpu", True, "unknown device 'tpu': expected cpu, cuda or cuda:N, or an engine: llama.cpp, "),
        ("tpu", False, "unknown device 'tpu': expected cpu, cuda or cuda:N$"),
        (
            "llama.cpp/cuda:0",
            True,
            "engine llama.cpp: expected device cpu, got cuda:0$",
        ),
        ("transformers/cpu", True, "unknown device 'transformers/cpu': expected transformers$"),
        ("transformers/tpu", True, "engine transformers: expected device cpu, cuda or cuda:N, got tpu$"),
    ],
)
def test_other_names_are_one_line(name: str, engines: bool, message: str) -> None:
    with pytest.raises(DeviceError, match=f"^{message}") as error:
        open_device(name, engines=engines)
    assert "\n" not in str(error.value)


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(DeviceError, match=r"^unknown engine 'nonsense': expected one of llama.cpp, "):
        engine_on("nonsense", "cpu")


def test_an_engine_shares_the_lock_of_its_processor() -> None:
    pytest.importorskip("xllamacpp")
    pytest.importorskip("gguf")
    assert open_device("llama.cpp", engines=True).lock_key == open_device("cpu").lock_key
