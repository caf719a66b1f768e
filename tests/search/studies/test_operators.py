"""The studies: equal sizes are equal, tables hold what was found, and the short loss is compared with the
long one.
"""

import json
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from operators import Architecture
from operators.base.errors import ConfigError, DeviceError
from operators.model import HybridLM
from proxy_train.settings import ProxyScore, ProxySettings
from proxy_train.text.corpus import Corpus
from search.cli import app as cli
from search.cli import study as study_cli
from search.config.run import RunConfig
from search.evaluation.profiling import Failure
from search.studies import experiment, statistics
from search.studies import operators as study_operators
from search.studies import ranks as study_ranks
from search.studies.operators import OperatorSettings, nearest, with_parameters
from search.studies.ranks import RankSettings, drawn
from search.studies.report import operators_table, print_ranks
from tests.helpers.proxy_scores import score

GENES = {
    "attention": {"head_dim": 16, "group": 1},
    "mamba2": {"head_dim": 16, "state": 16},
    "deltanet": {"head_dim": 16},
}
OPERATORS = {"mixers": ["a", "mamba2", "d"], "layers": 4, "width": 64, "genes": GENES}
Asked = list[tuple[str, int, int, int]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, corpus: Corpus) -> Asked:
    """Every training that is asked for, as (shorthand, width, tokens, seed); a wide model has a lower loss,
    more so in the long run.
    """
    made: Asked = []

    def pretend(
        architecture: Architecture, corpus: Corpus, settings: ProxySettings, *, seed: int, device: str
    ) -> ProxyScore:
        made.append((architecture.shorthand, architecture.width, settings.tokens, seed))
        return score(
            3 + 10 / architecture.width + 1 / architecture.depth + 100 / settings.tokens + seed / 100,
            settings,
            seed,
        )

    monkeypatch.setattr(statistics, "_DRAWS", 5)  # of which intervals are made, and here is none looked at
    monkeypatch.setattr(experiment, "train_once", pretend)
    monkeypatch.setattr(
        experiment, "profiled", lambda *_, **__: Failure(status="out_of_memory", reason="pretended")
    )
    monkeypatch.setattr(experiment, "prepare", lambda settings, **_: corpus)
    return made


def operator_settings(tiny: RunConfig, **changed: object) -> OperatorSettings:
    data = {**OPERATORS, "data": tiny.data, "proxy": tiny.proxy, "profile": tiny.profile, **changed}
    return experiment.parsed(OperatorSettings, data, where="study")


def rank_settings(tiny: RunConfig, **changed: object) -> RankSettings:
    data = {
        "space": tiny.space,
        "data": tiny.data,
        "proxy": tiny.proxy,
        "architectures": 6,
        "long_tokens": 10_240,
        **changed,
    }
    return experiment.parsed(RankSettings, data, where="study")


