"""The proxy may be narrower than the candidate; what is measured may not."""

import dataclasses
import weakref

import pytest
import torch

from operators import Architecture, HybridLM, registry
from operators.base.errors import DivergedError, RunError
from search.config.evaluation import FidelitySettings
from search.evaluation import training
from search.evaluation.evaluate import evaluate
from search.evaluation.fidelity import proxy_of
from search.runs import ledger as ledger_module
from search.runs.entry import Entry
from search.runs.export import export
from search.runs.folder import RunFolder
from tests.helpers.made_up_profile import MadeUpProfiler


@pytest.mark.parametrize("scale", [0.1, 0.37, 0.5, 0.9])
@pytest.mark.parametrize("name", registry.names())
def test_every_operator_is_legal_at_a_scaled_width(name, scale):
    target = Architecture.from_shorthand(f"{name} f", width=160, vocabulary=64)
    proxy = proxy_of(target, scale)
    assert abs(proxy.width - scale * 160) <= 8
    assert Architecture.model_validate(proxy.model_dump()) == proxy
    assert [layer.operator for layer in proxy.layers] == [name, "swiglu"]
    with torch.no_grad():
        logits = HybridLM(proxy, backend="reference")(torch.arange(7)[None])
    assert logits.shape == (1, 7, 64)
    assert logits.isfinite().all()


def test_genes_survive_the_scaling():
    genes = {"attention": {"head_dim": 32, "group": 1, "window": 64}, "swiglu": {"ratio": 2.5}}
    target = Architecture.from_shorthand("a f", width=256, vocabulary=64, genes=genes, meta_tokens=3)
    expected = Architecture.from_shorthand("a f", width=128, vocabulary=64, genes=genes, meta_tokens=3)
    assert proxy_of(target, 0.5) == expected


@pytest.mark.parametrize(("width", "scale"), [(200, 1.0), (16, 0.5), (8, 0.3)])
def test_a_proxy_is_never_wider_than_its_target(width, scale):
    target = Architecture.from_shorthand(
        "a f", width=width, vocabulary=64, genes={"attention": {"head_dim": 8}}
    )
    assert proxy_of(target, scale) == target


def test_the_candidate_is_measured_and_its_proxy_trained(job):
    measured = []

    class Noting(MadeUpProfiler):
        def profile(self, architecture, settings, **further):
            measured.append(architecture)
            return super().profile(architecture, settings)

    target = job.architecture.resized(32)
    narrow = dataclasses.replace(job, architecture=target, fidelity=FidelitySettings(width_scale=0.5))
    same = dataclasses.replace(job, architecture=target.resized(16))
    outcome, alone = evaluate(narrow, Noting()), evaluate(same, Noting())
    assert outcome.evaluation.status == "ok"
    assert measured == [target, target.resized(16)]
    assert outcome.evaluation.metrics["params"] == sum(
        weight.numel() for weight in HybridLM(target).parameters()
    )
    assert outcome.evaluation.proxy_width == 16
    assert outcome.evaluation.metrics["loss"] == alone.evaluation.metrics["loss"]
    assert outcome.weights is None
    assert alone.evaluation.proxy_width is None


def test_the_export_of_a_narrow_proxy_says_why_there_are_no_weights(tmp_path, job, tiny_config):
    narrow = dataclasses.replace(
        job, architecture=job.architecture.resized(32), fidelity=FidelitySettings(width_scale=0.5)
    )
    evaluation = evaluate(narrow, MadeUpProfiler()).evaluation
    folder = RunFolder(tmp_path)
    ledger = ledger_module.create(folder.ledger, tiny_config, started="now")
    with pytest.raises(RunError, match="its proxy was trained at width 16, not at its own 32"):
        export(folder, ledger, Entry(0, narrow.architecture, (), "sample", evaluation, 0), tmp_path / "out")


def test_memory_of_a_training_that_went_wrong_is_given_back_once_nothing_holds_its_model(job, monkeypatch):
    models, alive = [], []

    def train(architecture, *rest, **options):
        model = HybridLM(architecture)
        models.append(weakref.ref(model))
        raise DivergedError("the loss is nan")

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: alive.append([model() is not None for model in models])
    )
    assert evaluate(job, MadeUpProfiler()).evaluation.status == "diverged"
    assert alive[-1] == [False]


def test_a_device_that_fails_every_call_keeps_the_reason_of_the_first(job, monkeypatch):
    def failing(*arguments, **options):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(training, "train", failing)
    monkeypatch.setattr(torch.cuda, "empty_cache", failing)
    evaluation = evaluate(job, MadeUpProfiler()).evaluation
    assert (evaluation.status, "illegal memory access" in evaluation.reason) == ("error", True)
