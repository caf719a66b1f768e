"""A training that goes on from the weights of another one."""

from pathlib import Path

import pytest
import torch

from operators import HybridLM
from proxy_train import checkpoint
from proxy_train.text.corpus import Corpus
from proxy_train.text.data import batches
from proxy_train.train import Trained, train
from proxy_train.trainer import Start
from tests.helpers.small_trainings import SETTINGS, model_of

SHORT = SETTINGS.model_copy(update={"tokens": 2560})  # 20 steps


@pytest.fixture(scope="module")
def corpus(sentences: Corpus) -> Corpus:
    return sentences


@pytest.fixture(scope="module")
def before(corpus: Corpus) -> Trained:
    return train(model_of(), corpus, SHORT, seed=3)


def test_it_begins_with_these_weights_and_the_batches_behind_those_that_were_read(
    corpus: Corpus, before: Trained
) -> None:
    model = HybridLM(model_of())
    model.load_state_dict(before.weights)
    following = list(batches(corpus, batch_size=2, sequence_length=64, steps=21, seed=3))[20]
    for read, (inputs, targets) in ((20, following), (0, next(batches_of(corpus)))):
        logits = model(inputs).flatten(0, 1)
        expected = torch.nn.functional.cross_entropy(logits, targets.flatten()).item()
        later = train(model_of(), corpus, SHORT, seed=3, start=Start(before.weights, "digest", read))
        assert later.losses[0] == pytest.approx(expected, abs=1e-5)
        assert len(later.losses) == 20
    assert later.score.loss < before.score.loss


def batches_of(corpus: Corpus):
    return batches(corpus, batch_size=2, sequence_length=64, steps=1, seed=3)


def test_the_optimizer_goes_on_where_its_state_is_known(
    corpus: Corpus, before: Trained, tmp_path: Path
) -> None:
    file, later = tmp_path / "state", tmp_path / "later"
    kept = train(model_of(), corpus, SHORT, seed=3, checkpoint=file, keep_checkpoint=True)
    assert kept.losses == before.losses
    tensors, progress = checkpoint.read(file, identity=None)
    assert progress["losses"] == list(kept.losses)
    name = "embedding.weight"
    assert torch.equal(tensors[name], kept.weights[name])
    assert tensors[f"{name}/step"] == 20
    with_state = train(
        model_of(), corpus, SHORT, seed=3, start=Start(tensors, "a"), checkpoint=later, keep_checkpoint=True
    )
    assert checkpoint.read(later, identity=None)[0][f"{name}/step"] == 40
    without = train(model_of(), corpus, SHORT, seed=3, start=Start(before.weights, "b"))
    assert with_state.losses[0] == without.losses[0]  # the same weights
    assert with_state.losses[1] != without.losses[1]  # another step


def test_half_precision_weights_are_taken(corpus: Corpus, before: Trained) -> None:
    halves = {name: tensor.bfloat16() for name, tensor in before.weights.items()}
    later = train(model_of(), corpus, SHORT, seed=3, start=Start(halves, "digest"))
    assert later.losses[0] == pytest.approx(before.score.loss, abs=0.7)
    assert later.losses[0] < before.losses[0] - 0.5


def test_a_loss_that_stays_where_it_began_is_no_divergence_of_a_trained_model(
    corpus: Corpus, before: Trained
) -> None:
    still = SHORT.model_copy(update={"learning_rate": 1e-12, "tokens": 128})
    ended = set[bool]()
    for seed in range(8):  # a first batch may be easier than the validation text, or harder
        later = train(model_of(), corpus, still, seed=seed, start=Start(before.weights, "digest"))
        ended.add(later.score.loss < later.losses[0])
    assert ended == {True, False}


def test_a_killed_one_ends_the_same_and_only_from_the_same_start(
    corpus: Corpus, before: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_train.trainer.CHECKPOINT_SECONDS", 0.0)
    start, file = Start(before.weights, "digest", 20), tmp_path / "checkpoint"
    expected = train(model_of(), corpus, SHORT, seed=3, start=start)

    def kill(step: int, loss: float) -> None:
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model_of(), corpus, SHORT, seed=3, start=start, checkpoint=file, on_step=kill)
    for other in (None, Start(before.weights, "other", 20), Start(before.weights, "digest", 0)):
        with pytest.raises(Exception, match="a checkpoint of another training: expected the same"):
            train(model_of(), corpus, SHORT, seed=3, start=other, checkpoint=file)
    resumed = train(model_of(), corpus, SHORT, seed=3, start=start, checkpoint=file)
    assert resumed.losses == expected.losses
    assert all(torch.equal(resumed.weights[name], tensor) for name, tensor in expected.weights.items())
