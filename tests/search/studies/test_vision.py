"""The study of models that see: its variants, what is trained once, its table, and how it goes on."""

from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from operators.base.errors import ConfigError, DataError, DivergedError, RunError
from profiler.process.worker import ProfilingWorker
from proxy_train.images.stage_settings import VisionScore
from proxy_train.images.train import VisionTrained
from proxy_train.text.corpus import Corpus
from search.config.run import RunConfig
from search.studies import experiment, vision
from search.studies.report import vision_table
from search.studies.vision import VisionStudySettings, run
from search.view.terminal_tables import show
from tests.helpers.image_sources import colours
from tests.helpers.vision_models import tower
from tests.helpers.vision_profiles import made_up

pytest.importorskip("PIL")

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "after": {"tower": {"norms": {"norm": "rmsnorm", "norm_position": "after"}}},
    "one": {"stages": {"stages": "one"}},
    "deep": {"tower": {"depth": 4}},
    "wide": {"language": {"width": 64}},
}
Asked = list[tuple[str, int, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, sentences: Corpus) -> Asked:
    """Every training, as (variant, seed, stages). Deep models diverge; others answer by depth and seed."""
    made: Asked = []

    def pretend(
        value: Any, text: Any, images: Any, proxy: Any, stages: Any, *, seed: int, decoder: Any, **_: Any
    ) -> VisionTrained:
        made.append((value.tower.norms[0].norm, seed, stages.stages))
        if value.tower.depth == 4:
            raise DivergedError("stage align: loss nan at step 3")
        assert (decoder is None) == (stages.stages == "one")
        score = VisionScore(
            answer_loss=1.0 + seed,
            answer_accuracy=0.5 + 0.1 * seed,
            most_frequent_accuracy=0.4,
            text_loss=3.0,
            text_loss_before=None if decoder is None else 2.5,
            examples=48,
            text_tokens=64,
            seconds=1.0,
            curves=(),
            warnings=("text is worse after stage 3",) if decoder is not None else (),
            seed=seed,
        )
        return VisionTrained(score, {})

    monkeypatch.setattr(vision, "train_vision", pretend)
    monkeypatch.setattr(experiment, "prepare", lambda settings, **_: sentences)
    monkeypatch.setattr(ProfilingWorker, "profile", made_up)
    return made


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[int, int]]:
    """The first stages that were trained, as (width, seed)."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made: list[tuple[int, int]] = []

    def pretend(architecture: Any, *_: Any, seed: int, **__: Any) -> Any:
        made.append((architecture.width, seed))
        return SimpleNamespace(weights={"of": torch.tensor(seed)})

    monkeypatch.setattr(vision, "train", pretend)
    return made


def settings_of(tiny: RunConfig, folder: Path, sentences: Corpus, **changed: Any) -> VisionStudySettings:
    words = sentences.vocabulary
    data = {
        "model": {
            "tower": tower(image_size=8),
            "projector": {},
            "language": {"width": 32, "vocabulary": words, "layers": "a f"},
            "image_token": words - 1,
        },
        "variants": VARIANTS,
        "data": {"vocabulary": words},
        "images": {"source": str(colours(folder / "data")), "image_size": 8},
        "stages": {"align_examples": 16, "tune_examples": 32},
        "proxy": tiny.proxy,
        "profile": tiny.profile.model_copy(update={"images": 2}),
        "seeds": (0, 1),
    }
    return experiment.parsed(VisionStudySettings, {**data, **changed}, where="study")


def quiet() -> Console:
    return Console(file=StringIO())


def test_variants_share_decoders_and_a_study_goes_on(
    tiny_config: RunConfig,
    tmp_path: Path,
    sentences: Corpus,
    asked: Asked,
    decoders: list[tuple[int, int]],
) -> None:
    settings = settings_of(tiny_config, tmp_path, sentences)
    variants = run(settings, results=tmp_path, name="some", console=quiet())
    assert len(asked) == 10
    assert sorted(decoders) == [(32, 0), (32, 1), (64, 0), (64, 1)]
    assert run(settings, results=tmp_path, name="some", console=quiet()) == variants
    assert len(asked) == 10
    by_name = {variant.name: variant for variant in variants}
    assert list(by_name) == list(VARIANTS)
    plain = by_name["plain"]
    assert plain.scores["answer_loss"] == (1.0, 2.0)
    assert plain.mean("answer_accuracy") == pytest.approx(0.55)
    assert plain.spread("answer_loss") == pytest.approx(0.5)
    assert plain.times["ttft_ms@b1"] == 30.0
    assert {key.partition("@")[0] for key in plain.times} == set(vision.TIMES)
    assert plain.warnings == ("text is worse after stage 3",)
    assert "text_loss_before" not in by_name["one"].scores
    assert by_name["deep"].problem == "diverged: stage align: loss nan at step 3"
    assert by_name["deep"].scores == {}
    text = StringIO()
    show(Console(file=text, width=250), vision_table(variants, settings))
    (row,) = [line for line in text.getvalue().splitlines() if line.startswith("plain")]
    assert row.split()[2:] == [
        *("4", "1.5000", "0.5000", "55.0%", "5.0%", "3.0000", "2.5000", "30.000"),
        *(f"{plain.times['decode_ms@b1']:.3f}", "129", "kB", "text", "is", "worse", "after", "stage", "3"),
    ]


@pytest.mark.slow
def test_two_processes_find_what_one_does_and_share_decoders(
    tiny_config: RunConfig, tmp_path: Path, sentences: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(experiment, "prepare", lambda settings, **_: sentences)
    monkeypatch.setattr(ProfilingWorker, "profile", made_up)
    variants = {name: VARIANTS[name] for name in ("plain", "one")}
    settings = settings_of(tiny_config, tmp_path, sentences, variants=variants)
    alone = run(settings, results=tmp_path, name="alone", console=quiet())
    assert [len(variant.scores["answer_loss"]) for variant in alone] == [2, 2]
    for file in cache.rglob("decoder-*.safetensors"):
        file.unlink()

    def here(*_: object, **__: object) -> VisionScore:
        raise AssertionError("a model is trained in this process")

    monkeypatch.setattr(vision, "train_once", here)
    shared, out = settings.model_copy(update={"per_device": 2}), StringIO()
    console = Console(file=out, width=200)
    assert run(shared, results=tmp_path, name="shared", console=console) == alone  # to the last bit
    assert "4 trainings, 2 at a time on cpu, the longest first" in out.getvalue()
    assert len(list(cache.rglob("decoder-*.safetensors"))) == 2  # one for each seed
    assert run(settings, results=tmp_path, name="shared", console=quiet()) == alone


def test_models_beside_the_variants_are_measured_and_not_trained(
    tiny_config: RunConfig,
    tmp_path: Path,
    sentences: Corpus,
    asked: Asked,
    decoders: list[tuple[int, int]],
) -> None:
    profile = tiny_config.profile.model_copy(update={"images": 1, "batch_sizes": (1, 4)})
    changes = {"variants": {"plain": {}}, "beside": ["smolvlm-256m"], "profile": profile, "seeds": (0,)}
    settings = settings_of(tiny_config, tmp_path, sentences, **changes)
    plain, published = run(settings, results=tmp_path, name="some", console=quiet())
    assert len(asked) == 1
    assert (published.name, published.params, published.image_tokens) == ("smolvlm-256m", 256_484_928, 64)
    assert published.scores == {}
    by_batch = {f"{name}@b{batch}" for name in vision.TIMES for batch in (1, 4)}
    assert by_batch == set(published.times) == set(plain.times)
    text = StringIO()
    show(Console(file=text, width=250), vision_table([plain, published], settings))
    (row,) = [line for line in text.getvalue().splitlines() if line.startswith("smolvlm")]
    memory = [published.times[f"peak_memory_bytes@b{batch}"] / 1e6 for batch in (1, 4)]
    assert row.split()[1:5] == ["256M", "64", "30.000", "30.000"]
    assert [float(figure) for figure in row.split()[7::2]] == pytest.approx(memory, rel=1e-2)


def test_more_variants_and_seeds_may_come_later_and_a_changed_one_is_trained_again(
    tiny_config: RunConfig,
    tmp_path: Path,
    sentences: Corpus,
    asked: Asked,
    decoders: list[tuple[int, int]],
) -> None:
    def with_variants(**variants: Any) -> VisionStudySettings:
        return settings_of(tiny_config, tmp_path, sentences, variants=variants, seeds=(0,))

    at = {"results": tmp_path, "name": "some", "console": quiet()}
    run(with_variants(a={}), **at)
    run(
        with_variants(a={}, b={"projector": {"pixel_shuffle": 2}}),
        results=tmp_path,
        name="some",
        console=quiet(),
    )
    assert len(asked) == 2
    run(with_variants(a={"tower": {"qk_norm": "head"}}), **at)
    assert len(asked) == 3
    other = settings_of(
        tiny_config, tmp_path, sentences, images={"source": str(tmp_path / "data"), "image_size": 16}
    )
    with pytest.raises(RunError, match=r"was begun with another .*images.*image_data"):
        run(other, results=tmp_path, name="some", console=quiet())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"variants": {}}, "variants: expected at least 1 entries"),
        ({"variants": {"x": {"towr": {}}}}, "variants.x: unknown key towr: expected tower, projector, lang"),
        ({"variants": {"x": {"tower": {"patch_size": 5}}}}, "variants.x: tower: expected image_size to be a"),
        ({"variants": {"x": {"stages": {"stages": "two"}}}}, "variants.x.stages: stages: expected 'three'"),
        ({"variants": {"x": {"tower": {"colour": 5}}}}, "variants.x: tower: unknown key colour"),
        ({"beside": ["no-such"]}, "beside: no-such: neither a file nor"),
        (
            {"beside": ["smolvlm-256m"], "variants": {"smolvlm-256m": {}}},
            "beside: smolvlm-256m is a variant too",
        ),
        ({"profile": {"images": 0}}, "profile.images: expected at least 1, as the models see, got 0"),
    ],
)
def test_bad_settings_are_one_line(
    tiny_config: RunConfig, tmp_path: Path, sentences: Corpus, changed: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of(tiny_config, tmp_path, sentences, **changed)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_the_images_ends_it_before_any_training(
    tiny_config: RunConfig, tmp_path: Path, sentences: Corpus, asked: Asked
) -> None:
    larger = {"plain": {}, "larger": {"tower": {"image_size": 16}}}
    settings = settings_of(tiny_config, tmp_path, sentences, variants=larger)
    with pytest.raises(DataError, match=r"tower\.image_size 16: expected at most 8"):
        run(settings, results=tmp_path, name="some", console=quiet())
    assert asked == []
