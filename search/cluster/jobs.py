"""Searches as jobs of a Ray cluster. The driver runs there too, so the search outlives the terminal."""

import logging
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from operators.base.errors import ConfigError, RunError, flat
from proxy_train.images.image_settings import EASY_VQA
from search.cluster.connect import answers, use_token
from search.cluster.own_code import write_own_code
from search.config.name import check_name, listed
from search.config.run import RunConfig

_RUN = "frontrunner"
"""Key of a job's metadata whose value is the name of the run that it drives."""
RESULTS = "$HOME/frontrunner/results"
"""Folder of runs on the cluster's head, outside the jobs' own folders, which Ray deletes with the jobs."""


def submit(config: RunConfig, *, address: str, name: str, resume: bool, results: str | None) -> str:
    """Starts or continues a search on a cluster, and returns the job's id. Raises ConfigError, RunError.

    The job brings this code and the configuration. The files of `data` and of `vision.images` must be on the
    cluster's head.

    address: of Ray's dashboard, as http://HOST:8265.
    name: name of the run. RunError if another job drives this run.
    resume: continue the run of this name.
    results: folder on the cluster's head that holds the runs; None means RESULTS.
    """
    _check_paths(config)
    folder = RESULTS if results is None else shlex.quote(results)
    arguments = ["resume", name] if resume else ["search", "run.yaml", "--name", name]
    job = f"{check_name(name)}-{datetime.now():%Y%m%d-%H%M%S}"
    with _client(address) as client, tempfile.TemporaryDirectory() as staged:
        drivers = [
            search.submission_id
            for search in _searches(client)
            if search.metadata[_RUN] == name and not search.status.is_terminal()
        ]
        if drivers:
            raise RunError(
                f"run {name} is already driven by job {drivers[0]}: choose another name, "
                f"or stop it with `frontrunner stop {drivers[0]}`"
            )
        write_own_code(Path(staged))
        (Path(staged) / "run.yaml").write_text(config.to_yaml(), encoding="utf-8")
        command = f"python -m search.cli.main {shlex.join(arguments)} --results {folder} --address auto"
        environment = {"working_dir": staged}
        return str(
            client.submit_job(
                entrypoint=command, submission_id=job, runtime_env=environment, metadata={_RUN: name}
            )
        )


def jobs(address: str) -> list[dict[str, str]]:
    """The submitted searches as rows for people, the latest first. Raises ConfigError, RunError."""
    with _client(address) as client:
        searches = _searches(client)
    searches.sort(key=lambda job: job.start_time or 0, reverse=True)
    return [
        {
            "job": job.submission_id,
            "run": job.metadata[_RUN],
            "status": str(job.status.value).lower(),
            "started": _moment(job.start_time),
            "ended": _moment(job.end_time),
            "reason": reason(job.message or "") if str(job.status.value) == "FAILED" else "",
        }
        for job in searches
    ]


def reason(message: str) -> str:
    """The reason why a job failed: its last line of error among the many lines that Ray repeats.

    message: Ray's message about the job.
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1][:200]


def logs(address: str, job: str) -> str:
    """The output of a job so far. Raises ConfigError, RunError."""
    with _client(address) as client:
        return str(client.get_job_logs(_known(client, job)))


def stop(address: str, job: str) -> bool:
    """Asks a job to end, as Ctrl-C does, and returns whether it was running. Raises ConfigError, RunError."""
    with _client(address) as client:
        return bool(client.stop_job(_known(client, job)))


def _searches(client: Any) -> list[Any]:
    """The jobs of a cluster that are searches of ours."""
    return [job for job in client.list_jobs() if _RUN in (job.metadata or {})]


def _known(client: Any, job: str) -> str:
    """Returns the id. Raises RunError if no job has it."""
    ids = [listed_job.submission_id for listed_job in client.list_jobs() if listed_job.submission_id]
    if job not in ids:
        raise RunError(
            f"unknown job {job!r}: expected one of {listed(ids) if ids else 'none, as nothing was submitted'}"
        )
    return job


@contextmanager
def _client(address: str) -> Iterator[Any]:
    """Ray's client of its job server. Its errors become ConfigError."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"--address {address}: expected the address of Ray's dashboard, as http://HOST:8265"
        )
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not answers(f"{parts.hostname}:{port}", timeout_s=5):
        raise ConfigError(f"--address {address}: no Ray dashboard answers there")
    use_token(address)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in ("ray", "ray.dashboard.modules.dashboard_sdk"):  # they would log every upload
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield JobSubmissionClient(address)
    except AuthenticationError:
        raise ConfigError(
            f"--address {address}: the cluster did not accept the token; expected its own in RAY_AUTH_TOKEN"
        ) from None
    except (RuntimeError, ConnectionError, ValueError) as error:
        reason = flat(error, at_most=300)
        if "ray[default]" in reason:
            reason = "jobs need Ray's job client: pip install 'frontrunner[cluster]'"
        raise ConfigError(f"--address {address}: {reason}") from None


def _check_paths(config: RunConfig) -> None:
    """Raises ConfigError for a path that would mean something else on the cluster."""
    sources: Sequence[str] = (
        [config.data.source] if isinstance(config.data.source, str) else config.data.source
    )
    of_text = [*sources, *([config.data.tokenizer] if config.data.tokenizer else [])]
    of_images = config.vision.images.sources if config.vision else ()
    named = [("data", path) for path in of_text if path != "sotu"]
    named += [("vision.images", path) for path in of_images if path != EASY_VQA]
    for section, path in named:
        if not Path(path).is_absolute():
            raise ConfigError(
                f"{section}: {path}: expected an absolute path, as the job reads it on the cluster's head"
            )


def _moment(milliseconds: int | None) -> str:
    return "" if milliseconds is None else f"{datetime.fromtimestamp(milliseconds / 1000):%Y-%m-%d %H:%M:%S}"
