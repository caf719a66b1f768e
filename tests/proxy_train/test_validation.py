"""The loss of validation batches: a graph's replays are the model's own losses."""

import pytest
import torch

from operators import Architecture
from operators.model import HybridLM
from proxy_train.validation import BatchLoss

SMALL = Architecture.from_shorthand("m a f d f", width=64, vocabulary=64)


def batch(rows: int, seed: int, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(64, (rows, 33), generator=torch.Generator().manual_seed(seed)).to(device)
    return ids[:, :-1], ids[:, 1:]


def by_hand(model: HybridLM, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    probabilities = model(inputs).float().log_softmax(-1)
    return float(-probabilities.gather(-1, targets[..., None]).mean())


@torch.no_grad()
def test_the_loss_is_the_mean_surprise_of_the_targets() -> None:
    model, given = HybridLM(SMALL), batch(2, seed=1)
    assert float(BatchLoss(model)(*given)) == pytest.approx(by_hand(model, *given), rel=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.no_grad()
def test_replayed_losses_are_the_model_s_to_the_last_bit() -> None:
    model = HybridLM(SMALL, device="cuda", dtype=torch.bfloat16)
    loss_of = BatchLoss(model)
    for number in range(8):
        inputs, targets = batch(4 if number < 7 else 3, seed=number, device="cuda")
        expected = torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1).float(), targets.flatten())
        assert torch.equal(loss_of(inputs, targets), expected), number
    assert loss_of._graph is None, "the last batch has another shape"
