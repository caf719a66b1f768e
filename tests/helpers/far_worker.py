"""A worker of a cluster as on another machine, where none of the driver's prepared data lies."""

from dataclasses import replace

from search.cluster.worker import Worker


class FarWorker(Worker):
    def evaluate(self, job, files):
        return super().evaluate(
            replace(job, corpus=elsewhere(job.corpus), images=elsewhere(job.images)), files
        )


def elsewhere(prepared):
    """The same, in a folder that does not exist."""
    return replace(prepared, folder=prepared.folder / "of another machine")