@pytest.mark.parametrize(
    "mixers", [("mamba2",), ("deltanet",), ("attention", "mamba2"), ("deltanet", "mamba2")]
)
def test_equal_parameters_are_equal_in_the_built_models(
    tiny_config: RunConfig, mixers: tuple[str, ...]
) -> None:
    settings = operator_settings(tiny_config)
    reference, found = settings.architecture(("attention",), 64, vocabulary=300), None
    target = sum(parameter.numel() for parameter in HybridLM(reference).parameters())
    found = with_parameters(settings, mixers, target, vocabulary=300)
    assert sum(parameter.numel() for parameter in HybridLM(found).parameters()) == pytest.approx(
        target, rel=0.02
    )
    assert {layer.operator for layer in found.layers} == {*mixers, "swiglu"}
    assert [layer.operator for layer in found.layers][::2] == list(mixers) * (2 // len(mixers))
    assert found.depth == reference.depth


def test_a_size_that_no_step_reaches_is_refused(tiny_config: RunConfig) -> None:
    settings = operator_settings(tiny_config, width_step=8)
    with pytest.raises(ConfigError, match=r"mamba2: expected 100 parameters within 2%, the nearest are"):
        with_parameters(settings, ("mamba2",), 100, vocabulary=300)


def test_bisection_finds_the_nearest_of_all_widths_with_few_measurements() -> None:
    widths, measured = list(range(8, 400, 8)), []

    def ms(width: int) -> float:
        measured.append(width)
        return 0.1 + width**2 / 1e4

    for target in (0.0, 0.1, 0.71, 3.0, 9.9, 99.0):
        measured.clear()
        assert nearest(widths, ms, target) == min(
            widths, key=lambda width: abs(0.1 + width**2 / 1e4 - target)
        )
        assert len(set(measured)) <= 8
    assert nearest([8], ms, 5.0) == 8


def test_every_mixer_alone_and_in_pairs_is_trained_once_with_each_seed(
    tiny_config: RunConfig, asked: Asked, tmp_path: Path
) -> None:
    settings, quiet = operator_settings(tiny_config, seeds=[0, 1]), Console(file=StringIO())
    rows = study_operators.run(settings, results=tmp_path, name="some", console=quiet)
    assert study_operators.run(settings, results=tmp_path, name="some", console=quiet) == rows
    assert len(asked) == len(set(asked)) == 6 * 2
    assert {shorthand for shorthand, *_ in asked} == {
        "a f a f",
        "m f m f",
        "d f d f",
        "a f m f",
        "a f d f",
        "m f d f",
    }
    assert [row.loss for row in rows] == sorted(row.loss for row in rows)
    assert rows[0].spread == pytest.approx(0.01 / 2**0.5)  # the standard deviation of x and x + 0.01
    out = StringIO()
    Console(file=out, width=120).print(operators_table(rows, settings))
    assert f"{rows[0].loss:.4f}" in out.getvalue()
    assert "out_of_memory: pretended" in out.getvalue()  # why there is no latency
    narrow = StringIO()
    Console(file=narrow, width=70).print(operators_table(rows, settings))
    assert all(f"{row.loss:.4f}" in narrow.getvalue() for row in rows)  # words give way, figures do not


def test_equal_latency_needs_latencies(tiny_config: RunConfig, asked: Asked, tmp_path: Path) -> None:
    with pytest.raises(
        DeviceError, match="cannot be measured, and equal latency needs it: out_of_memory: pretended"
    ):
        study_operators.run(
            operator_settings(tiny_config, equal="latency"),
            results=tmp_path,
            name="some",
            console=Console(file=StringIO()),
        )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mixers": []}, "mixers"),
        ({"mixers": ["zz"]}, "zz"),
        ({"mixers": ["f"]}, "f: expected an operator of kind mixer"),
        ({"feedforward": "a"}, "a: expected an operator of kind feedforward"),
        ({"layers": 6}, "multiple of 4"),
        ({"genes": {"zz": {}}}, "zz"),
    ],
)
def test_operators_that_cannot_be_compared_are_refused(
    tiny_config: RunConfig, changed: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as found:
        operator_settings(tiny_config, **changed)
    assert str(found.value).startswith("study: ")


def test_more_architectures_begin_with_the_same_ones(tiny_config: RunConfig) -> None:
    few, many = (drawn(rank_settings(tiny_config, architectures=count), vocabulary=300) for count in (5, 9))
    assert many[:5] == few
    assert len({one.digest() for one in many}) == 9


def test_a_space_of_too_few_architectures_is_refused(tiny_config: RunConfig) -> None:
    genes = {"a": {"head_dim": [16], "group": [1], "qk_norm": ["none"], "window": [None]}}
    space = {"operators": ["a"], "widths": [16], "min_depth": 1, "max_depth": 2, "genes": genes}
    with pytest.raises(ConfigError, match="space: 2 different architectures in 600 draws: expected 6"):
        drawn(rank_settings(tiny_config, space=space), vocabulary=300)


def test_ranks_compare_the_same_architectures_at_both_budgets(
    tiny_config: RunConfig, asked: Asked, tmp_path: Path
) -> None:
    out = StringIO()
    console = Console(file=out, width=100)
    study = study_ranks.run(rank_settings(tiny_config), results=tmp_path, name="some", console=console)
    again = study_ranks.run(rank_settings(tiny_config), results=tmp_path, name="some", console=console)
    assert again == study
    assert len(asked) == len(set(asked)) == 12
    assert {tokens for _, _, tokens, _ in asked} == {1024, 10_240}
    # the pretended losses at both budgets differ by a constant: the same order, whatever parameters say
    for correlation in study.correlations["short loss"].values():
        assert correlation.value == pytest.approx(1)
    assert study.correlations["parameters"]["spearman"].value < 1
    print_ranks(console, study)
    assert "6 architectures, 1,024 tokens against 10,240" in out.getvalue()


def test_the_long_budget_is_longer(tiny_config: RunConfig) -> None:
    with pytest.raises(ConfigError, match=r"long_tokens: expected more than proxy\.tokens, 1024, got 1024"):
        rank_settings(tiny_config, long_tokens=1024)


def test_studies_print_json_for_a_script(
    tiny_config: RunConfig,
    asked: Asked,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "ranks.yaml"
    file.write_text(json.dumps(rank_settings(tiny_config).model_dump(mode="json")), encoding="utf-8")
    monkeypatch.setattr(
        "sys.argv", ["frontrunner", "study", "ranks", str(file), "--results", str(tmp_path), "--json"]
    )
    monkeypatch.setattr(study_cli, "console", Console(width=100))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)
    assert len(found["architectures"]) == 6
    assert set(found["correlations"]) == {"short loss", "parameters", "FLOPs"}


@dataclass
class Size:
    """Stands for a row of the study."""

    params: int


@pytest.mark.parametrize(
    ("options", "equal", "width"),
    [((), "parameters", 64), (("--equal", "latency", "--set", "width=128"), "latency", 128)],
)
def test_options_change_the_file_and_rows_are_printed(
    tiny_config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    equal: str,
    width: int,
) -> None:
    asked_for: list[OperatorSettings] = []

    def pretended(settings: OperatorSettings, **_: object) -> list[Size]:
        asked_for.append(settings)
        return [Size(3)]

    file = tmp_path / "operators.yaml"
    file.write_text(json.dumps(operator_settings(tiny_config).model_dump(mode="json")), encoding="utf-8")
    monkeypatch.setattr(study_operators, "run", pretended)
    monkeypatch.setattr("sys.argv", ["frontrunner", "study", "operators", str(file), "--json", *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert [(settings.equal, settings.width) for settings in asked_for] == [(equal, width)]
    assert json.loads(capsys.readouterr().out) == [{"params": 3}]
