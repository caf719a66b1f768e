"""A search for models that see, from its configuration to its frontier, its ledger and its messages."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from operators import VisionLanguage, VisionLanguageModel
from operators.base.errors import ArchitectureError, ConfigError, RunError
from profiler.process.worker import ProfilingWorker
from proxy_train.images.decoders import kept_decoder
from proxy_train.settings import ProxySettings
from proxy_train.text.corpus import Corpus
from search.config.run import RunConfig, parse
from search.evaluation import training
from search.runs.answering import answers
from search.runs.export import export
from search.runs.folder import RunFolder
from search.runs.gate_counts import counted, gate_names
from search.runs.ledger import open_ledger
from search.runs.run import drive_to_end, start
from search.runs.sources import architecture_of, model_of
from search.view.answers_picture import draw_answers
from tests.helpers.image_sources import colours
from tests.helpers.vision_profiles import made_up
from tests.helpers.vision_runs import config_of

pytest.importorskip("PIL")

pytestmark = pytest.mark.usefixtures("own_locks")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The decoders whose first stage was trained."""
    made: list[str] = []
    train = training.train

    def counted(architecture: Any, *rest: Any, **named: Any) -> Any:
        made.append(architecture.digest())
        return train(architecture, *rest, **named)

    monkeypatch.setattr(training, "train", counted)
    monkeypatch.setattr(ProfilingWorker, "profile", made_up)
    return made


