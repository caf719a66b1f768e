"""A run from start to end: what a search and its resumption do. Nothing here prints."""

from collections.abc import Callable
from contextlib import closing, nullcontext
from datetime import datetime
from pathlib import Path

from operators.base.errors import ConfigError, RunError
from operators.base.files import whole_folder
from operators.base.threads import usable_cores
from profiler.device.device import open_device
from proxy_train.text.corpus import Corpus, finished_manifest, unknown_tokens
from proxy_train.text.data_settings import DataSettings
from search.cluster.connect import require_room
from search.cluster.executor import Executor, InlineExecutor
from search.config import run as config_module
from search.config.run import RunConfig
from search.runs import ledger as ledger_module
from search.runs.ended import Ended, conclude
from search.runs.entry import Entry
from search.runs.folder import RunFolder, new_folder
from search.runs.loop import drive
from search.runs.preflight import prepare_run
from search.runs.progress import (
    Checking,
    DesignsLeftOut,
    Event,
    FewerWorkers,
    Interrupted,
    Progress,
    TrackerFailed,
    UnknownTokens,
)
from search.runs.status import complete
from search.runs.trackers.contract import Tracked
from search.runs.trackers.registry import Trackers, require
from search.runs.warming_process import kernels_compiled_meanwhile
from search.spaces.staged import make_space

PADDING = 1024  # published models pad their vocabularies to multiples of 64 to 1024
CONFIG_NOTE = (
    "# What the run was asked to do. The run reads its ledger: changing this file changes nothing.\n"
)

OnEvent = Callable[[Event], None]
OnProgress = Callable[[Progress], None]


def _ignore(news: object) -> None:
    """The listener of a caller that gave none."""


def start(
    config: RunConfig,
    *,
    results: Path,
    name: str,
    executor: str = "inline",
    address: str | None = None,
    on_event: OnEvent = _ignore,
) -> RunFolder:
    """Checks everything that can be checked, then makes the run's folder with an empty ledger.

    results: folder of all runs.
    name: of the run, and of its folder in `results`.
    executor: what is going to drive it: `inline` or `ray`.
    address: of a running Ray cluster, which has its own devices; None for this machine.
    on_event: hears what is worth a line.

    Raises our errors and leaves nothing behind then.
    """
    _require_known(executor, address)
    folder = new_folder(results, name)
    require(config.trackers)
    config = config.absolute()
    if address is None:
        open_device(config.device, engines=True)
    if executor == "ray":
        require_room(address, device=config.device, kinds=config.device_kind, on_one_gpu=config.on_one_gpu)
    else:
        _require_no_kind(config.device_kind)
    on_event(Checking())
    prepared = prepare_run(config, on_source=on_event)
    corpus = prepared.corpus
    _require_used(corpus)
    if unknown := unknown_tokens(corpus.folder):
        on_event(UnknownTokens(unknown=unknown, tokens=corpus.validation_tokens))
    prepared.check_constraints(measured_here=address is None)
    if reasons := make_space(config.space, corpus.vocabulary).left_out():
        on_event(DesignsLeftOut(reasons))
    try:
        with whole_folder(folder.path) as building:
            new, started = RunFolder(building), datetime.now().astimezone().isoformat(timespec="seconds")
            digest = prepared.data_digest
            ledger_module.create(new.ledger, config, started=started, corpus_digest=digest).close()
            new.config.write_text(CONFIG_NOTE + config.to_yaml(), encoding="utf-8")
            new.tokenizer.write_text(corpus.tokenizer().to_str(), encoding="utf-8")
    except OSError as error:
        new_folder(results, name)  # raises where another search of that name has made it meanwhile
        raise RunError(f"{folder.path}: cannot be made: {error.strerror}") from None
    return folder


