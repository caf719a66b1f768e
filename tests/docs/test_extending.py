"""The recipes of docs/extending.md do what they say: each new file is run here as it is written there."""

import ast
import builtins
import importlib
import inspect
import re
import sys
from io import StringIO
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from typer import Typer

from operators import Architecture, registry
from operators.base import shipped
from profiler.profile import Profile
from proxy_train import tasks
from proxy_train.task_settings import TaskSettings
from proxy_train.text.corpus import Corpus
from search import studies
from search.cli import study
from search.config.run import RunConfig
from search.config.space import SpaceSettings
from search.spaces.encoding import Dimension, IntegerSpace
from search.studies import experiment, report
from search.view.terminal_tables import show
from tests.docs.pages import ROOT, fenced

BLOCKS = fenced((ROOT / "docs" / "extending.md").read_text(encoding="utf-8"), "python")


def recipe(path: str, **names: Any) -> Any:
    """The module that the block with this path makes; names: what the file that it goes into has already."""
    (block,) = [block for block in BLOCKS if block.startswith(f"# {path}\n")]
    module = ModuleType(Path(path).stem)
    module.__dict__.update(names)
    exec(compile(block.partition("\n\n\n# in ")[0], path, "exec"), module.__dict__)  # noqa: S102 - our page
    return module


def test_the_operator_is_one() -> None:
    operator = recipe("operators/library/gelu.py").OPERATOR
    assert operator.symbol not in registry.symbols()
    shape = operator.shape.make(32, ratio=2.0)
    architecture = Architecture.from_shorthand("a", width=32, vocabulary=8)
    module = operator.build(architecture, shape, None)
    assert sum(each.numel() for each in module.parameters()) == operator.parameters(32, shape)
    x = torch.randn(2, 3, 32)
    assert module(x).shape == x.shape
    torch.testing.assert_close(module.step(x[:, 1], {}, torch.zeros(2)), module(x)[:, 1])


def test_the_objective_has_its_error_beside_what_it_comes_from() -> None:
    (line,) = [line for block in BLOCKS for line in block.splitlines() if line.startswith("yield _keys(")]
    assert line.replace(', "prefill_tokens_per_s")', ",)") in inspect.getsource(Profile._timed)


def test_the_task_asks_for_the_first_token() -> None:
    first = recipe("proxy_train/tasks.py", **vars(tasks)).first
    settings = TaskSettings()
    inputs, targets = first(settings, 5, rng=np.random.default_rng(0))
    assert inputs.shape == (5, settings.sequence_length)
    assert (targets[:, -1] == inputs[:, 0]).all()
    assert (targets[:, :-1] == tasks.UNSCORED).all()


def test_the_searcher_changes_members_of_the_frontier() -> None:
    space = IntegerSpace({"x": Dimension(20), "y": Dimension(20)})
    searcher = recipe("search/searchers/hill_climbing.py").HillClimbing(space, seed=0)
    for _ in range(20):
        proposal = searcher.ask()
        assert set(proposal.parents) <= set(searcher.frontier)
        searcher.tell(proposal.number, (float(sum(space.features(proposal.candidate).values())),))
    assert any(searcher.proposal(number).parents for number in range(20))


def test_the_space_has_only_such_members() -> None:
    settings = SpaceSettings(operators=("a", "f"), widths=(64,), min_depth=2, max_depth=6)
    space = recipe("search/spaces/alternating.py").AlternatingSpace(settings, 64)
    rng = np.random.default_rng(0)
    for _ in range(10):
        words = space.sample(rng).shorthand.split()
        assert all(one != following for one, following in pairwise(words))


def test_the_benchmark_counts_every_shipped_architecture() -> None:
    benchmark = recipe("search/benchmarks/library/sizes.py").BENCHMARK
    figures = benchmark.run("cpu", Console(file=StringIO())).figures
    assert set(figures) == {f"{name}.params" for name in shipped.names("architecture")}
    assert figures["smollm2-135m.params"] == 134_515_008


def test_the_study_trains_once_with_each_seed(
    tiny_config: RunConfig, tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.search.studies.test_experiment import score

    seeds = recipe("search/studies/seeds.py")
    monkeypatch.setattr(experiment, "prepare", lambda settings, **rest: corpus)
    monkeypatch.setattr(
        experiment, "train_once", lambda *_, seed, **rest: score(3.0 + seed, tiny_config.proxy, seed)
    )
    settings = seeds.SeedSettings(
        layers="a f", width=32, seeds=(0, 1), data=tiny_config.data, proxy=tiny_config.proxy
    )
    rows = seeds.run(settings, results=tmp_path, name="seeds", console=Console(file=StringIO()))
    assert [(each.seed, each.loss) for each in rows] == [(0, 3.0), (1, 4.0)]
    names = {**vars(report), **vars(seeds)}
    table = recipe("search/studies/report.py", **names).seeds_table(rows, settings)
    output = StringIO()
    show(Console(file=output, width=80), table)
    lines = [line.split() for line in output.getvalue().splitlines()]
    assert lines[-2:] == [["0", "3.0000"], ["1", "4.0000"]]


def test_the_command_of_the_study_hands_on_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, handed = recipe("search/studies/seeds.py"), []
    monkeypatch.setitem(sys.modules, "search.studies.seeds", seeds)
    monkeypatch.setattr(studies, "seeds", seeds, raising=False)
    monkeypatch.setattr(report, "seeds_table", "its table", raising=False)
    takes = inspect.signature(study._print_study)
    names = {
        **vars(study),
        "study_app": Typer(),
        "_print_study": lambda *given: handed.append(takes.bind(*given)),
    }
    recipe("search/cli/study.py", **names).seeds_(Path("a.yaml"), ["seeds=[0]"], "b", Path("c"), True)
    assert [each.arguments for each in handed] == [
        {
            "schema": seeds.SeedSettings,
            "run": seeds.run,
            "table": "its table",
            "config": Path("a.yaml"),
            "changes": ["seeds=[0]"],
            "name": "b",
            "results": Path("c"),
            "as_json": True,
        }
    ]


FRAGMENTS = [
    "search/cli/study.py",
    "search/studies/report.py",
    "operators/published/transformer_families.py",
    "proxy_train/tasks.py",
]
NEW = {"SeedLoss", "SeedSettings"}  # of the study's own recipe


@pytest.mark.parametrize("path", FRAGMENTS)
def test_lines_for_a_file_use_what_the_file_has(path: str) -> None:
    (block,) = [block for block in BLOCKS if block.startswith(f"# {path}\n")]
    tree = ast.parse(block.partition("\n\n\n# in ")[0])
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    there = {*dir(module), *dir(builtins), *NEW}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            there.add(node.arg)
        elif isinstance(node, ast.alias):
            there.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.FunctionDef):
            there.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            there.add(node.id)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert sorted(used - there) == []


def test_the_command_prints_a_digest(capsys: pytest.CaptureFixture[str]) -> None:
    recipe("search/cli/digest.py").digest("qwen3-0.6b")
    assert re.fullmatch(r"[0-9a-f]{64}\n", capsys.readouterr().out)
