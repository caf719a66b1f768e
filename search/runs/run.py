"""A run from start to end: what the commands `search`, `resume` and `status` do."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from operators.base.errors import ConfigError, RunError
from operators.base.files import whole_folder
from profiler.device.device import open_device
from proxy_train.text.corpus import Corpus, finished_manifest, unknown_tokens
from proxy_train.text.data_settings import DataSettings
from search.cluster.connect import require_room
from search.cluster.executor import InlineExecutor
from search.config.run import RunConfig
from search.objectives import Objective
from search.runs import ledger as ledger_module
from search.runs.folder import RunFolder, new_folder
from search.runs.ledger import Ledger
from search.runs.loop import Progress, check_constraints, drive, prepare_run
from search.runs.status import complete
from search.runs.text_read import print_source

if TYPE_CHECKING:
    from search.cluster.executor import Executor

PADDING = 1024  # published models pad their vocabularies to multiples of 64 to 1024
CONFIG_NOTE = "# What the run was asked to do, for people; the ledger holds what counts. Changing this file changes nothing.\n"

Display = Callable[[Console, tuple[Objective, ...]], AbstractContextManager[Callable[[Progress], None]]]


def start(
    config: RunConfig,
    *,
    results: Path,
    name: str,
    console: Console,
    executor: str = "inline",
    address: str | None = None,
) -> RunFolder:
    """Checks everything that can be checked, then makes the run's folder with an empty ledger. Nothing is left behind by an error.

    executor, address: what is going to drive it; a cluster at an address has its own devices.
    """
    folder = new_folder(results, name)
    config = config.model_copy(update={"data": config.data.absolute()})
    if address is None:
        open_device(config.device)
    if executor == "ray":
        require_room(address, device=config.device, kinds=config.device_kind)
    else:
        _require_no_kind(config)
    console.print("preparing the text and checking the configuration", soft_wrap=True)
    prepared = prepare_run(config, on_source=lambda record: print_source(console, record))
    _require_used(prepared.corpus)
    if unknown := unknown_tokens(prepared.corpus.folder):
        console.print(
            f"the tokenizer has no token for some of the text: {unknown:,} of {prepared.corpus.validation_tokens:,} "
            "validation tokens are its unknown token",
            soft_wrap=True,
        )
    check_constraints(prepared, measured_here=address is None)
    try:
        with whole_folder(folder.path) as building:
            partial = RunFolder(building)
            started = datetime.now().astimezone().isoformat(timespec="seconds")
            ledger_module.create(
                partial.ledger, config, started=started, corpus_digest=prepared.corpus.digest
            ).close()
            partial.config.write_text(CONFIG_NOTE + config.to_yaml(), encoding="utf-8")
            partial.tokenizer.write_text(prepared.corpus.tokenizer().to_str(), encoding="utf-8")
    except OSError as error:
        new_folder(results, name)  # raises where another search of that name has made it meanwhile
        raise RunError(f"{folder.path}: cannot be made: {error.strerror}") from None
    return folder


def _require_used(corpus: Corpus) -> None:
    """Raises ConfigError for a vocabulary far above the tokens of the text: its rows would be measured, and never trained."""
    manifest, _ = finished_manifest(corpus.folder, hashes=False)
    tokens = manifest.tokenizer_tokens
    most = max(DataSettings().vocabulary, -(-tokens // PADDING) * PADDING)
    if corpus.vocabulary > most:
        raise ConfigError(
            f"data.vocabulary: expected at most {most}, as the tokenizer has {tokens} tokens, got {corpus.vocabulary}"
        )


def drive_to_end(
    folder: RunFolder, *, executor: str, address: str | None, console: Console, display: Display
) -> Ledger:
    """Drives a run until nothing is left to do, and returns its ledger.

    display: shows progress while it goes on.

    An interrupted run says how to go on and raises KeyboardInterrupt.
    """
    with folder.driving():
        ledger = ledger_module.open_ledger(folder.ledger)
        config = ledger.config
        objectives = config.parsed_objectives()
        if not complete(ledger, ledger.entries()):
            try:
                prepared = prepare_run(config)
                if prepared.corpus.digest != ledger.corpus_digest:
                    raise RunError(
                        f"run {folder.name}: the text of {config.data.source} is not what it was when the run began"
                    )
                with display(console, objectives) as shown:
                    workers = _executor(executor, config, address, console)
                    try:
                        drive(prepared, folder, ledger, workers, on_progress=shown)
                    finally:
                        workers.close()
            except KeyboardInterrupt:
                entries = ledger.entries()
                done = sum(entry.evaluation is not None for entry in entries)
                console.print(
                    f"\ninterrupted: {done} of {config.candidates} candidates are evaluated and recorded; "
                    f"go on with `{folder.command('resume')}`",
                    soft_wrap=True,
                )
                raise
    return ledger


def _executor(kind: str, config: RunConfig, address: str | None, console: Console) -> "Executor":
    if kind == "inline":
        _require_no_kind(config)
        return InlineExecutor(config.device)
    from search.cluster.ray_executor import RayExecutor  # Ray takes a while to import

    count, cores = config.workers, len(os.sched_getaffinity(0))
    if address is None and count > cores:
        count = max(cores, len(config.device_kind))
        console.print(f"workers: {config.workers} asked for, {count} work: this machine has {cores} cores")
    return RayExecutor(
        workers=count,
        device=config.device,
        deadline_s=config.deadline_s,
        kinds=config.device_kind,
        address=address,
    )


def _require_no_kind(config: RunConfig) -> None:
    """Raises ConfigError for a kind of device: Ray alone knows of which kind one is."""
    if config.device_kind:
        raise ConfigError(
            f"device_kind {', '.join(config.device_kind)}: kinds are found by Ray, not by --executor inline"
        )
