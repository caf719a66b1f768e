"""The study of weight normalization trains each family with it and without, once a seed."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from operators import Architecture
from operators.base.errors import ConfigError, DivergedError
from proxy_train.settings import ProxyScore, ProxySettings
from proxy_train.text.corpus import Corpus
from search.config.run import RunConfig
from search.studies import experiment
from search.studies.normalization import NormalizationSettings, run
from search.studies.report import normalization_table
from tests.helpers.proxy_scores import score

LOSSES = {False: (3.0, 3.2, 3.1), True: (2.9, 3.0, 3.1)}
Asked = list[tuple[str, bool, bool, int]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, corpus: Corpus) -> Asked:
    """Every training, as (layers, normalized head, weight normalization, seed); models of DeltaNet diverge
    with it.
    """
    made: Asked = []

    def pretend(
        architecture: Architecture, corpus: Corpus, settings: ProxySettings, *, seed: int, device: str
    ) -> ProxyScore:
        made.append(
            (architecture.shorthand, architecture.normalized_head, settings.weight_normalization, seed)
        )
        if "d" in architecture.shorthand and settings.weight_normalization:
            raise DivergedError("loss nan at step 3")
        return score(LOSSES[settings.weight_normalization][seed], settings, seed)

    monkeypatch.setattr(experiment, "train_once", pretend)
    monkeypatch.setattr(experiment, "prepare", lambda settings, **_: corpus)
    return made


def settings_of(tiny: RunConfig, **changed: object) -> NormalizationSettings:
    data = {
        "families": {"llama": "a f", "deltanet": "d f"},
        "width": 32,
        "seeds": [0, 1, 2],
        "data": tiny.data,
        "proxy": tiny.proxy,
    }
    genes = {"attention": {"head_dim": 16, "group": 1}, "deltanet": {"head_dim": 16}}
    return experiment.parsed(NormalizationSettings, {**data, "genes": genes, **changed}, where="study")


def test_what_is_gained_is_the_mean_over_pairs_of_a_seed(
    tiny_config: RunConfig, tmp_path: Path, asked: Asked
) -> None:
    llama, deltanet = run(
        settings_of(tiny_config), results=tmp_path, name="wn", console=Console(file=StringIO())
    )
    assert (llama.without, llama.with_it) == tuple(LOSSES.values())
    assert llama.gain == pytest.approx(0.1)  # 0.1, 0.2 and 0.0
    assert llama.error == pytest.approx(0.1 / 3**0.5)
    assert "loss nan at step 3" in deltanet.problem
    assert [one for one in asked if one[0] == "a f"] == [
        ("a f", bool(on), bool(on), seed) for seed in range(3) for on in (0, 1)
    ]
    console = Console(file=StringIO(), width=120)
    console.print(normalization_table([llama, deltanet], settings_of(tiny_config)))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(text in shown for text in ("3.1000", "3.0000", "0.1000", "0.0577", "loss nan at step 3"))


def test_what_is_recorded_is_not_trained_again(tiny_config: RunConfig, tmp_path: Path, asked: Asked) -> None:
    first = run(settings_of(tiny_config), results=tmp_path, name="wn", console=Console(file=StringIO()))
    known = len(asked)
    assert (
        run(settings_of(tiny_config), results=tmp_path, name="wn", console=Console(file=StringIO())) == first
    )
    assert len(asked) == known == 12


def test_a_rate_of_its_own_is_for_trainings_with_normalization_alone(
    tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: Corpus
) -> None:
    rates: set[tuple[bool, float]] = set()

    def pretend(
        architecture: Architecture, corpus: Corpus, settings: ProxySettings, *, seed: int, device: str
    ) -> ProxyScore:
        rates.add((settings.weight_normalization, settings.learning_rate))
        return score(3.0, settings, seed)

    monkeypatch.setattr(experiment, "train_once", pretend)
    monkeypatch.setattr(experiment, "prepare", lambda settings, **_: corpus)
    settings = settings_of(tiny_config, normalized_learning_rate=0.5)
    effects = run(settings, results=tmp_path, name="wn", console=Console(file=StringIO()))
    assert rates == {(False, tiny_config.proxy.learning_rate), (True, 0.5)}
    assert f"rate {tiny_config.proxy.learning_rate:g}, 0.5 with" in str(
        normalization_table(effects, settings).title
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"families": {}}, "families"),
        ({"families": {"odd": "a z"}}, "z"),
        ({"genes": {"nothing": {}}}, "nothing"),
        ({"proxy": ProxySettings(weight_normalization=True)}, "expected it unset"),
        ({"normalized_learning_rate": 0}, "normalized_learning_rate"),
    ],
)
def test_settings_that_cannot_be_are_said(
    tiny_config: RunConfig, changed: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        settings_of(tiny_config, **changed)
