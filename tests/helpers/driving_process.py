"""A process that drives a run of pretended evaluations, forked from one that has imported what it needs."""

import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from proxy_train.text.corpus import Corpus
from search.evaluation.outcome import Job, Outcome
from search.runs import ledger as ledger_module
from search.runs.folder import RunFolder
from search.runs.loop import drive
from search.runs.preflight import Prepared
from search.spaces.free import ArchitectureSpace
from tests.helpers.pretended_evaluations import PretendExecutor, pretended

_CONTEXT = get_context("forkserver")


def driving(folder: RunFolder, corpus: Corpus) -> ForkServerProcess:
    """The process, which has begun to drive the run. It appends what it evaluates to the file `evaluated`."""
    _CONTEXT.set_forkserver_preload([__name__])
    ours, theirs = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_drive, args=(str(folder.path), corpus, theirs), daemon=True)
    process.start()
    with ours, theirs:
        assert ours.poll(120)
        assert ours.recv() == "driving"
    return process


def _drive(path: str, corpus: Corpus, begun: Connection) -> None:
    folder = RunFolder(Path(path))
    with folder.driving():
        ledger = ledger_module.open_ledger(folder.ledger)
        space = ArchitectureSpace(ledger.config.space, corpus.vocabulary)
        prepared = Prepared(ledger.config, corpus, space)

        def answer(job: Job) -> Outcome:
            with (folder.path / "evaluated").open("a") as file:
                file.write(f"{job.number}\n")
            time.sleep(0.02)
            return pretended(job)

        begun.send("driving")
        drive(prepared, folder, ledger, PretendExecutor(capacity=2, answer=answer))
