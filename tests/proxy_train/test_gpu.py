"""The proxy run on a GPU: graphs, the fused loss, rungs, and that a seed decides its loss."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from operators import registry
from operators.agreement import BOUNDS, relative_error
from operators.architecture import Architecture
from operators.model import HybridLM
from proxy_train.loss import cross_entropy, load_fused
from proxy_train.text.corpus import Corpus
from proxy_train.train import train
from tests.helpers.small_trainings import SETTINGS, model_of


@pytest.fixture(scope="module")
def corpus(sentences: Corpus) -> Corpus:
    return sentences


def on_gpu(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")(test))


@on_gpu
def test_it_learns_on_a_gpu_too(corpus: Corpus) -> None:
    trained = train(model_of(), corpus, SETTINGS, seed=3, device="cuda")
    score = trained.score
    assert score.loss < score.unigram_loss - 1
    assert (score.dtype, score.execution) == ("bfloat16", "graph")
    assert 0 < score.startup_s < score.seconds
    assert all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in trained.weights.values()
    )


@on_gpu
@pytest.mark.parametrize("name", registry.names())
def test_a_graph_trains_every_operator_as_single_kernels_do(
    corpus: Corpus, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = f"{name} f" if registry.get(name).kind == "mixer" else f"a {name}"
    architecture = Architecture.from_shorthand(
        layers, width=64, vocabulary=272, genes={"attention": {"head_dim": 32}}
    )
    settings = SETTINGS.model_copy(update={"schedule": "wsd", "budgets": (2560,), "tokens": 5120})
    graph = train(architecture, corpus, settings, seed=0, device="cuda").score
    assert graph.execution == "graph"
    monkeypatch.setattr("proxy_train.step.WARMUP_STEPS", 10**6)
    eager = train(architecture, corpus, settings, seed=0, device="cuda").score
    assert eager.execution == "eager"
    assert graph.loss == pytest.approx(eager.loss, rel=0.02)
    assert graph.budgets[0].loss == pytest.approx(eager.budgets[0].loss, rel=0.02)
    cpu = train(architecture, corpus, settings, seed=0).score
    assert graph.loss < cpu.unigram_loss - 0.5


@on_gpu
@pytest.mark.parametrize(
    "name", ["attention", "mamba2", "deltanet", "gated_deltanet", "gla", "kda", "retnet", "short_conv"]
)
def test_a_seed_gives_the_same_loss_on_a_gpu(corpus: Corpus, name: str) -> None:
    architecture = Architecture.from_shorthand(
        f"{name} f", width=64, vocabulary=272, genes={"attention": {"head_dim": 32}}
    )
    losses = [train(architecture, corpus, SETTINGS, seed=0, device="cuda").score.loss for _ in range(3)]
    assert len(set(losses)) == 1


@on_gpu
def test_a_rung_on_a_gpu_changes_nothing_and_ends_a_training_when_it_raises(corpus: Corpus) -> None:
    seen: dict[int, float] = {}
    without = train(model_of(), corpus, SETTINGS, seed=3, device="cuda").score
    score = train(
        model_of(), corpus, SETTINGS, seed=3, device="cuda", rungs=(256, 5_130), on_rung=seen.__setitem__
    ).score
    assert score.execution == "graph"
    assert score.loss == pytest.approx(without.loss, rel=0.02)
    assert score.loss < seen[5_130] < seen[256]

    def stop(tokens: int, loss: float) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        train(model_of(), corpus, SETTINGS, seed=3, device="cuda", rungs=(5_130,), on_rung=stop)
    assert train(model_of(), corpus, SETTINGS, seed=3, device="cuda").score.loss == pytest.approx(
        without.loss, rel=0.02
    )


@on_gpu
@pytest.mark.parametrize("normalized", [False, True])
def test_the_fused_loss_and_its_gradients(normalized: bool) -> None:
    architecture = Architecture.from_shorthand("f", width=128, vocabulary=1000, normalized_head=normalized)
    tokens, targets = torch.randint(1000, (2, 3, 70), device="cuda")
    runs = []
    for dtype, loss_of in ((torch.bfloat16, load_fused()), (torch.float32, cross_entropy)):
        torch.manual_seed(0)
        model = HybridLM(architecture, device="cuda", dtype=torch.bfloat16).to(dtype)
        loss = loss_of(model, tokens, targets)
        runs.append((loss.item(), torch.autograd.grad(loss, list(model.parameters()))))
    (fused, gradients), (expected, expected_gradients) = runs
    assert fused == pytest.approx(expected, rel=BOUNDS[torch.bfloat16].output)
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        assert relative_error(gradient, reference) < BOUNDS[torch.bfloat16].gradient


@on_gpu
def test_a_killed_training_on_a_gpu_goes_on(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_train.trainer.CHECKPOINT_SECONDS", 0.0)
    file, steps = tmp_path / "checkpoint", []

    def kill(step: int, loss: float) -> None:
        if step == 45:
            raise KeyboardInterrupt

    def seen(step: int, loss: float) -> None:
        steps.append(step)

    with pytest.raises(KeyboardInterrupt):
        train(model_of(), corpus, SETTINGS, seed=0, device="cuda", on_step=kill, checkpoint=file)
    resumed = train(model_of(), corpus, SETTINGS, seed=0, device="cuda", on_step=seen, checkpoint=file)
    assert 1 < steps[0] <= 45
    assert steps[-1] == 62
    assert resumed.score.loss == pytest.approx(
        train(model_of(), corpus, SETTINGS, seed=0, device="cuda").score.loss, rel=0.02
    )