def _leaves(folder: RunFolder, number: int, to: Path) -> None:
    """Exports a candidate, and runs what its README.md says on a picture."""
    from PIL import Image

    with closing(open_ledger(folder.ledger)) as ledger:
        entry = next(entry for entry in ledger.entries() if entry.number == number)
        export(folder, ledger, entry, to)
    code = (to / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    picture = to.parent / "picture.png"
    Image.new("RGB", (30, 20), "red").save(picture)
    names: dict[str, Any] = {}
    exec(code.replace('"picture.png"', repr(str(picture))), names)  # noqa: S102 - what users are told to run
    kept = load_file(folder.weights(number))
    assert all(torch.equal(kept[name], tensor) for name, tensor in names["model"].state_dict().items())
    assert list(names["prompt"]).count(entry.architecture.image_token) == entry.architecture.image_tokens


def _answers_as_scored(folder: RunFolder, number: int, picture: Path) -> None:
    """Answers that are written token by token are exact as often as the score says, which writes none."""
    with closing(open_ledger(folder.ledger)) as ledger:
        entry = next(entry for entry in ledger.entries() if entry.number == number)
    answered = answers(str(folder.path), number, 8, results=folder.path.parent)
    assert entry.evaluation is not None
    assert entry.evaluation.vision is not None
    assert sum(each.exact for each in answered) / 8 == entry.evaluation.vision.answer_accuracy
    for each in answered:
        assert not each.exact or each.written == each.right
        assert "<|endoftext|>" not in each.question + each.right + each.written
    draw_answers(answered, picture, title="of a test")
    # Matplotlib draws letters as shapes, and says in a comment what they spell.
    assert "<!-- of a test -->" in picture.read_text()


def test_a_search_runs_to_its_end_and_goes_on(
    tiny_config: RunConfig, tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = parse(config_of(tiny_config, colours(tmp_path / "data", 24)), where="run")
    assert RunConfig.model_validate(parse(config.model_dump(mode="json"), where="x").model_dump()) == config
    folder = start(config, results=tmp_path, name="sees")
    ended = drive_to_end(folder, executor="inline", address=None)
    assert drive_to_end(folder, executor="inline", address=None).frontier == ended.frontier
    entries = ended.entries
    assert len(entries) == 3
    models = [entry.architecture for entry in entries if isinstance(entry.architecture, VisionLanguage)]
    assert len(models) == len(entries)
    scored = [entry for entry in entries if entry.evaluation and entry.evaluation.status == "ok"]
    assert len(scored) == 3
    assert len(trained) == len(set(trained))  # each decoder once
    _leaves(folder, scored[0].number, tmp_path / "winner")
    for entry in scored:
        _answers_as_scored(folder, entry.number, tmp_path / f"{entry.number}.svg")
    assert set(trained) == {model.language.digest() for model in models}
    first = scored[0]
    assert first.evaluation is not None
    assert first.evaluation.vision is not None
    assert first.evaluation.metrics["answer_loss"] == first.evaluation.vision.answer_loss
    assert first.evaluation.metrics["ttft_ms@b1"] == 30.0
    assert "loss" not in first.evaluation.metrics
    with_weights = ended.frontier[0]
    assert isinstance(with_weights.architecture, VisionLanguage)
    model = VisionLanguageModel(with_weights.architecture)
    model.load_state_dict(load_file(RunFolder(folder.path).weights(with_weights.number)))
    named = f"sees:{first.number}"
    assert model_of(named, tmp_path) == (named, first.architecture)
    with pytest.raises(ArchitectureError, match="a vision-language model, expected a language model"):
        architecture_of(named, tmp_path)


def test_other_images_end_a_run_that_goes_on(
    tiny_config: RunConfig, tmp_path: Path, trained: list[str]
) -> None:
    data = colours(tmp_path / "data", 12)
    folder = start(parse(config_of(tiny_config, data), where="run"), results=tmp_path, name="sees")
    colours(data, 13)
    with pytest.raises(RunError, match="or the images is not what it was when the run began"):
        drive_to_end(folder, executor="inline", address=None)
    assert open_ledger(folder.ledger).entries() == ()


def test_what_does_not_fit_ends_the_search_before_it_begins(
    tiny_config: RunConfig, tmp_path: Path, trained: list[str]
) -> None:
    missing = parse(config_of(tiny_config, tmp_path / "nowhere"), where="run")
    with pytest.raises(Exception, match="nowhere: no such file or folder"):
        start(missing, results=tmp_path, name="sees")
    assert not (tmp_path / "sees").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objectives": ["loss"]}, "metric 'loss' is for language models alone: expected one of answer_loss"),
        ({"searcher": {"name": "guided"}}, "searcher.name: expected one of evolution, aging, random with a"),
        ({"fidelity": {"width_scale": 0.5}}, "vision: expected no fidelity.width_scale with it"),
        (
            {"fidelity": {"rungs": [8]}},
            "fidelity.rungs: expected examples that grow by at least a batch of 8",
        ),
        (
            {"fidelity": {"rungs": [48]}},
            "between 16 and 48, behind the second stage and before the end; got 48",
        ),
        (
            {"fidelity": {"rungs": [32]}, "objectives": ["answer_accuracy"]},
            "fidelity.rungs: expected the answer_loss, which decides at a rung, among the objectives",
        ),
        (
            {"fidelity": {"rungs": [32]}, "constraints": ["text_loss <= 9"]},
            "expected metrics that are known before training, besides the answer_loss; got text_loss",
        ),
        ({"tasks": {"names": ["recall"]}}, "vision: expected no tasks with it"),
        ({"device_kind": "H100"}, "vision: expected no device_kind with it"),
        ({"vision": None}, "profile.images: expected 0 without a section vision"),
        (
            {"vision": {"images": {"image_size": 8}}},
            "space.image_sizes: expected at most 8, images",
        ),
        ({"vision": {"space": {"pixel_shuffles": [3]}}}, "vision.space.pixel_shuffles.0: expected 1, 2 or 4"),
    ],
)
def test_a_bad_configuration_is_one_line(
    tiny_config: RunConfig, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(config_of(tiny_config, tmp_path, **changes), where="run")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_candidate_that_learns_worse_than_others_as_fast_is_stopped(
    tiny_config: RunConfig, tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    changes = {"fidelity": {"rungs": [32], "eta": 2}, "candidates": 4, "gates": {"audit": 0}}
    config = parse(config_of(tiny_config, colours(tmp_path / "data", 24), **changes), where="run")
    ended = drive_to_end(start(config, results=tmp_path, name="halves"), executor="inline", address=None)
    evaluations = [entry.evaluation for entry in ended.entries if entry.evaluation]
    losses = [each.metrics["answer_loss@t32"] for each in evaluations]
    # All take as long. From the third on, the better half of those before go on.
    stops = [
        number > 1 and loss > sorted(losses[:number])[number // 2 - 1] for number, loss in enumerate(losses)
    ]
    assert [each.status for each in evaluations] == ["stopped" if stop else "ok" for stop in stops]
    assert any(stops)
    for each in evaluations:
        if each.status == "stopped":
            assert each.gate == "answer_loss@t32"
            assert each.vision is None
            assert each.reason.startswith("answer loss ")
            assert " after 32 examples: expected at most " in each.reason
    (gate,) = counted(ended.entries, config.parsed_objectives(), gate_names(config))
    assert (gate.name, gate.seen, gate.turned_away) == ("answer_loss@t32", 4, sum(stops))


def test_objectives_of_images_need_the_section() -> None:
    with pytest.raises(ConfigError, match=r"set profile\.images"):
        parse({"objectives": ["answer_accuracy"]}, where="run")


def test_a_decoder_is_kept_and_a_damaged_one_is_made_again(sentences: Corpus, tmp_path: Path) -> None:
    from tests.helpers.vision_models import vision_language

    language, made = vision_language().language, []

    def training() -> dict[str, torch.Tensor]:
        made.append(1)
        return {"x": torch.arange(3.0)}

    def kept(**changes: Any) -> np.ndarray:
        how = {"seed": 0, "device": "cpu", "cache": tmp_path, **changes}
        return kept_decoder(language, sentences, ProxySettings(), training, **how)["x"].numpy()

    assert kept().tolist() == kept().tolist() == [0, 1, 2]
    assert len(made) == 1
    kept(seed=1)
    assert len(made) == 2
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-4])
    assert kept().tolist() == [0, 1, 2]
    assert len(made) == 3