def _require_used(corpus: Corpus) -> None:
    """Raises ConfigError for a vocabulary far above the tokens of the text.

    The rows of the embedding beyond them would be measured, and never trained.
    """
    manifest, _ = finished_manifest(corpus.folder, hashes=False)
    tokens = manifest.tokenizer_tokens
    most = max(DataSettings().vocabulary, -(-tokens // PADDING) * PADDING)
    if corpus.vocabulary > most:
        raise ConfigError(
            f"data.vocabulary: expected at most {most}, as the tokenizer has {tokens} tokens, "
            f"got {corpus.vocabulary}"
        )


def drive_to_end(
    folder: RunFolder,
    *,
    executor: str,
    address: str | None,
    on_progress: OnProgress = _ignore,
    on_event: OnEvent = _ignore,
) -> Ended:
    """Drives a run until nothing is left to do, and returns what it found.

    executor: where evaluations run: `inline` or `ray`.
    address: of a running Ray cluster; None for this machine.
    on_progress: hears where the search stands, after every change.
    on_event: hears what else is worth a line.

    Raises Interrupted, a KeyboardInterrupt that says how to go on, and RunError where no candidate has
    scores.
    """
    _require_known(executor, address)
    with folder.driving(), closing(ledger_module.open_ledger(folder.ledger)) as ledger:
        config, entries = ledger.config, ledger.entries()
        if complete(ledger, entries):
            return conclude(folder, ledger)
        try:
            # The ledger's space was not looked at when it was opened.
            config_module.parse(config.model_dump(), where=ledger_module.CONFIG)
            prepared = prepare_run(config)
            if prepared.data_digest != ledger.corpus_digest:
                source = f"{config.data.source}{' or the images' if prepared.images else ''}"
                raise RunError(
                    f"run {folder.name}: the text of {source} is not what it was when the run began"
                )
            # Ray takes seconds to start its workers: the run shows where it stands meanwhile.
            objectives = config.parsed_objectives()
            on_progress(Progress(config.candidates, entries, 0, 0.0, 0, objectives=objectives))
            trackers = Trackers(
                config.trackers,
                run=folder.name,
                folder=folder.path / "trackers",
                config=config.model_dump(mode="json"),
                on_failure=lambda name, reason: on_event(TrackerFailed(name, reason)),
            )
            with (
                closing(trackers),
                kernels_compiled_meanwhile(config, folder) if address is None else nullcontext(),
                closing(_executor(executor, config, address, on_event)) as workers,
            ):
                drive(
                    prepared,
                    folder,
                    ledger,
                    workers,
                    here=address is None,
                    on_progress=on_progress,
                    on_evaluated=lambda entry: trackers.evaluated(_tracked(entry)),
                )
        except KeyboardInterrupt:
            done = sum(entry.evaluation is not None for entry in ledger.entries())
            raise Interrupted(
                done=done, candidates=config.candidates, resume=folder.command("resume")
            ) from None
        return conclude(folder, ledger)


def _tracked(entry: Entry) -> Tracked:
    evaluation = entry.evaluation
    score = evaluation.proxy if evaluation else None
    return Tracked(
        number=entry.number,
        order=entry.order or 0,
        architecture=entry.architecture.shorthand,
        status=evaluation.status if evaluation else "unfinished",
        scores=dict(evaluation.metrics) if evaluation else {},
        curve=score.curve if score and entry.again is None else (),  # with the first evaluation alone
    )


def _executor(kind: str, config: RunConfig, address: str | None, on_event: OnEvent) -> Executor:
    if kind == "inline":
        _require_no_kind(config.device_kind)
        return InlineExecutor(config.device)
    from search.cluster.ray_executor import RayExecutor  # Ray takes a while to import

    cores = len(usable_cores())
    count = config.at_once if address else min(config.at_once, max(config.workers, cores))
    if address is None and count > cores:
        count = max(cores, len(config.device_kind))
        on_event(FewerWorkers(wanted=config.workers, workers=count, cores=cores))
    return RayExecutor(
        workers=count,
        device=config.device,
        deadline_s=config.deadline_s,
        kinds=config.device_kind,
        on_one_gpu=config.on_one_gpu,
        address=address,
    )


def _require_known(executor: str, address: str | None) -> None:
    if executor not in ("inline", "ray"):
        raise ConfigError(f"executor: expected inline or ray, got {executor!r}")
    if executor == "inline" and address is not None:
        raise ConfigError(f"address {address}: expected executor ray, got inline")


def _require_no_kind(kinds: tuple[str, ...]) -> None:
    """Raises ConfigError for a kind of device: only Ray knows which kind a device is of."""
    if kinds:
        raise ConfigError(
            f"device_kind {', '.join(kinds)}: expected executor ray, which finds kinds, got inline"
        )
