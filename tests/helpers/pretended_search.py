"""Drives a search whose evaluations are pretended, in its run folder."""

import dataclasses

from search.runs import ledger as ledger_module
from search.runs.folder import RunFolder
from search.runs.loop import drive


def with_repeats(prepared, share, **changes):
    config = prepared.config.model_copy(update={"repeats": share, **changes})
    return dataclasses.replace(prepared, config=config)


def searched(path, prepared, executor, **options):
    path.mkdir()
    folder = RunFolder(path)
    ledger = ledger_module.create(folder.ledger, prepared.config, started="now")
    drive(prepared, folder, ledger, executor, **options)
    return ledger.entries()
