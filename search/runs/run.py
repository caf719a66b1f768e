"""A run from start to end: what the commands `search`, `resume` and `status` do."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from operators.base.errors import ConfigError, RunError
from operators.base.files import whole_folder
from profiler.device.device import open_device
from proxy_train.text.corpus import finished_manifest, unknown_tokens
from proxy_train.text.data import Corpus, DataSettings
from search.cli.data import print_source
from search.cluster.connect import require_room
from search.cluster.executor import InlineExecutor
from search.config.run import RunConfig
from search.objectives import by_kind, names
from search.runs import ledger as ledger_module
from search.runs.export import why_without_weights
from search.runs.folder import RunFolder, find_folder, new_folder
from search.runs.frontier import frontier_of, hypervolume_gain
from search.runs.gate_counts import Gate, counted, gates_table
from search.runs.ledger import Entry, Ledger
from search.runs.loop import check_constraints, drive, prepare_run
from search.runs.repeats import next_repeat
from search.spaces.edges import at_edges
from search.view.frontier_plot import plot_frontier
from search.view.progress import display
from search.view.tables import candidates_sheet, columns_for, frame, sorted_by
from search.view.terminal_tables import show

if TYPE_CHECKING:
    from search.cluster.executor import Executor

PADDING = 1024  # published models pad their vocabularies to multiples of 64 to 1024
CONFIG_NOTE = "# What the run was asked to do, for people; the ledger holds what counts. Changing this file changes nothing.\n"


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


def go_on(folder: RunFolder, *, executor: str, address: str | None, console: Console) -> None:
    """Drives a run to its end and prints its frontier; what was interrupted says how to go on, and raises KeyboardInterrupt."""
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
        _conclude(folder, ledger, console)


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


def _conclude(folder: RunFolder, ledger: Ledger, console: Console) -> None:
    entries, objectives = ledger.entries(), ledger.config.parsed_objectives()
    best = frontier_of(entries, objectives)
    if not best:
        reasons = {entry.evaluation.reason for entry in entries if entry.evaluation}
        raise RunError(
            f"run {folder.name}: none of {len(entries)} candidates has scores: {'; '.join(sorted(reasons))[:300]}"
        )
    kinds, first = by_kind(objectives, ledger.config.device_kind), ledger.config.evolution.population
    for kind, wanted in kinds.items():
        table = frame(
            entries, wanted, names(ledger.config.profile, ledger.config.tasks, ledger.config.device_kind)
        )
        table = sorted_by(table[table["frontier"]], wanted[0].metric)
        title = (
            f"frontier of {folder.name}{kind and f' on {kind}'}: {len(table)} of {len(entries)} candidates"
        )
        show(console, candidates_sheet(table, columns_for(table, wanted), entries, title=title))
        plot_frontier(
            entries, wanted, folder.plot(kind), title=f"{folder.name}{kind and f' on {kind}'}", first=first
        )
    gain = hypervolume_gain(entries, objectives, first=first)
    if gain is not None:
        began = f"of the first {min(first, len(entries))} proposals alone {gain.initial:.4f}"
        console.print(f"hypervolume {gain.final:.4f}, {began}", soft_wrap=True)
    for line in at_edges([entry.architecture for entry in best], ledger.config.space):
        console.print(line, soft_wrap=True, markup=False)
    gates = counted(entries, ledger.config)
    if any(gate.turned_away for gate in gates):
        show(console, gates_table(gates))
    if ledger.exhausted:
        asked = ledger.config.candidates
        console.print(
            f"the space has no more than {len(entries)} candidates, fewer than the {asked} asked for",
            soft_wrap=True,
        )
    elif ledger.time_up and len(entries) < ledger.config.candidates:
        console.print(
            f"the time of {ledger.config.time_s:g} s was up after {len(entries)} candidates", soft_wrap=True
        )
    without = ["--without-weights"] if why_without_weights(folder, ledger, best[0]) else []
    for label, value in (
        *(("plot", str(folder.plot(kind))) for kind in kinds),
        ("look further", folder.command("frontier", "--all")),
        ("", folder.command("show", best[0].number)),
        ("export", folder.command("export", best[0].number, *without, "--to", "winner")),
    ):
        console.print(f"{label:<14}{value}", soft_wrap=True, markup=False)


def opened(results: Path, run: str) -> tuple[RunFolder, Ledger]:
    """An existing run, for reading. Raises RunError."""
    folder = find_folder(results, run)
    return folder, ledger_module.open_ledger(folder.ledger)


def candidate_of(results: Path, run: str, number: int) -> tuple[RunFolder, Ledger, Entry]:
    """One candidate of a run. Raises RunError."""
    folder, ledger = opened(results, run)
    entries = ledger.entries()
    for entry in entries:
        if entry.number == number:
            return folder, ledger, entry
    known = f"expected 0 to {len(entries) - 1}" if entries else "it has none yet"
    raise RunError(f"run {run} has no candidate {number}: {known}")


def complete(ledger: Ledger, entries: Sequence[Entry]) -> bool:
    """Whether nothing is left to do, second evaluations included, given what the ledger's `entries` returned."""
    if ledger.time_up and ledger.ended(entries):
        return True
    return ledger.complete(entries) and next_repeat(entries, ledger.config) is None


def state_of(folder: RunFolder, ledger: Ledger, entries: Sequence[Entry]) -> str:
    """Whether a run is driven, complete or stopped, for people."""
    if driver := folder.driver():
        return f"driven by process {driver}"
    return "complete" if complete(ledger, entries) else f"stopped, `{folder.command('resume')}` goes on"


def standing(results: Path, run: str) -> dict[str, Any]:
    """How far a run is, for people and scripts."""
    folder, ledger = opened(results, run)
    entries, objectives = ledger.entries(), ledger.config.parsed_objectives()
    ended = [entry.evaluation for entry in entries if entry.evaluation]
    gain = hypervolume_gain(entries, objectives, first=ledger.config.evolution.population)
    return {
        "run": folder.name,
        "state": state_of(folder, ledger, entries),
        "started": ledger.started,
        "candidates": ledger.config.candidates,
        "evaluated": len(ended),
        "evaluated_twice": sum(bool(found.standard_errors) for found in ended),
        "unfinished": len(entries) - len(ended),
        **{
            status: sum(found.status == status for found in ended)
            for status in sorted({found.status for found in ended})
        },
        "tainted": sum(bool(entry.tainted()) for entry in entries),
        "best_loss": min((found.metrics["loss"] for found in ended if "loss" in found.metrics), default=None),
        "frontier": len(frontier_of(entries, objectives)),
        "hypervolume": gain and gain.final,
        "hypervolume_initial": gain and gain.initial,
        "folder": str(folder.path),
        "gates": {
            gate.name: {key: value for key, value in asdict(gate).items() if key != "name"}
            for gate in counted(entries, ledger.config)
        },
    }


def print_standing(console: Console, found: Mapping[str, Any]) -> None:
    """What `standing` returns, for people."""
    for key, value in found.items():
        if key != "gates":
            shown = "-" if value is None else f"{value:.4f}" if isinstance(value, float) else value
            unit = " nats/token" if key == "best_loss" and value is not None else ""
            console.print(f"{key:<24}{shown}{unit}", soft_wrap=True, markup=False)
    if found["gates"]:
        show(console, gates_table([Gate(name, **counts) for name, counts in found["gates"].items()]))
