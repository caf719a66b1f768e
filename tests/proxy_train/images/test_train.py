"""Training in stages: what each stage changes, that it learns, that it repeats, and its warnings."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from operators import VisionLanguage, VisionLanguageModel
from operators.base.errors import DataError, DivergedError
from proxy_train.images import train as training
from proxy_train.images.answers import score_answers
from proxy_train.images.image_corpus import ImageCorpus
from proxy_train.images.image_settings import ImageSettings
from proxy_train.images.prepare import prepare_images
from proxy_train.images.stage_settings import StageSettings
from proxy_train.images.train import train_vision
from proxy_train.settings import ProxySettings
from proxy_train.step import Step
from proxy_train.tasks import UNSCORED
from proxy_train.text.corpus import Corpus
from proxy_train.train import train
from tests.helpers.image_sources import colours
from tests.helpers.vision_models import vision_language

pytest.importorskip("PIL")

PROXY = ProxySettings(tokens=512, batch_size=2, sequence_length=32, validation_tokens=256)
STAGES = StageSettings(align_examples=160, tune_examples=320, batch_size=16, validation_examples=20)
STAGES = STAGES.model_copy(update={"tower_rate": 3e-3, "projector_rate": 6e-3, "language_rate": 3e-3})
FEW = STAGES.model_copy(update={"align_examples": 16, "tune_examples": 32, "text_share": 0.34})


@pytest.fixture(scope="module")
def images(sentences: Corpus, tmp_path_factory: pytest.TempPathFactory) -> ImageCorpus:
    folder = tmp_path_factory.mktemp("images")
    settings = ImageSettings(source=str(colours(folder / "data", 100)), image_size=8, validation_fraction=0.2)
    return prepare_images(settings, sentences.folder / "tokenizer.json", cache=folder / "cache")


@pytest.fixture(scope="module")
def value(sentences: Corpus) -> VisionLanguage:
    language = {"width": 32, "vocabulary": sentences.vocabulary, "layers": "a f"}
    return vision_language(image_size=8, language=language, image_token=sentences.vocabulary - 1)


@pytest.fixture(scope="module")
def decoder(value: VisionLanguage, sentences: Corpus) -> dict[str, Tensor]:
    return train(value.language, sentences, PROXY, seed=0).weights


Train = Callable[..., training.VisionTrained]


@pytest.fixture
def trained(
    value: VisionLanguage, sentences: Corpus, images: ImageCorpus, decoder: dict[str, Tensor]
) -> Train:
    def run(stages: StageSettings = FEW, seed: int = 0, **rest: Any) -> training.VisionTrained:
        rest = {"decoder": decoder, **rest}
        return train_vision(value, sentences, images, PROXY, stages, seed=seed, **rest)

    return run


def test_it_learns_to_answer_and_keeps_its_text(trained: Train, value: VisionLanguage) -> None:
    score = trained(STAGES).score
    assert score.most_frequent_accuracy < 0.5
    assert score.answer_accuracy > score.most_frequent_accuracy + 0.3
    assert score.aligned_loss is not None
    assert score.answer_loss < score.aligned_loss
    assert score.text_loss_before is not None
    assert score.text_loss < 1.02 * score.text_loss_before
    assert score.warnings == ()
    assert [curve.name for curve in score.curves] == ["align", "tune"]
    assert score.curves[1].points[-1][0] == score.examples - 160 == 320
    assert score.curves[1].points[-1][1] < score.curves[1].points[0][1]


def test_a_stage_changes_its_parts_alone(trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, changed = training._Run._stage, {}

    def watched(run: Any, name: str, parts: Any, mixture: Any) -> None:
        before = {key: weight.clone() for key, weight in run.model.state_dict().items()}
        stage(run, name, parts, mixture)
        after = run.model.state_dict()
        changed[name] = {key.partition(".")[0] for key in after if not torch.equal(after[key], before[key])}

    monkeypatch.setattr(training._Run, "_stage", watched)
    trained()
    trained(FEW.model_copy(update={"stages": "one"}))
    everything = {"tower", "projector", "language"}
    assert changed == {"align": {"tower", "projector"}, "tune": everything, "one": everything}


def test_the_same_seed_gives_the_same_score_to_the_last_bit(trained: Train) -> None:
    first, again, other = trained(), trained(), trained(seed=1)
    unlike = {"seconds"}
    assert first.score.model_dump(exclude=unlike) == again.score.model_dump(exclude=unlike)
    assert all(torch.equal(first.weights[name], again.weights[name]) for name in first.weights)
    assert first.score.answer_loss != other.score.answer_loss


def test_rungs_are_told_the_loss_of_answers_and_change_nothing(
    trained: Train, value: VisionLanguage, images: ImageCorpus
) -> None:
    told: list[tuple[int, float]] = []
    watched = trained(rungs=(24, 40), on_rung=lambda *at: told.append(at))
    assert [examples for examples, _ in told] == [24, 40]
    plain = trained()
    assert watched.score.model_dump(exclude={"seconds"}) == plain.score.model_dump(exclude={"seconds"})
    seen: list[float] = []

    def last(examples: int, loss: float) -> None:
        seen.append(loss)

    at_the_end = trained(rungs=(48,), on_rung=last)
    assert at_the_end.score.examples == 48
    # The last step reads images or text: behind images the rung is the end.
    model = VisionLanguageModel(value)
    model.load_state_dict(at_the_end.weights)
    after = score_answers(model, images, batch_size=32, examples=20).loss
    assert seen[0] == pytest.approx(after, rel=0.2)

    def stop(examples: int, loss: float) -> None:
        raise KeyError(examples)

    with pytest.raises(KeyError, match="24"):
        trained(rungs=(24, 40), on_rung=stop)


def test_one_stage_reads_as_many_examples_and_as_much_text(trained: Train) -> None:
    three, one = trained().score, trained(FEW.model_copy(update={"stages": "one"}), decoder=None).score
    assert three.examples == one.examples == 48
    # 8 steps of the first stage and one of the third, beside two of images.
    assert three.text_tokens == one.text_tokens == 9 * 64
    assert one.text_loss_before is None
    assert [curve.name for curve in one.curves] == ["one"]


def test_the_first_stage_is_trained_where_no_decoder_is_given(
    trained: Train, decoder: dict[str, Tensor]
) -> None:
    given, own = trained(), trained(decoder=None)
    assert given.score.text_loss_before == own.score.text_loss_before
    assert given.score.answer_loss == own.score.answer_loss


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tower_rate": 1e-9, "projector_rate": 1e-9}, "stage 2 is flat: the loss of answers went from"),
        ({"text_share": 0.0, "language_rate": 0.05}, "text is worse after stage 3: its loss went from"),
    ],
)
def test_signs_of_failure_are_warnings(trained: Train, change: dict[str, float], says: str) -> None:
    warnings = trained(STAGES.model_copy(update={"tune_examples": 64, **change})).score.warnings
    assert any(warning.startswith(says) for warning in warnings)


def test_an_exact_answer_is_what_the_model_writes(
    trained: Train, value: VisionLanguage, images: ImageCorpus
) -> None:
    model = VisionLanguageModel(value)
    model.load_state_dict(trained(STAGES).weights)
    right = 0
    batches = list(training_batches(images, value))
    for batch in batches:
        length = batch.prompts[0]
        expected = [token for token in batch.targets[0].tolist() if token != UNSCORED]
        prompt = batch.tokens[0, :length].tolist()
        written = model.generate(prompt, len(expected), images=batch.images)
        right += written[length:] == expected
    accuracy = score_answers(model, images, batch_size=7, examples=100).accuracy
    assert accuracy == right / len(batches)
    assert accuracy > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_graph_on_a_gpu_trains_as_single_kernels_do(
    trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Step] = []
    begin = Step.__init__

    def noted(step: Step, *args: Any, **named: Any) -> None:
        begin(step, *args, **named)
        made.append(step)

    monkeypatch.setattr(Step, "__init__", noted)
    losses: list[tuple[str, int, float]] = []
    graph = trained(STAGES, device="cuda", on_step=lambda *at: losses.append(at)).score
    assert {step.execution for step in made} <= {"graph", "eager"}
    assert "graph" in {step.execution for step in made}
    assert graph.answer_accuracy > graph.most_frequent_accuracy + 0.3
    assert [step for stage, step, _ in losses if stage == "align"] == list(range(1, 11))
    assert trained(STAGES, device="cuda").score.answer_loss == graph.answer_loss
    monkeypatch.setattr("proxy_train.step.WARMUP_STEPS", 10**6)
    eager = trained(STAGES, device="cuda").score
    assert eager.answer_loss == pytest.approx(graph.answer_loss, rel=0.05)
    assert eager.text_loss == pytest.approx(graph.text_loss, rel=0.02)


def training_batches(images: ImageCorpus, value: VisionLanguage) -> Any:
    from proxy_train.images.batches import validation_batches

    return validation_batches(images, value, batch_size=1, examples=100)


def test_what_does_not_fit_is_refused_before_any_training(
    value: VisionLanguage, sentences: Corpus, images: ImageCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "train", None)
    larger = vision_language(
        image_size=16, language=value.language.model_dump(mode="json"), image_token=value.image_token
    )
    with pytest.raises(DataError, match=r"tower\.image_size 16: expected at most 8"):
        train_vision(larger, sentences, images, PROXY, FEW, seed=0)
    language = value.language.model_copy(update={"vocabulary": sentences.vocabulary + 1})
    other = value.model_copy(update={"language": language})
    with pytest.raises(DataError, match="vocabulary: the prepared data has"):
        train_vision(other, sentences, images, PROXY, FEW, seed=0)


def test_a_loss_that_is_not_finite_is_named(trained: Train) -> None:
    with pytest.raises(DivergedError, match=r"stage align: loss nan at step \d+: expected a finite number"):
        trained(STAGES.model_copy(update={"projector_rate": 1e30, "tower_rate": 1e30}))
