"""Frontrunner from Python: searches, what they found, measurements and models. See docs/python-api.md.

Each function does what the command of its name does. Each may raise the errors of `operators.base.errors`,
whose messages are one line.
"""

from operators.base.threads import import_numpy

import_numpy()  # before torch, which imports it too

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.console import Console
from tokenizers import Tokenizer

from operators import Architecture, HybridLM, VisionLanguage, VisionLanguageModel
from operators.operator import Operator
from operators.vision.vision_language import Model as EitherModel
from profiler.measuring.comparison import Comparison
from search.config import run as config_module
from search.config.name import new_name
from search.config.run import RunConfig, several
from search.evaluation.comparing import ROUNDS
from search.evaluation.comparing import compare as _compare
from search.evaluation.outcome import Evaluation
from search.objectives import CandidateMetric
from search.runs.entry import Entry
from search.runs.evaluating import TextScore, evaluate
from search.runs.export import export, load
from search.runs.folder import RunFolder, find_folder
from search.runs.generating import Written, generate
from search.runs.ledger import open_ledger
from search.runs.progress import Progress
from search.runs.run import drive_to_end, start
from search.runs.sources import language_model, model_of
from search.runs.status import candidate_of
from search.runs.training import Kept, train_and_keep
from search.searchers.contract import Proposal, Proposer, Searcher
from search.studies import promotion as _promotion
from search.studies.promoted import Promotion
from search.view.page.report import write_page
from search.view.profiles import Profiled, profile_each, profile_settings
from search.view.run import write_plots
from search.view.tables import run_frame

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Architecture",
    "Candidate",
    "CandidateMetric",
    "Kept",
    "Operator",
    "Progress",
    "Promotion",
    "Proposal",
    "Proposer",
    "Run",
    "Searcher",
    "TextScore",
    "VisionLanguage",
    "Written",
    "architecture",
    "compare",
    "evaluate",
    "generate",
    "load",
    "open_run",
    "profile",
    "promote",
    "resume",
    "search",
    "train",
]

RESULTS = Path("results")
Model = EitherModel | Path | str
"""A model, also one that sees, or what names one: a file, a folder, RUN:ID or a shipped name."""


@dataclass(frozen=True)
class Candidate:
    """One candidate of a run.

    number: its id in the run.
    architecture: the candidate's architecture.
    status: as in docs/columns.md; `unfinished` where its evaluation has not ended.
    scores: metrics by name; empty where it has none.
    evaluation: all that was measured and trained; None where it has not ended.
    curve: columns `tokens` and `loss`, the mean training loss (nats per token) since the row before.
    origin: how it was proposed.
    parents: the ids of the candidates that it was made from.
    """

    number: int
    architecture: EitherModel
    status: str
    scores: Mapping[str, float]
    evaluation: Evaluation | None
    curve: "pd.DataFrame"
    origin: str
    parents: tuple[int, ...]
    _folder: RunFolder

    def model(self, *, device: str = "cpu") -> tuple[HybridLM | VisionLanguageModel, Tokenizer]:
        """Returns the model with its trained weights, in evaluation mode, and its tokenizer.

        Raises RunError.
        """
        with TemporaryDirectory() as folder:
            self.export(Path(folder) / "model")
            return load(Path(folder) / "model", device=device)

    def export(self, to: Path | str, *, weights: bool = True) -> None:
        """Writes the candidate into `to`, a new or empty folder, as `frontrunner export` does.

        to: the folder.
        weights: whether the trained weights are written too.

        Raises RunError.
        """
        with closing(open_ledger(self._folder.ledger)) as ledger:
            entry = next(entry for entry in ledger.entries() if entry.number == self.number)
            export(self._folder, ledger, entry, Path(to), weights=weights)


