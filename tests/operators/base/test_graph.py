"""CUDA graphs: what is called before the capture, what a replay executes, which random numbers it draws."""

import pytest
import torch

from operators.base.graph import captured

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DEVICE = torch.device("cuda:0")


def test_warmups_execute_and_the_capture_only_records() -> None:
    total, calls = torch.zeros((), device=DEVICE), list[str]()

    def run() -> None:
        calls.append("run")
        total.add_(1)

    graph = captured(run, device=DEVICE, warmups=2, prepare=lambda: calls.append("prepare"))
    assert calls == ["prepare", "run", "prepare", "run", "prepare", "run"]
    assert total.item() == 2
    for _ in range(3):
        graph.replay()
    assert total.item() == 5


def test_what_is_queued_before_is_seen_by_the_warmup_and_what_prepare_sets_by_the_replay() -> None:
    source = torch.randn(4096, 4096, device=DEVICE)
    product = source @ source  # still at work when the warm-up is queued on another stream
    copy = torch.empty_like(product)
    graph = captured(lambda: copy.copy_(product), device=DEVICE, warmups=1, prepare=copy.zero_)
    assert not copy.any()
    graph.replay()
    assert torch.equal(copy, product)


def test_a_registered_generator_draws_the_next_numbers_in_each_replay() -> None:
    generator = torch.Generator(DEVICE).manual_seed(0)
    drawn = torch.empty(8, device=DEVICE)
    graph = captured(
        lambda: drawn.exponential_(generator=generator), device=DEVICE, warmups=1, generator=generator
    )
    generator.manual_seed(7)
    rows = []
    for _ in range(2):
        graph.replay()
        rows.append(drawn.clone())
    again = torch.Generator(DEVICE).manual_seed(7)
    expected = [torch.empty(8, device=DEVICE).exponential_(generator=again) for _ in range(2)]
    assert all(torch.equal(row, wanted) for row, wanted in zip(rows, expected, strict=True))


def test_a_capture_on_the_current_stream_without_warmups() -> None:
    total = torch.zeros((), device=DEVICE)
    stream = torch.cuda.Stream(DEVICE)
    with torch.cuda.stream(stream):
        graph = captured(
            lambda: total.add_(1), device=DEVICE, warmups=0, stream=stream, error_mode="thread_local"
        )
        graph.replay()
        stream.synchronize()
    assert total.item() == 1


def test_what_waits_for_the_device_cannot_be_captured() -> None:
    total = torch.zeros((), device=DEVICE)
    with pytest.raises(RuntimeError):
        captured(lambda: total.item(), device=DEVICE, warmups=0)
    torch.cuda.synchronize()
    assert total.item() == 0


def test_random_numbers_go_on_after_a_capture_that_failed() -> None:
    own = torch.Generator(DEVICE).manual_seed(3)
    torch.cuda.manual_seed(5)
    drawn = [torch.rand(4, device=DEVICE), torch.rand(4, device=DEVICE, generator=own)]
    with pytest.raises(RuntimeError):
        captured(lambda: drawn[0].sum().item(), device=DEVICE, warmups=0, generator=own)
    after = [torch.rand(4, device=DEVICE), torch.rand(4, device=DEVICE, generator=own)]
    own.manual_seed(3)
    torch.cuda.manual_seed(5)
    for generator, first, second in zip((None, own), drawn, after, strict=True):
        assert torch.equal(torch.rand(4, device=DEVICE, generator=generator), first)
        assert torch.equal(torch.rand(4, device=DEVICE, generator=generator), second)


def test_a_replay_needs_no_workspace_that_torch_may_free() -> None:
    left, right = (torch.randn(64, 4096, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty(64, 64, device=DEVICE, dtype=torch.bfloat16)  # of a long sum, which is split
    graph = captured(lambda: torch.mm(left, right.T, out=product), device=DEVICE, warmups=1)
    graph.replay()
    expected = product.clone()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()  # what is no longer used is the driver's again
    others = [torch.full((2**20,), 7, device=DEVICE) for _ in range(32)]
    product.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(product, expected)
    assert all(bool((other == 7).all()) for other in others)
