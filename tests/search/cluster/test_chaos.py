"""A search on a cluster that loses workers, a node and its own driver."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from search.runs import ledger as ledger_module
from search.runs.folder import RunFolder
from search.runs.frontier import scored
from search.runs.loop import drive
from search.runs.preflight import Prepared
from tests.helpers.local_cluster import NODE, nodes
from tests.helpers.pretended_evaluations import PretendExecutor

DRIVER = """
    import sys
    sys.path.insert(0, {root!r})
    from pathlib import Path
    from operators.base.errors import FrontrunnerError
    from search.cluster import ray_executor as cluster
    from search.runs import ledger as ledger_module
    from search.runs.loop import drive
    from search.runs.preflight import Prepared
    from search.runs.folder import RunFolder
    from search.spaces.free import ArchitectureSpace
    from tests.helpers.pretend_worker import PretendWorker

    folder = RunFolder(Path({folder!r}))
    with folder.driving():
        ledger = ledger_module.open_ledger(folder.ledger)
        prepared = Prepared(ledger.config, folder.path, ArchitectureSpace(ledger.config.space, 300))
        cluster.HEAD_PATIENCE_S = 3.0
        try:
            executor = cluster.RayExecutor(
                workers=3, device="cpu", deadline_s=60, address={address!r}, worker=PretendWorker
            )
            try:
                drive(prepared, folder, ledger, executor)
            finally:
                executor.close()
        except FrontrunnerError as error:
            sys.exit("error: " + str(error))
"""


COUNT = 120  # candidates: enough for all faults to find some under way


@pytest.fixture(scope="module")
def cluster():
    with nodes({}, {}) as found:
        yield found


@pytest.fixture
def doomed():
    """A cluster of two nodes, for a test that kills its head."""
    with nodes({}) as found:
        yield found


class Search:
    """A run whose driver is another process."""

    def __init__(self, folder, address, root, config):
        self.folder = folder
        ledger_module.create(folder.ledger, config, started="now").close()
        self._script = textwrap.dedent(
            DRIVER.format(root=str(root), folder=str(folder.path), address=address)
        )

    def start(self):
        with (self.folder.path / "said").open("ab") as said:
            self.driver = subprocess.Popen([sys.executable, "-c", self._script], stdout=said, stderr=said)

    def said(self):
        return (self.folder.path / "said").read_text()

    def noted(self, name):
        """Candidate and process of each line that the workers have written."""
        path = self.folder.path / name
        return (
            [tuple(map(int, line.split())) for line in path.read_text().splitlines()] if path.exists() else []
        )

    def wait_until_begun(self, count):
        deadline = time.monotonic() + 180  # Ray may take a minute to start where others are busy
        while len(self.noted("begun")) < count and self.driver.poll() is None:
            assert time.monotonic() < deadline, (
                f"only {len(self.noted('begun'))} evaluations began: {self.said()[-2000:]}"
            )
            time.sleep(0.005)

    def one_under_way(self, besides):
        """A candidate that is being evaluated, not one of those, and its process."""
        while self.driver.poll() is None:
            done = {number for number, _ in self.noted("evaluated")} | besides
            begun = [each for each in self.noted("begun") if each[0] not in done]
            if begun and Path(f"/proc/{begun[-1][1]}").exists():  # its node may have died with it
                return begun[-1]
            time.sleep(0.001)
        raise AssertionError(f"the search ended before all of its faults: {self.said()[-2000:]}")


def many(prepared, count):
    """A search whose proposals depend on nothing but their number, so that the order of the answers is of no
    consequence.
    """
    evolution = prepared.config.evolution.model_copy(update={"population": count})
    return Prepared(
        prepared.config.model_copy(update={"candidates": count, "evolution": evolution}),
        prepared.corpus,
        prepared.space,
    )


@pytest.mark.slow
def test_a_cluster_without_the_declared_device_is_refused_before_any_work(
    tmp_path, tiny_config, pytestconfig, cluster
):
    (tmp_path / "run.yaml").write_text(tiny_config.model_copy(update={"device_kind": ("H100",)}).to_yaml())
    command = [sys.executable, "-m", "search.cli.main", "search", "run.yaml", "--address", cluster.address]
    environment = {**os.environ, "PYTHONPATH": str(pytestconfig.rootpath)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "error: device_kind H100: no node of the cluster has it, expected one of: none\n"
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_killed_workers_nodes_and_drivers_lose_and_repeat_nothing(tmp_path, prepared, pytestconfig, cluster):
    wanted = many(prepared, COUNT)
    (tmp_path / "undisturbed").mkdir()
    (tmp_path / "run").mkdir()
    undisturbed = RunFolder(tmp_path / "undisturbed")
    calm = ledger_module.create(undisturbed.ledger, wanted.config, started="now")
    drive(wanted, undisturbed, calm, PretendExecutor(capacity=3))

    search = Search(RunFolder(tmp_path / "run"), cluster.address, pytestconfig.rootpath, wanted.config)
    rng, hit = random.Random(7), set()
    faults = ["worker", "worker", "worker", "node", "driver"]
    rng.shuffle(faults)
    search.start()
    for fault in faults:
        before = len(search.noted("begun"))
        search.wait_until_begun(before + rng.randrange(5, 9))
        time.sleep(rng.uniform(0, 0.1))
        if fault == "worker":  # each candidate's at most once: twice would be taken for the candidate's doing
            number, pid = search.one_under_way(hit)
            hit.add(number)
            os.kill(pid, signal.SIGKILL)
        elif fault == "node":
            cluster.remove_node(
                sorted(cluster.worker_nodes, key=lambda node: node.node_id)[0], allow_graceful=False
            )
            cluster.add_node(**NODE)
        else:
            search.driver.kill()
            search.driver.wait()
            search.start()
    assert search.driver.wait(60) == 0, search.said()[-3000:]

    entries = ledger_module.open_ledger(search.folder.ledger).entries()
    assert [entry.number for entry in entries] == list(range(COUNT))
    assert {entry.evaluation.status for entry in entries} == {"ok"}
    assert sorted(entry.order for entry in entries) == list(range(COUNT))
    assert len(hit) == faults.count("worker")
    objectives = wanted.config.parsed_objectives()
    found, expected = (scored(each, objectives).frontier() for each in (entries, calm.entries()))
    assert scores(found) == scores(expected)


def scores(entries):
    return {
        (entry.architecture.digest(), tuple(sorted(entry.evaluation.metrics.items()))) for entry in entries
    }


@pytest.mark.slow
@pytest.mark.parametrize("workers_too", [False, True])
def test_a_lost_head_ends_the_driver_in_one_line_and_the_run_can_go_on(
    tmp_path, prepared, pytestconfig, doomed, workers_too
):
    search = Search(
        RunFolder(tmp_path), doomed.address, pytestconfig.rootpath, many(prepared, 100_000).config
    )
    search.start()
    search.wait_until_begun(3)
    doomed.head_node.kill_gcs_server(check_alive=False)
    for node in (doomed.head_node, *doomed.worker_nodes) if workers_too else ():
        node.kill_raylet(check_alive=False)
    assert search.driver.wait(30) == 1
    assert search.said().splitlines()[-1].startswith("error: the head of the Ray cluster at 127.0.0.1:")
    assert search.folder.driver() is None
    ended = [entry for entry in ledger_module.open_ledger(search.folder.ledger).entries() if entry.evaluation]
    assert {entry.evaluation.status for entry in ended} == {"ok"}
