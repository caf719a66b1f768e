"""Starts Ray clusters of several nodes on this machine."""

import os
import subprocess
import sys
from contextlib import contextmanager
from functools import cache

import pytest

from search.cluster.connect import use_token
from tests.helpers import warm_python

# What every node has.
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
# How soon Ray notices that a node is gone: its own settings would keep a test waiting.
SOON = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 300, "health_check_timeout_ms": 1000}


@cache
def _token_made():
    """Makes the token that all clusters of this user ask for, where there is none."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "get-auth-token", "--generate"]
    subprocess.run(command, capture_output=True, check=True)


@contextmanager
def nodes(*others):
    """Starts a cluster on loopback: one node, and another for each of `others`.

    others: what each further node has besides NODE, as keywords.

    The cluster asks for Ray's token, and is quick to notice that a node is gone.
    """
    use_token(None)
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # off: it listens on loopback alone
    _token_made()
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    if warm_python.RAY_WORKERS in os.environ:
        warm_python.use_warm_workers()
    try:
        found = cluster_utils.Cluster(
            initialize_head=True,
            head_node_args={
                **NODE,
                "include_dashboard": False,
                "include_log_monitor": False,
                "no_monitor": True,  # which would start further nodes
                # On a busy machine, workers with Ray's own priority start too late.
                "_system_config": {**SOON, "health_check_failure_threshold": 2, "worker_niceness": 0},
            },
        )
        for other in others:
            found.add_node(**NODE, **other)
    except Exception as error:
        pytest.skip(f"Ray cannot start a cluster of several nodes here: {error}")
    yield found
    found.shutdown()
