"""The study of learning rates: what the base width's best rate loses elsewhere, carried over and as it is."""

from io import StringIO
from math import log2
from pathlib import Path

import pytest
from rich.console import Console

from operators import Architecture
from operators.base.errors import ConfigError, DivergedError
from proxy_train.settings import ProxyScore, ProxySettings
from proxy_train.text.corpus import Corpus
from search.config.run import RunConfig
from search.studies import experiment
from search.studies.rates import RateSettings, run
from search.studies.report import rates_table
from tests.helpers.proxy_scores import score

RATES = [0.001, 0.002, 0.004, 0.008]
Asked = list[tuple[int, float, int | None]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, corpus: Corpus) -> Asked:
    """Every training, as (width, rate, base width).

    The best rate of matrices is 0.064 / width; eight times that diverges.
    """
    made: Asked = []

    def pretend(
        architecture: Architecture, corpus: Corpus, settings: ProxySettings, *, seed: int, device: str
    ) -> ProxyScore:
        made.append((architecture.width, settings.learning_rate, settings.base_width))
        of_matrices = (
            settings.learning_rate * (settings.base_width or architecture.width) / architecture.width
        )
        octaves = log2(of_matrices / (0.064 / architecture.width))
        if octaves > 2.5:
            raise DivergedError("loss nan at step 3")
        return score(3 + 0.1 * octaves**2, settings, seed)

    monkeypatch.setattr(experiment, "train_once", pretend)
    monkeypatch.setattr(experiment, "prepare", lambda settings, **_: corpus)
    return made


def settings_of(tiny: RunConfig, **changed: object) -> RateSettings:
    proxy = tiny.proxy.model_copy(update={"base_width": 32})
    data = {"layers": "a f", "widths": [32, 64, 128], "rates": RATES, "data": tiny.data, "proxy": proxy}
    return experiment.parsed(
        RateSettings, {**data, "genes": {"attention": {"head_dim": 16, "group": 1}}, **changed}, where="study"
    )


def test_a_rate_that_scales_with_width_transfers_where_it_is_carried_over(
    tiny_config: RunConfig, tmp_path: Path, asked: Asked
) -> None:
    sweeps = run(settings_of(tiny_config), results=tmp_path, name="rates", console=Console(file=StringIO()))
    assert {(sweep.width, sweep.carried): (sweep.best, round(sweep.lost, 6)) for sweep in sweeps} == {
        (32, True): (0.002, 0.0),
        (64, True): (0.002, 0.0),
        (128, True): (0.002, 0.0),
        (32, False): (0.002, 0.0),
        (64, False): (0.001, 0.1),  # one octave above its best
        (128, False): (0.001, 0.3),  # two octaves above 0.0005, where 0.001 is one above
    }
    assert [sweep.losses.keys() for sweep in sweeps][-1] == {0.001, 0.002}  # the others diverged
    assert len(asked) == 5 * len(RATES)  # at the base width both are the same
    console = Console(file=StringIO(), width=120)
    console.print(rates_table(sweeps, settings_of(tiny_config)))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[-1].strip() == "lost: by the best rate at width 32, 0.002"
    assert lines[-2].split() == ["128", "as", "it", "is", "3.100*", "3.400", "0.300"]


def test_where_weights_are_normalized_the_head_is_too(tiny_config: RunConfig) -> None:
    for normalized in (False, True):
        proxy = tiny_config.proxy.model_copy(update={"base_width": 32, "weight_normalization": normalized})
        assert (
            settings_of(tiny_config, proxy=proxy).architecture(32, vocabulary=512).normalized_head
            == normalized
        )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"widths": [64, 128]}, "base_width: expected one of the widths"),
        ({"widths": [32]}, "widths"),
        ({"rates": [0.001, 0.0]}, "rates"),
        ({"layers": "a z"}, "z"),
    ],
)
def test_settings_that_cannot_be_are_said(
    tiny_config: RunConfig, changed: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        settings_of(tiny_config, **changed)
