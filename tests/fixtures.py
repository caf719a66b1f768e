"""Fixtures that several test files share."""

import atexit
import functools
import gc
import json
import multiprocessing.util
import os
import random
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from alembic.script.base import util as alembic_files

from operators import Architecture
from profiler.device import ceilings
from profiler.device.device import Device, open_device
from profiler.measuring import anchor, conditions
from profiler.process.worker import ProfilingWorker
from profiler.table import build as table_build
from profiler.table import validate as table_validate
from profiler.table.latency_table import LatencyTable
from profiler.timing import SamplingSettings
from proxy_train.text import shards
from proxy_train.text.corpus import Corpus
from proxy_train.text.data_settings import DataSettings
from proxy_train.text.prepare import prepare
from search.cli import app as cli
from search.cluster import connect
from search.config import run as config_module
from search.config.run import RunConfig
from search.config.searcher import SearcherSettings
from search.evaluation.outcome import Job
from search.runs.preflight import Prepared
from search.spaces.free import ArchitectureSpace
from tests.helpers import warm_python
from tests.helpers.made_up_device import MadeUpAnchor, MadeUpPace, MadeUpStopwatch
from tests.helpers.speeches import SMALL_SHARD, speech

Call = Callable[..., tuple[int, str, str]]

signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell's background jobs ignore it, and so would what tests start

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    # The locks of devices lie in there: tests that run side by side do not wait for each other, which
    # measures worse and ends sooner.
    folder = Path(tempfile.gettempdir()) / f"frontrunner-tests-{os.getuid()}-{worker}"
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    # When its tests are done it ends at once: nobody asks for its exit code, and taking libraries apart takes
    # seconds.
    atexit.register(os._exit, 0)


gc.disable()  # until all test files are imported, which leaves nothing to collect


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: one that began last would be waited for alone."""
    gc.freeze()  # a collection looks at a million objects less, half a second each time
    gc.enable()
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="module")
def _garbage_is_looked_for_once() -> None:
    """What the files before left, such as the libraries that they imported, is no garbage. Whatever measures
    collects first, and would look at all of it each time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a step of the anchor took on this machine is not measured for each test, nor left in the user's
    folder. Matplotlib's list of fonts, which takes a second, is.
    """
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("MPLCONFIGDIR", str(users / "matplotlib"))
    folder = tmp_path_factory.mktemp("cache")
    if not torch.cuda.is_available():  # whose compiled kernels lie in the same folder
        os.environ["XDG_CACHE_HOME"] = str(folder)
    return folder


@pytest.fixture(autouse=True, scope="session")
def _warm_python() -> Iterator[None]:
    """Processes that tests start have imported torch already; `cold_python` starts ordinary ones. Measuring
    there and here is quicker, see there.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():  # whose libraries read variables that tests set
            patch.setattr(subprocess, "Popen", warm_python.Popen)
            patch.setattr(multiprocessing.util, "spawnv_passfds", warm_python.spawnv_passfds)
            patch.setattr(connect, "_start_here", warm_python.with_warm_workers(connect._start_here))
            patch.setattr(anchor, "_SETTINGS", SamplingSettings.model_validate(warm_python.QUICK_ANCHOR))
            patch.setitem(ceilings.COPY_BYTES, "cpu", warm_python.QUICK_COPY_BYTES)
        yield


@pytest.fixture(autouse=True, scope="session")
def _revisions_are_read_once() -> Iterator[None]:
    """Optuna has Alembic read ten files whenever a ledger is opened, thirty when one is made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alembic_files, "load_python_file", functools.cache(alembic_files.load_python_file))
        yield


@pytest.fixture
def cold_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the test starts are started as users start them."""
    monkeypatch.setattr(subprocess, "Popen", warm_python.ColdPopen)
    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", warm_python.cold_spawnv_passfds)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The locks of devices lie in the test's own folder: it does not wait for others, nor they for it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture
def cpu() -> Device:
    return open_device("cpu")


@pytest.fixture
def table(tmp_path: Path, cpu: Device) -> LatencyTable:
    """An empty one."""
    return LatencyTable.open(tmp_path / "table.json", cpu)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> type[MadeUpStopwatch]:
    """Whatever is measured for a latency table takes as long as on the made-up device."""
    monkeypatch.setattr(table_validate, "_SETTINGS", SamplingSettings(min_seconds=0))
    monkeypatch.setattr(conditions, "LEAST_SHARE", 0.0)
    for module in (table_build, table_validate):
        monkeypatch.setattr(module, "Anchor", MadeUpAnchor)
        monkeypatch.setattr(module, "Pace", MadeUpPace)
        monkeypatch.setattr(module, "Stopwatch", MadeUpStopwatch)
        monkeypatch.setattr(module, "random_model", lambda architecture, *_, **__: architecture)
    return MadeUpStopwatch


