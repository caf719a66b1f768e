"""Benchmarks of studies: an interrupted one goes on; one that ended, or is not the same, begins afresh."""

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from operators import Architecture
from operators.base.errors import RunError
from proxy_train.settings import ProxyScore, ProxySettings
from proxy_train.text.corpus import Corpus
from search.benchmarks import record, registry
from search.config.run import RunConfig
from search.evaluation.profiling import Failure
from search.studies import experiment, statistics
from search.studies.law import report as law_report
from tests.helpers.proxy_scores import score

GENES = {"attention": {"head_dim": 8, "group": 1}}
STUDIES: dict[str, dict[str, Any]] = {
    "law": {"depths": [1, 2, 3], "widths": [16, 32, 48], "genes": GENES},
    "mixers": {"mixers": ["attention", "deltanet"], "layers": 4, "width": 64, "genes": {}, "seeds": [0, 1]},
    "ranks": {"architectures": 5, "long_tokens": 10_240},
    "normalization": {
        "families": {"llama": "a f", "deep": "a f a f"},
        "width": 16,
        "genes": GENES,
        "seeds": [0, 1],
    },
    "rates": {"layers": "a f", "widths": [16, 32], "rates": [0.001, 0.002, 0.004], "genes": GENES},
}
TRAININGS = {"law": 9, "mixers": 6, "ranks": 10, "normalization": 8, "rates": 9}
CONFIGS = {
    "law": "law",
    "mixers": "study_operators",
    "ranks": "study_ranks",
    "normalization": "study_normalization",
    "rates": "study_rates",
}
Made = list[tuple[str, str, int]]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Every training that is asked for, none of which is made."""
    asked: Made = []

    def pretend(
        architecture: Architecture, corpus: Corpus, settings: ProxySettings, *, seed: int, device: str
    ) -> ProxyScore:
        asked.append((architecture.digest(), settings.model_dump_json(), seed))
        return score(2 + 1 / architecture.depth + 8 / architecture.width + seed / 100, settings, seed)

    monkeypatch.setattr(experiment, "train_once", pretend)
    monkeypatch.setattr(
        experiment, "profiled", lambda *_, **__: Failure(status="out_of_memory", reason="pretended")
    )
    # Of draws intervals are made, and here is none looked at.
    monkeypatch.setattr(law_report, "fit", partial(law_report.fit, draws=5))
    monkeypatch.setattr(statistics, "_DRAWS", 5)
    return asked


@pytest.fixture
def configure(tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes the configuration of a benchmark into the folder where everything happens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(name: str, **changed: Any) -> None:
        proxy = tiny_config.proxy.model_dump(mode="json") | ({"base_width": 16} if name == "rates" else {})
        content = {
            "data": tiny_config.data.model_dump(mode="json"),
            "proxy": proxy,
            **STUDIES[name],
            **changed,
        }
        if name == "ranks":
            content["space"] = tiny_config.space.model_dump(mode="json")
        # A file of this name goes before the shipped configuration.
        Path(f"{CONFIGS[name]}_cpu").write_text(json.dumps(content), encoding="utf-8")

    return write


def measured(name: str) -> None:
    registry.measure_and_write(name, device="cpu", out=Path("record.json"), console=Console(file=StringIO()))


def interrupted(name: str, made: Made, monkeypatch: pytest.MonkeyPatch, *, after: int) -> str:
    """Runs the benchmark until it has made so many trainings -> what it printed."""
    pretend, out, began = experiment.train_once, StringIO(), len(made)

    def until(*arguments: Any, **named: Any) -> ProxyScore:
        if len(made) == began + after:
            raise KeyboardInterrupt
        return pretend(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train_once", until)
        with pytest.raises(KeyboardInterrupt):
            registry.measure_and_write(
                name, device="cpu", out=Path("record.json"), console=Console(file=out, width=300)
            )
    return out.getvalue()


@pytest.mark.parametrize("name", STUDIES)
def test_the_same_command_goes_on_until_the_record_is_written_and_then_begins_afresh(
    name: str, made: Made, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(name)
    said = interrupted(name, made, monkeypatch, after=3)
    (folder,) = Path("results").iterdir()
    assert f"interrupted: 3 trainings are recorded in {folder}; the same command goes on" in said

    def full(path: Path, content: bytes) -> None:
        raise RunError(f"{path}: cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(record, "write_whole", full)
        with pytest.raises(RunError, match="No space left"):
            measured(name)
    measured(name)
    assert len(made) == TRAININGS[name]
    assert json.loads(Path("record.json").read_text())["name"] == name
    assert not folder.exists()
    measured(name)
    assert Counter(made) == dict.fromkeys(made[: TRAININGS[name]], 2)


@pytest.mark.parametrize("changed", ["settings", "text", "commit"])
def test_what_was_interrupted_is_left_alone_where_the_record_would_be_of_something_else(
    changed: str,
    made: Made,
    configure: Callable[..., None],
    tiny_config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure("ranks")
    interrupted("ranks", made, monkeypatch, after=3)
    if changed == "settings":
        configure("ranks", seeds=[0, 1])
    elif changed == "text":
        (tmp_path / "other.txt").write_text(
            "\n".join("words of another text. " * 20 for _ in range(200)), encoding="utf-8"
        )
        configure(
            "ranks", data={**tiny_config.data.model_dump(mode="json"), "source": str(tmp_path / "other.txt")}
        )
    else:
        monkeypatch.setattr(record, "commit", lambda: "another")
    begun = len(made)
    measured("ranks")
    assert len(made) - begun == TRAININGS["ranks"] * (2 if changed == "settings" else 1)
    assert len(list(Path("results").glob("bench-ranks-*"))) == 2
