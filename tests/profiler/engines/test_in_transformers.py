"""Measuring in transformers: an exported folder, with and without meta tokens."""

import pytest

from operators.architecture import Architecture
from operators.base.errors import ArchitectureError, BackendError, DeviceError
from operators.cost import cost
from profiler.measuring.measure import measure
from profiler.profile import ProfileSettings
from tests.helpers.gguf_members import MEMBERS

pytest.importorskip("transformers")
QUICK = ProfileSettings(
    batch_sizes=(1, 3), contexts=(8,), warmup=0, min_samples=5, min_seconds=0, max_seconds=0.01, attempts=1
)


def test_a_model_with_meta_tokens_is_measured_and_what_its_class_adds_is_counted() -> None:
    """Llama has attention and SwiGLU in every block: what the model lacks are zeros, and bytes of it."""
    architecture = MEMBERS["llama-with-holes"][1].model_copy(
        update={"meta_tokens": 3, "normalized_head": False}
    )
    settings = QUICK.model_copy(update={"energy_seconds": 5.0, "largest_batch": True})
    profile = measure(architecture, settings, device="transformers")
    assert [point.batch for point in profile.points] == [1, 3]
    assert profile.backends == {"transformers": "LlamaForCausalLM, eager, its own cache"}
    assert (profile.device, profile.dtype) == ("transformers", "float32")
    assert profile.versions["transformers"]

    own = cost(architecture, batch=3, context=8)
    attention, feedforward = 2 * 48 * 48 + 2 * 24 * 48 + 48, 3 * 48 * 80 + 48  # with their norms
    assert profile.params == own.params
    zeros = profile.param_bytes - own.param_bytes
    assert zeros == 4 * (attention + 2 * feedforward)
    assert profile.points[1].decode_bytes - own.decode_bytes == zeros
    weights_and_state = profile.param_bytes + own.state_bytes
    assert weights_and_state < profile.points[1].peak_memory_bytes < 5 * weights_and_state

    assert set(profile.absent.values()) == {"not measured in transformers"}
    assert {"energy_j_per_token", "largest_batch"} <= profile.absent.keys()


def test_a_model_whose_class_names_its_cache_otherwise_is_measured() -> None:
    architecture = Architecture.from_shorthand("m m", width=64, vocabulary=64, rope=None)
    profile = measure(architecture, QUICK, device="transformers")
    assert profile.backends == {"transformers": "Mamba2ForCausalLM, eager, its own cache"}
    assert all(point.decode.median_ms > 0 for point in profile.points)


def test_a_class_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others' code may raise anything: the models behind it are measured all the same."""
    from transformers import LlamaForCausalLM

    monkeypatch.setattr(LlamaForCausalLM, "forward", lambda self, **named: named["missing"])
    with pytest.raises(BackendError, match=r"^transformers: LlamaForCausalLM: KeyError: 'missing'$"):
        measure(MEMBERS["llama"][1], QUICK, device="transformers")


def test_what_no_class_holds_is_named() -> None:
    with pytest.raises(ArchitectureError, match=r"^layer 0: no class of transformers has gla$"):
        measure(Architecture.from_shorthand("gla f", width=64, vocabulary=64), QUICK, device="transformers")


def test_a_backend_of_ours_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"^device transformers: expected backend auto, .* got reference$"):
        measure(MEMBERS["llama"][1], QUICK, device="transformers", backend="reference")