@pytest.fixture(scope="module")
def profiler() -> Iterator[ProfilingWorker]:
    with ProfilingWorker("cpu") as worker:
        yield worker


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few small documents with some structure to learn."""
    folder = tmp_path_factory.mktemp("text")
    rng = random.Random(0)
    words = [
        "the",
        "people",
        "of",
        "these",
        "states",
        "have",
        "a",
        "government",
        "and",
        "it",
        "serves",
        "them",
        "well",
    ]
    for number in range(8):
        sentences = (" ".join(rng.choice(words) for _ in range(9)) + "." for _ in range(60))
        (folder / f"{number}.txt").write_text("\n".join(sentences), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_config(text_folder: Path) -> RunConfig:
    """A run whose candidates take a fraction of a second each."""
    return config_module.parse(
        {
            "candidates": 6,
            "repeats": 0,
            "data": {"source": str(text_folder), "vocabulary": 300, "validation_fraction": 0.2},
            "proxy": {"tokens": 1024, "batch_size": 2, "sequence_length": 32, "validation_tokens": 256},
            "profile": {
                "batch_sizes": [1],
                "contexts": [16],
                "min_samples": 5,
                "min_seconds": 0.001,
                "max_seconds": 0.01,
                "attempts": 1,
            },
            "space": {
                "operators": ["attention", "swiglu", "relu2"],
                "widths": [16, 32],
                "min_depth": 2,
                "max_depth": 5,
                "genes": {"attention": {"head_dim": [8, 16]}},
            },
            "evolution": {"population": 3, "tournament": 2},
        },
        where="tiny",
    )


@pytest.fixture
def config(tiny_config: RunConfig, tmp_path: Path) -> Path:
    """The file of `tiny_config`."""
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_config.to_yaml())
    return path


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, own_cache: Path
) -> Call:
    """Runs a command in this process, in its own folder -> exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    cache, pace = tmp_path / "cache" / "frontrunner", own_cache / "frontrunner" / "pace"
    for folder in (cache, pace):
        folder.mkdir(parents=True, exist_ok=True)
    (cache / "pace").symlink_to(pace)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()  # what a test printed before is not the command's
        monkeypatch.setattr("sys.argv", ["frontrunner", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture(scope="session")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Sentences of a small grammar: easy to predict from the words before, not from how often words occur."""
    rng = np.random.default_rng(0)
    who, what, where = (
        ["The governor", "A senator", "Our envoy"],
        ["signed the treaty", "read the report"],
        ["in Boston", "at sea", "by night"],
    )
    folder = tmp_path_factory.mktemp("text")
    for number in range(40):
        text = "".join(f"{rng.choice(who)} {rng.choice(what)} {rng.choice(where)}. " for _ in range(25))
        (folder / f"{number}.txt").write_text(text)
    return prepare(
        DataSettings(source=str(folder), vocabulary=272, validation_fraction=0.2),
        cache=tmp_path_factory.mktemp("cache"),
    )


@pytest.fixture
def texts() -> list[str]:
    """The documents of `source`."""
    return [speech(seed) for seed in range(30)]


@pytest.fixture
def source(tmp_path: Path, texts: list[str]) -> str:
    """A folder of text files, some deeper in a file of lines, and what is not to be read."""
    folder = tmp_path / "speeches"
    (folder / "deeper").mkdir(parents=True)
    for number, text in enumerate(texts[:20]):
        (folder / f"{number:03}.txt").write_bytes(text.encode())
    lines = [json.dumps({"text": text, "year": number}) for number, text in enumerate(texts[20:])]
    (folder / "deeper" / "more.jsonl").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    (folder / "README.md").write_text("not a document")
    return str(folder)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of SMALL_SHARD tokens, so that a small text has several."""
    monkeypatch.setattr(shards, "SHARD_TOKENS", SMALL_SHARD)


@pytest.fixture(scope="session")
def corpus(tiny_config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepare(tiny_config.data, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def prepared(tiny_config: RunConfig, corpus: Corpus) -> Prepared:
    """`tiny_config` for pretended evaluations: with the searcher that is quick to ask, where every second
    counts.
    """
    config = tiny_config.model_copy(update={"searcher": SearcherSettings(name="evolution")})
    return Prepared(config, corpus, ArchitectureSpace(config.space, corpus.vocabulary))


@pytest.fixture
def job(tiny_config: RunConfig, corpus: Corpus) -> Job:
    """An evaluation that succeeds quickly."""
    architecture = Architecture.from_shorthand(
        "a f", width=16, vocabulary=corpus.vocabulary, genes={"attention": {"head_dim": 8}}
    )
    return Job(
        0,
        architecture,
        corpus,
        tiny_config.proxy,
        tiny_config.profile,
        (),
        "cpu",
        0,
        120.0,
        tiny_config.fidelity,
        tiny_config.tasks,
    )
