"""Getting into a Ray cluster, and whether it has what a run asks for."""

import os
import signal
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from operators.base.errors import ConfigError, flat
from search.cluster.own_code import write_own_code

OBJECT_STORE_BYTES = 512 * 2**20
# A socket's path has at most 107 bytes. Ray adds /ray/session_<date>_<time>_<microseconds>_<process>/sockets/plasma_store to the folder's.
LONGEST_FOLDER = 107 - len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.9")
TYPE = "accelerator_type:"  # begins the name of a resource by which Ray tells what kind of accelerator a node has


def connect(address: str | None, *, workers: int) -> None:
    """Joins the cluster at `address`, or starts one on this machine alone. Raises ConfigError where none answers.

    The nodes of a cluster of several machines get the code of these packages by themselves, unless a submitted job brought it already.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault(
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"
    )  # off: a local cluster listens on loopback alone
    os.environ.setdefault(
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
    )  # who asks for no GPU of its own sees every one, as cuda:N needs
    use_token(address)
    if address is not None:
        _check_answers(address)
    import ray  # reads all this when it is imported

    ray._private.worker.print_to_stdstream = lambda data, ignore_prefix: (
        None
    )  # pages of raylets' logs where one line is ours to say
    on_terminate = signal.getsignal(signal.SIGTERM)
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if address is None:
        _start_here(ray, workers, common)
    else:
        try:
            ray.init(address=address, **common)
            if spans_machines(ray.nodes()) and "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
                ray.shutdown()
                with TemporaryDirectory() as code:
                    write_own_code(Path(code))
                    ray.init(address=address, runtime_env={"working_dir": code}, **common)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            otherwise = (
                "or none that takes this token (RAY_AUTH_TOKEN; RAY_AUTH_MODE=disabled where it has none)"
            )
            said = flat(error, at_most=200)
            raise ConfigError(
                f"--address {address}: no Ray cluster answers there, {otherwise}: {said}"
            ) from None
    signal.signal(
        signal.SIGTERM, on_terminate
    )  # Ray puts its own in place, which ends the process without a word of ours


def _start_here(ray: Any, workers: int, common: dict[str, Any]) -> None:
    """Starts Ray on this machine alone. Raises ConfigError, one line, whatever the reason that it does not start."""
    folder = _short_folder()
    try:
        ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(folder / "ray"),
            **common,
        )
    except Exception as error:  # Ray raises whatever its many parts do
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"Ray cannot be started on this machine, with its files in {folder}: {flat(reason[-1], at_most=300)}"
        ) from None


def _short_folder() -> Path:
    """A folder for Ray's files whose path leaves room for its sockets: that of temporary files or, if it is too long, another one.

    Raises ConfigError where there is none.
    """
    asked = [os.environ[name] for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)]
    for place in (*asked, tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108  no file's name is guessable
        folder = Path(place).absolute()
        if (
            len(os.fsencode(folder)) <= LONGEST_FOLDER
            and folder.is_dir()
            and os.access(folder, os.W_OK | os.X_OK)
        ):
            return folder
    raise ConfigError(
        f"TMPDIR {tempfile.gettempdir()}: too long for the sockets of Ray, expected a folder of at most {LONGEST_FOLDER} bytes "
        "that can be written"
    )


def require_room(address: str | None, *, device: str, kinds: Sequence[str]) -> None:
    """Raises ConfigError where no worker would fit into the cluster, before anything is begun. A CPU of this machine always has room."""
    if address is None and device != "cuda" and not kinds:
        return
    connect(address, workers=1)
    import ray

    try:
        room(living(ray.nodes()), device=device, kinds=kinds)
    finally:
        ray.shutdown()


def living(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, float]]:
    """The resources of each node that is alive, from what `ray.nodes` says."""
    return [node["Resources"] for node in nodes if node["Alive"]]


def types_of(resources: Mapping[str, float]) -> frozenset[str]:
    """The types of accelerator among the resources of a node."""
    return frozenset(
        name.removeprefix(TYPE) for name, count in resources.items() if name.startswith(TYPE) and count > 0
    )


def use_token(address: str | None) -> None:
    """Ray asks for its token by default, but tells a client of it too late."""
    kept = Path.home() / ".ray" / "auth_token"
    if (
        address is None
        or os.environ.get("RAY_AUTH_TOKEN")
        or os.environ.get("RAY_AUTH_TOKEN_PATH")
        or kept.is_file()
    ):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def demands(device: str, kind: str) -> dict[str, Any]:
    """What Ray reserves for one worker: a GPU of its own on device `cuda`; `cuda:N` is one that all workers of a machine share.

    kind: of accelerator that its node must have; any where it is empty.
    """
    named = {"resources": {f"{TYPE}{kind}": 0.001}} if kind else {}
    return {"num_cpus": 1, "num_gpus": 1 if device == "cuda" else 0, **named}


def room(nodes: Sequence[Mapping[str, float]], *, device: str, kinds: Sequence[str]) -> int:
    """How many workers fit into a cluster, given the resources of its living nodes.

    Raises ConfigError where none does, or none on nodes of one of the kinds.
    """
    for kind in kinds:
        able = [node for node in nodes if kind in types_of(node)]
        if not able:
            known = sorted({found for node in nodes for found in types_of(node)})
            raise ConfigError(
                f"device_kind {kind}: no node of the cluster has it, expected one of: {', '.join(known) or 'none'}"
            )
        _require_slot(able, device, f"whose nodes with {kind} have")
    return _require_slot(nodes, device, "which has")


def _require_slot(nodes: Sequence[Mapping[str, float]], device: str, whose: str) -> int:
    """How many workers fit into these nodes. Raises ConfigError where none does."""
    fitting = sum(
        int(min(node.get(name, 0) for name in (("CPU", "GPU") if device == "cuda" else ("CPU",))))
        for node in nodes
    )
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
    """Raises ConfigError where nobody listens at HOST:PORT: Ray itself takes minutes to say so. Other forms are Ray's to check."""
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        return
    if not answers(address, timeout_s=5):
        raise ConfigError(f"--address {address}: no Ray cluster answers there")


def answers(address: str, *, timeout_s: float) -> bool:
    """Whether somebody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
    except (OSError, OverflowError):
        return False
    return True