@dataclass(frozen=True)
class Run:
    """A run in its folder. Each call reads the ledger anew, so that a run under way can be followed."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> RunConfig:
        """The configuration that the run was started with."""
        return self._read()[0]

    def candidates(
        self, objectives: Sequence[str] | None = None, where: Sequence[str] = ()
    ) -> "pd.DataFrame":
        """Returns the candidates that meet the conditions, one a row; docs/columns.md describes the columns.

        objectives: metrics by which the column `frontier` is made; None for the run's own.
        where: conditions, as in `params <= 2e6`.

        Raises ConfigError.
        """
        config, entries = self._read()
        return run_frame(config, entries, objectives, where).pandas()

    def frontier(self, objectives: Sequence[str] | None = None, where: Sequence[str] = ()) -> "pd.DataFrame":
        """Returns the candidates, of those that meet the conditions, that no other dominates.

        Arguments as of `candidates`.
        """
        config, entries = self._read()
        return run_frame(config, entries, objectives, where, frontier=True).pandas()

    def candidate(self, number: int) -> Candidate:
        """Returns one candidate by its id. Raises RunError."""
        import pandas as pd

        folder, ledger, entry = candidate_of(self.path.parent, str(self.path.absolute()), int(number))
        ledger.close()
        found = entry.evaluation
        points = found.proxy.curve if found is not None and found.proxy is not None else ()
        return Candidate(
            number=entry.number,
            architecture=entry.architecture,
            status=found.status if found is not None else "unfinished",
            scores=dict(found.metrics) if found is not None else {},
            evaluation=found,
            curve=pd.DataFrame(points, columns=["tokens", "loss"]),
            origin=entry.origin,
            parents=entry.parents,
            _folder=folder,
        )

    def report(self, to: Path | str, *, beside: Sequence["Run"] = ()) -> None:
        """Writes the page of the run, one HTML file that opens without a network.

        to: the file, ending in .html.
        beside: further runs that the page shows.

        Raises RunError.
        """
        write_page(Path(to), [RunFolder(run.path) for run in (self, *beside)])

    def _read(self) -> tuple[RunConfig, tuple[Entry, ...]]:
        with closing(open_ledger(RunFolder(self.path).ledger)) as ledger:
            return ledger.config, ledger.entries()


def search(
    config: Mapping[str, Any] | RunConfig | Path | str,
    *,
    name: str | None = None,
    results: Path | str = RESULTS,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    executor: str = "ray",
    address: str | None = None,
) -> Run:
    """Searches to the end: proposes, measures and trains candidates.

    config: the keys of a configuration, its file, or the name of a shipped one.
    name: of the run; None makes one of the configuration's name and the time.
    results: folder of all runs.
    on_progress: called with the progress of the search after every change.
    executor: where evaluations run: `ray`, in worker processes, or `inline`, in this one.
    address: of a running Ray cluster; None for this machine.

    Ctrl-C leaves a run that `resume` continues.
    """
    stem = Path(config).stem if isinstance(config, str | Path) else "run"
    folder = start(
        config_module.given(config),
        results=Path(results),
        name=new_name(stem) if name is None else name,
        executor=executor,
        address=address,
    )
    return _driven(folder, on_progress, executor, address)


def resume(
    name: Path | str,
    *,
    results: Path | str = RESULTS,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    executor: str = "ray",
    address: str | None = None,
) -> Run:
    """Continues a run that was interrupted, by its name or folder; arguments as of `search`."""
    return _driven(find_folder(Path(results), str(name)), on_progress, executor, address)


def open_run(name: Path | str, *, results: Path | str = RESULTS) -> Run:
    """Opens a run that was begun, by its name or folder, for reading. Raises RunError."""
    return Run(find_folder(Path(results), str(name)).path)


def profile(
    *models: Model,
    device: str = "cpu",
    batch_sizes: Sequence[int] = (1, 8),
    contexts: Sequence[int] = (256,),
    threads: int = 1,
    backend: str = "auto",
    images: int = 1,
    engines: Sequence[str] = (),
    quantization: str | None = None,
    results: Path | str = RESULTS,
) -> list[Profiled]:
    """Measures models one after the other: latency, throughput and memory.

    models: models, or what names one, see `Model`.
    batch_sizes: rows of a batch.
    contexts: tokens in the state of each row.
    threads: of the CPU that the models use.
    backend: `auto`, or one backend's name for every operator.
    images: in each prompt of models that see.
    engines: of others, `llama.cpp` and `transformers`, in which each model is measured too.
    quantization: number format of matrices in llama.cpp; None is Q8_0.

    Each result has a `title`, and a `profile` or the `problem` why there is none.
    """
    settings = profile_settings(
        batch_sizes=tuple(batch_sizes),
        contexts=tuple(contexts),
        threads=threads,
        images=images,
        quantization=quantization,
    )
    titled = [_titled(model, Path(results)) for model in models]
    return profile_each(titled, settings, device=device, backend=backend, engines=several("engines", engines))


def compare(
    a: Model,
    b: Model,
    *,
    device: str = "cpu",
    batch: int = 1,
    context: int = 256,
    rounds: int = ROUNDS,
    threads: int = 1,
    backend: str = "auto",
    results: Path | str = RESULTS,
) -> Comparison:
    """Whether B's decode step is faster than A's, by interleaved measurements in fresh processes."""
    settings = profile_settings(batch_sizes=(batch,), contexts=(context,), threads=threads)
    first, second = (language_model(*_titled(model, Path(results))) for model in (a, b))
    return _compare(first, second, settings, device=device, backend=backend, rounds=rounds)


def train(
    model: Path | str,
    to: Path | str,
    *,
    tokens: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    config: Path | str | None = None,
    data: Sequence[Path | str] = (),
    fresh: bool = False,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    results: Path | str = RESULTS,
) -> Kept:
    """Trains a model, from its weights where it has some, and keeps it in a folder that `load` reads.

    model: what names one, see `Model`.
    to: a new or empty folder, or the one of this training: the same call goes on after any interruption.
    tokens: to train on; None for those of the proxy section.
    seed: of weights and batches.
    device: where to train.
    config: a run file or shipped name, whose data and proxy sections to use; None for the model's own.
    data: files and folders of text in place of the data section's; () for none.
    fresh: whether to begin with random weights even if the model has some.
    on_step: hears the number of each step and its loss (nats per token).
    results: folder of all runs.
    """
    return train_and_keep(
        str(model),
        Path(to),
        tokens=tokens,
        seed=seed,
        device=device,
        config=None if config is None else Path(config),
        data=tuple(map(str, several("data", data))),
        fresh=fresh,
        results=Path(results),
        on_step=on_step,
    )


def promote(
    run: Path | str,
    *,
    tokens: int,
    seeds: int = 3,
    top: int = 3,
    candidates: Sequence[int] = (),
    against: Sequence[Path | str] = _promotion.AGAINST,
    metric: str | None = None,
    device: str | None = None,
    results: Path | str = RESULTS,
) -> Promotion:
    """Trains winners longer, with several seeds, beside rivals that are as fast; see docs/winners.md.

    run: its name or folder.
    tokens: of each training, at least the search's own.
    seeds: how many trainings each model has.
    top: how many candidates of the frontier, if none is named.
    candidates: ids, in place of the first `top`.
    against: what names the rivals.
    metric: the time that is made equal; None for the first one among the run's objectives and constraints.
    device: where to train and measure; None for the run's.
    results: folder of all runs.
    """
    return _promotion.promote(
        str(run),
        results=Path(results),
        tokens=tokens,
        seeds=seeds,
        top=top,
        candidates=candidates,
        against=tuple(map(str, several("against", against))),
        metric=metric,
        device=device,
        console=Console(quiet=True),
    )


def architecture(name: Path | str, *, results: Path | str = RESULTS) -> EitherModel:
    """Returns the architecture of a file, a folder, a candidate as RUN:ID, or a shipped name."""
    return model_of(str(name), Path(results))[1]


def _titled(model: Model, results: Path) -> tuple[str, EitherModel]:
    if isinstance(model, EitherModel):
        return model.name or model.shorthand, model
    return model_of(str(model), results)


def _driven(
    folder: RunFolder, on_progress: Callable[[Progress], None], executor: str, address: str | None
) -> Run:
    write_plots(drive_to_end(folder, executor=executor, address=address, on_progress=on_progress))
    return Run(folder.path)
