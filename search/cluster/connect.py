"""Connects to a Ray cluster, and checks that it has the devices that a run needs."""

import os
import signal
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from operators.base.errors import ConfigError, flat
from profiler.device.names import computes_on
from search.cluster.own_code import write_own_code
from search.cluster.worker_path import job_config

OBJECT_STORE_BYTES = 512 * 2**20
"""Memory that a local Ray reserves for objects (bytes), far less than the share that it takes by default."""
LONGEST_FOLDER = 107 - len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.9")
"""Most bytes in the path of Ray's folder. Linux allows 107 in a socket's path, and Ray adds this example."""
TYPE = "accelerator_type:"
"""Prefix of the resource that Ray gives a node for its kind of accelerator."""


def connect(address: str | None, *, workers: int) -> None:
    """Joins a Ray cluster, or starts one on this machine. Raises ConfigError if no cluster answers.

    A cluster of several machines gets the code of these packages, unless a submitted job brought it already.

    address: of the cluster's head, as HOST:PORT. None starts a cluster on this machine.
    workers: number of CPUs of a cluster on this machine.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # With this switched off a local cluster listens on the loopback interface only.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Ray then hides no GPU from a worker that reserves none. Workers of device cuda:N need that.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    use_token(address)
    if address is not None:
        _check_answers(address)
    import ray  # only now, as it reads these variables when it is imported

    # Ray would print pages of its daemons' logs where our own message is one line.
    ray._private.worker.print_to_stdstream = lambda data, ignore_prefix: None
    on_terminate = signal.getsignal(signal.SIGTERM)
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if address is None:
        _start_here(ray, workers, common)
    else:
        try:
            ray.init(address=address, job_config=job_config(address), **common)
            if spans_machines(ray.nodes()) and "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
                ray.shutdown()
                with TemporaryDirectory() as code:
                    write_own_code(Path(code))
                    # The code is a folder of its own: Ray then adds none to the path.
                    ray.init(address=address, runtime_env={"working_dir": code}, **common)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            otherwise = (
                "or none that takes this token (RAY_AUTH_TOKEN; RAY_AUTH_MODE=disabled where it has none)"
            )
            reason = flat(error, at_most=200)
            raise ConfigError(
                f"--address {address}: no Ray cluster answers there, {otherwise}: {reason}"
            ) from None
    # Ray installs a handler that ends the process without our message, so ours is put back.
    signal.signal(signal.SIGTERM, on_terminate)


def _start_here(ray: Any, workers: int, common: dict[str, Any]) -> None:
    """Starts Ray on this machine. Raises ConfigError, one line, if it does not start.

    common: arguments of `ray.init` for every kind of cluster.
    """
    folder = _short_folder()
    try:
        ray.init(
            address="local",
            job_config=job_config("local"),
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(folder / "ray"),
            # By default Ray adds 15 to the niceness that workers have from this process: every other process
            # of the machine would go first, and what is measured would wait.
            _system_config={"worker_niceness": 0},
            **common,
        )
    except Exception as error:  # Ray passes on the exceptions of its many parts, of any class
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"Ray cannot be started on this machine, with its files in {folder}: "
            f"{flat(reason[-1], at_most=300)}"
        ) from None


def _short_folder() -> Path:
    """A folder for Ray's files with a path short enough for its sockets. Raises ConfigError if there is none.

    The folder of temporary files comes first.
    """
    asked = [os.environ[name] for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)]
    usual = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - no file's name there is guessable
    for place in (*asked, tempfile.gettempdir(), *usual):
        folder = Path(place).absolute()
        if (
            len(os.fsencode(folder)) <= LONGEST_FOLDER
            and folder.is_dir()
            and os.access(folder, os.W_OK | os.X_OK)
        ):
            return folder
    raise ConfigError(
        f"TMPDIR {tempfile.gettempdir()}: too long for the sockets of Ray, "
        f"expected a folder of at most {LONGEST_FOLDER} bytes that can be written"
    )


def require_room(address: str | None, *, device: str, kinds: Sequence[str], on_one_gpu: int = 1) -> None:
    """Raises ConfigError if no worker would fit into the cluster. A device of this machine always has room.

    address: as for `connect`.
    device: device of the run.
    kinds: kinds of accelerator that the run measures on.
    on_one_gpu: workers that share a GPU.
    """
    if address is None and not kinds:
        return
    connect(address, workers=1)
    import ray

    try:
        room(living(ray.nodes()), device=device, kinds=kinds, on_one_gpu=on_one_gpu)
    finally:
        ray.shutdown()


def living(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, float]]:
    """The resources of each living node. nodes: the result of `ray.nodes`."""
    return [node["Resources"] for node in nodes if node["Alive"]]


def types_of(resources: Mapping[str, float]) -> frozenset[str]:
    """The types of accelerator among the resources of a node."""
    return frozenset(
        name.removeprefix(TYPE) for name, count in resources.items() if name.startswith(TYPE) and count > 0
    )


def use_token(address: str | None) -> None:
    """Turns on Ray's authentication by token for a local cluster, and wherever a token is at hand.

    Ray demands its token by default, but its client learns of that too late.
    """
    kept = Path.home() / ".ray" / "auth_token"
    if (
        address is None
        or os.environ.get("RAY_AUTH_TOKEN")
        or os.environ.get("RAY_AUTH_TOKEN_PATH")
        or kept.is_file()
    ):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def demands(device: str, kind: str, *, on_one_gpu: int = 1) -> dict[str, Any]:
    """The resources that Ray reserves for one worker, as options of `ray.remote`.

    device: `cuda` reserves a GPU for the worker. All workers of a machine share the GPU of `cuda:N`.
    kind: kind of accelerator that the worker's node must have; empty for any.
    on_one_gpu: workers that share a reserved GPU.
    """
    # A node has one unit of this resource, whatever the number of its GPUs: every worker takes a small share.
    named = {"resources": {f"{TYPE}{kind}": 0.001}} if kind else {}
    return {"num_cpus": 1, "num_gpus": 1 / on_one_gpu if computes_on(device) == "cuda" else 0, **named}


def room(
    nodes: Sequence[Mapping[str, float]], *, device: str, kinds: Sequence[str], on_one_gpu: int = 1
) -> int:
    """Number of workers that fit into a cluster. Raises ConfigError if none fits, or none of some kind.

    nodes: resources of the living nodes.
    device, kinds, on_one_gpu: as for `require_room`.
    """
    for kind in kinds:
        able = [node for node in nodes if kind in types_of(node)]
        if not able:
            known = sorted({existing for node in nodes for existing in types_of(node)})
            raise ConfigError(
                f"device_kind {kind}: no node of the cluster has it, "
                f"expected one of: {', '.join(known) or 'none'}"
            )
        _require_slot(able, device, f"whose nodes with {kind} have", on_one_gpu)
    return _require_slot(nodes, device, "which has", on_one_gpu)


def _require_slot(nodes: Sequence[Mapping[str, float]], device: str, whose: str, on_one_gpu: int) -> int:
    """Number of workers that fit into these nodes. Raises ConfigError if none fits.

    whose: the subject and verb of the message's last clause.
    """
    needs = {"CPU": 1.0, **({"GPU": 1 / on_one_gpu} if computes_on(device) == "cuda" else {})}
    fitting = sum(int(min(node.get(name, 0) / share for name, share in needs.items())) for node in nodes)
    if not fitting:
        cpus, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
        raise ConfigError(
            f"device {device}: no worker fits into the cluster, {whose} {cpus:g} CPUs and {gpus:g} GPUs"
        )
    return fitting


def spans_machines(nodes: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the living nodes are on more than one machine."""
    return len({node["NodeManagerAddress"] for node in nodes if node["Alive"]}) > 1


def _check_answers(address: str) -> None:
    """Raises ConfigError if nothing listens at HOST:PORT. Ray itself would need minutes to find this out.

    Ray checks addresses of other forms.
    """
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        return
    if not answers(address, timeout_s=5):
        raise ConfigError(f"--address {address}: no Ray cluster answers there")


def answers(address: str, *, timeout_s: float) -> bool:
    """Whether a process listens at HOST:PORT. timeout_s: seconds to wait for an answer."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
    except (OSError, OverflowError):
        return False
    return True
