"""Arithmetic costs against built models, hand computations and PyTorch's own FLOP counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from operators import Architecture, HybridLM, registry
from operators.cost import cost, layer_cost, parameters


def architectures() -> dict[str, Architecture]:
    everything = " ".join(registry.names())
    return {
        **{name: Architecture.from_shorthand(name, width=64, vocabulary=100) for name in registry.names()},
        "all": Architecture.from_shorthand(everything, width=96, vocabulary=333),
        "untied": Architecture.from_shorthand("a f a f", width=64, vocabulary=100, tied_embeddings=False),
        "meta": Architecture.from_shorthand(f"{everything} a", width=64, vocabulary=100, meta_tokens=5),
        "layernorm": Architecture.parse(
            {
                "width": 64,
                "vocabulary": 100,
                "layers": [
                    {"operator": "attention", "norm": "layernorm"},
                    {"operator": "swiglu", "norm": "rmsnorm"},
                ],
            }
        ),
        "qk_norm": Architecture.from_shorthand(
            "a a", width=64, vocabulary=100, genes={"attention": {"qk_norm": "full", "window": 7}}
        ),
    }


ARCHITECTURES = architectures()


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return ARCHITECTURES[request.param]


def test_parameters_are_those_of_the_built_model(architecture: Architecture) -> None:
    assert parameters(architecture) == sum(
        parameter.numel() for parameter in HybridLM(architecture).parameters()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_the_built_model(architecture: Architecture, dtype: torch.dtype) -> None:
    model, costs = (
        HybridLM(architecture, backend="reference", dtype=dtype),
        cost(architecture, batch=3, context=17, dtype=dtype),
    )
    assert costs.param_bytes == sum(parameter.nbytes for parameter in model.parameters())
    assert costs.state_bytes == model.allocate_state(3, 17).bytes


def test_a_step_by_hand() -> None:
    architecture = Architecture.from_shorthand(
        "a f", width=64, vocabulary=100, meta_tokens=2, genes={"attention": {"head_dim": 16}}
    )
    costs = cost(architecture, batch=3, context=10)
    kv = 2 * 32 * (10 + 2)  # keys and values, 2 heads of 16, the context and the meta tokens
    layers = 2 * 64 * (64 + 32) + 3 * 64 * 192 + 2 * 64
    assert costs.params == 100 * 64 + 2 * 64 + layers + 64
    assert costs.state_bytes == 4 * 3 * kv
    assert costs.decode_bytes == 4 * (layers + 64 + 100 * 64 + 3 * 64 + 3 * kv)
    assert costs.decode_flops == 3 * (2 * (layers - 2 * 64) + 4 * 12 * 64 + 2 * 64 * 100)
    assert costs.prefill_flops == 3 * (12 * 2 * (layers - 2 * 64) + 4 * 64 * sum(range(1, 13)) + 2 * 64 * 100)


def test_untied_embeddings_add_parameters_but_no_traffic() -> None:
    tied = Architecture.from_shorthand("a f", width=64, vocabulary=100)
    untied = tied.model_copy(update={"tied_embeddings": False})
    assert cost(untied, batch=1, context=9).params == cost(tied, batch=1, context=9).params + 6400
    assert cost(untied, batch=1, context=9).decode_bytes == cost(tied, batch=1, context=9).decode_bytes


def test_a_window_bounds_cache_traffic_and_is_read_once() -> None:
    def moved(context: int) -> int:
        architecture = Architecture.from_shorthand(
            "a", width=64, vocabulary=100, genes={"attention": {"head_dim": 16, "window": 8}}
        )
        return cost(architecture, batch=1, context=context).decode_bytes

    assert moved(8) - moved(7) == 4 * 2 * 32
    assert moved(900) == moved(8)


@pytest.mark.parametrize(
    "name", [name for name in registry.names() if registry.get(name).kind == "mixer" and name != "attention"]
)
def test_recurrent_state_is_read_and_written_at_any_context(name: str) -> None:
    architecture = Architecture.from_shorthand(name, width=64, vocabulary=100)
    short, long = (cost(architecture, batch=2, context=context) for context in (1, 5000))
    assert short.state_bytes == long.state_bytes
    weights = 4 * (parameters(architecture) + 2 * 64)
    assert short.decode_bytes == long.decode_bytes == weights + 2 * short.state_bytes


def test_prefill_flops_are_the_sum_over_tokens(architecture: Architecture) -> None:
    for tokens in (1, 2, 6, 7, 8, 41):
        seen = range(1, tokens + architecture.meta_tokens + 1)
        layers = sum(
            registry.get(layer.operator).flops(architecture.width, layer.shape, context)
            for layer in architecture.layers
            for context in seen
        )
        head = 2 * architecture.width * architecture.vocabulary
        assert cost(architecture, batch=2, context=tokens).prefill_flops == 2 * (layers + head)


@pytest.mark.parametrize("shorthand", ["f r", "a", "a f a r"])
def test_decode_flops_agree_with_the_flop_counter(shorthand: str) -> None:
    """Exactly the same, as all FLOPs of these operators are in matrix products."""
    architecture = Architecture.from_shorthand(
        shorthand, width=64, vocabulary=100, genes={"attention": {"head_dim": 16}}
    )
    model = HybridLM(architecture, backend="reference").eval()
    state = model.allocate_state(3, 10)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.step(torch.zeros(3, dtype=torch.int64), state)
    assert counter.get_total_flops() == cost(architecture, batch=3, context=10).decode_flops


def test_prefill_flops_agree_with_the_flop_counter() -> None:
    """Within 5 %: the reference also multiplies masked scores, 10 tokens beside a width of 256."""
    architecture = Architecture.from_shorthand("a f a r", width=256, vocabulary=100)
    model = HybridLM(architecture, backend="reference").eval()
    state = model.allocate_state(3, 10)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.prefill(torch.zeros(3, 10, dtype=torch.int64), state)
    assert counter.get_total_flops() == pytest.approx(
        cost(architecture, batch=3, context=10).prefill_flops, rel=0.05
    )


def test_a_layer_s_cost_is_computed_once() -> None:
    architecture = Architecture.from_shorthand(
        " ".join([*registry.names()] * 5)[:200].rpartition(" ")[0], width=240, vocabulary=4096
    )
    layer_cost.cache_clear()
    first = cost(architecture, batch=8, context=32_768)
    kinds = len({(layer.operator, layer.shape) for layer in architecture.layers})
    assert layer_cost.cache_info().misses == kinds < len(architecture.layers)
    assert cost(architecture, batch=8, context=32_768) == first
    assert layer_cost.cache_info().misses == kinds
