"""Constraints that need no measurement: what they are about is computed, and nothing else."""

import pytest
import torch

from operators.architecture import Architecture, layers_from_shorthand
from operators.cost import cost
from search.config.run import RunConfig, parse
from search.gates import arithmetic as arithmetic_module
from search.gates.arithmetic import arithmetic, arithmetic_check
from search.gates.screen import Check

MEMBER = Architecture(width=64, layers=layers_from_shorthand("a f", width=64), vocabulary=512)


def config(*constraints: str) -> RunConfig:
    profile = {"batch_sizes": [1, 3], "contexts": [64, 128]}
    return parse({"device": "cpu", "constraints": list(constraints), "profile": profile}, where="run.yaml")


def check_of(*constraints: str) -> Check | None:
    run = config(*constraints)
    return arithmetic_check(run.parsed_constraints(), run.profile, run.device)


def test_metrics_are_those_of_the_constraints() -> None:
    metrics = ("kv_bytes@b3.c128", "state_bytes@b1", "param_bytes", "loss")
    found = arithmetic(metrics, config().profile, "cpu")(MEMBER)
    small, large = (
        cost(MEMBER, batch=batch, context=context, dtype=torch.float32)
        for batch, context in ((1, 64), (3, 128))
    )
    assert found == {
        "kv_bytes@b3.c128": large.kv_bytes,
        "state_bytes@b1": small.state_bytes,
        "param_bytes": small.param_bytes,
    }
    assert large.kv_bytes == 6 * small.kv_bytes > 0


def test_a_bound_on_parameters_needs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    params = cost(MEMBER, batch=1, context=64).params
    monkeypatch.setattr(arithmetic_module, "cost", None)
    exactly, less = (check_of(f"params <= {bound}") for bound in (params, params - 1))
    assert exactly is not None
    assert exactly(MEMBER) is None
    assert less is not None
    assert "params" in str(less(MEMBER))
    assert check_of() is None


def test_bytes_in_llama_cpp_are_those_of_its_file_and_of_no_other_model() -> None:
    """Matrices of Q8_0 take 34 bytes for 32 numbers, vectors 4 bytes each; keys and values 2 bytes each."""
    pytest.importorskip("gguf")
    metrics = ("params", "param_bytes", "kv_bytes@b3")
    compute = arithmetic(metrics, config().profile, "llama.cpp")
    found, vectors = compute(MEMBER), 3 * 64
    assert found["param_bytes"] == (found["params"] - vectors) * 34 // 32 + 4 * vectors
    assert found["kv_bytes@b3"] == cost(MEMBER, batch=3, context=64).kv_bytes // 2
    # Measuring it says why there is no more.
    elsewhere = Architecture(width=64, layers=layers_from_shorthand("gla f", width=64), vocabulary=512)
    assert compute(elsewhere).keys() == {"params"}
