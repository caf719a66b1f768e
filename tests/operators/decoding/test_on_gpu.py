"""What only a GPU shows: graphs keep the early starts of kernels, and write what eager steps write."""

from itertools import pairwise

import pytest
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from operators import Architecture, HybridLM
from profiler.measuring.decoder import Decoder
from tests.helpers.fused_layers import layer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TOKENS = 512


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.manual_seed(0)
    architecture = Architecture.load("smollm2-135m")
    with torch.inference_mode():
        return Decoder(HybridLM(architecture, device="cuda", dtype=torch.bfloat16).eval(), 1, 2 * TOKENS)


def _recurrent() -> Architecture:
    """Layers of which each has a kernel that `tiny-hybrid` has not."""
    layers = (
        layer("mamba", inner=256, state=16, dt_rank=16),
        layer("mamba3", heads=4, head_dim=64, state=64, angles=16),
        layer("short_conv", channels=256, conv=3),
        layer("kda", heads=4, key_dim=32, value_dim=32),
        layer("gla", heads=4, key_dim=32, value_dim=64),
        layer("rwkv7", width=256, heads=4, head_dim=64, decay_rank=32, a_rank=32, gate_rank=96),
        layer("retnet", heads=4, key_dim=32, value_dim=64),
    )
    return Architecture(width=256, vocabulary=512, layers=layers)


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("name", ["tiny-hybrid", "recurrent"])
def test_graph_writes_what_eager_steps_write(name: str, rows: int) -> None:
    torch.manual_seed(0)
    architecture = _recurrent() if name == "recurrent" else Architecture.load(name)
    with torch.inference_mode():
        model = HybridLM(architecture, device="cuda", dtype=torch.bfloat16).eval()
        assert all(backend.endswith("+triton") for backend in model.backends.values())
        texts = []
        for graph in (True, False):
            decoder = Decoder(model, rows, TOKENS + 8, graph=graph)
            decoder.prefill(torch.arange(8 * rows, device="cuda").view(rows, 8))
            texts.append(decoder.generate(TOKENS))
    assert torch.equal(*texts)
    assert len(texts[0].unique()) > 10


def test_kernels_of_a_graph_start_before_the_end_of_the_one_before(decoder: Decoder) -> None:
    if torch.cuda.get_device_capability()[0] < 9:
        pytest.skip("GPUs before Hopper have no programmatic dependent launch")
    with torch.inference_mode():
        decoder.fill(TOKENS, seed=0)
        decoder.step()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            decoder.step()
            torch.cuda.synchronize()
    events = (event for event in profiled.events() if event.device_type == DeviceType.CUDA)
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.time_range.end > event.time_range.start and not event.name.startswith("cuda")
    )
    early = sum(after[0] < before[1] for before, after in pairwise(spans))
    assert early > 0.8 * len(spans)
