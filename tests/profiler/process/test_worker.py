"""Measuring in a process of its own: whatever happens to it, the next candidate is measured."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from operators.base.errors import (
    BackendError,
    CrashError,
    DeadlineError,
    DeviceError,
    FrontrunnerError,
    OutOfMemoryError,
)
from profiler.device.lock import exclusive
from profiler.process import worker as worker_module
from profiler.process.worker import ProfilingWorker
from profiler.profile import Profile
from tests.helpers.faulty_operators import Fault, architecture_with
from tests.helpers.processes import alive, gone
from tests.helpers.quick_profile import QUICK, SOUND

pytestmark = pytest.mark.slow

SERVED_AGAIN_S = 30.0  # at most, from the end of a failed measurement to that of the next one

EVERY_FAULT: list[tuple[Fault, type[FrontrunnerError], str]] = [
    ("refused", BackendError, "^operator faulty cannot be built$"),
    ("out_of_memory", OutOfMemoryError, "^batch 1, context 12: "),
    ("hang", DeadlineError, r"^not finished after \d+ s, while building$"),
]

PARENT = """
import sys
from profiler.process.worker import ProfilingWorker
from tests.helpers.faulty_operators import architecture_with
from tests.helpers.quick_profile import QUICK, SOUND
worker = ProfilingWorker("cpu")
worker.profile(SOUND, QUICK, deadline_s=60)
print(worker.pid, flush=True)
if sys.argv[1] == "busy":
    worker.profile(architecture_with("hang"), QUICK, deadline_s=60)
sys.stdin.read()
"""


@pytest.fixture(scope="module", autouse=True)
def _locks_of_these_tests_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("locks")))
        patch.setattr("tempfile.tempdir", None)  # it is found anew, from TMPDIR, here as in the processes
        yield


@pytest.fixture(scope="module")
def worker() -> Iterator[ProfilingWorker]:
    with ProfilingWorker("cpu") as started:
        yield started


def measured(worker: ProfilingWorker, *, deadline_s: float = 60.0) -> Profile:
    return worker.profile(SOUND, QUICK, deadline_s=deadline_s)


def test_the_process_measures_and_is_kept(worker: ProfilingWorker) -> None:
    first = worker.profile(SOUND, QUICK, seed=7, deadline_s=60)
    pid = worker.pid
    assert pid != os.getpid()
    assert (first.device, first.seed, first.contexts) == ("cpu", 7, (12,))
    assert first.metrics()["decode_ms@b1"] > 0
    measured(worker)
    assert worker.pid == pid


@pytest.mark.parametrize(("fault", "error", "said"), EVERY_FAULT)
def test_every_fault_is_an_error_of_its_kind_and_the_next_one_is_measured(
    worker: ProfilingWorker, fault: Fault, error: type[FrontrunnerError], said: str
) -> None:
    measured(worker)
    pid = worker.pid
    with pytest.raises(error, match=said) as caught:
        worker.profile(architecture_with(fault), QUICK, deadline_s=3)
    assert "\n" not in str(caught.value)
    ended = time.monotonic()
    measured(worker)
    assert time.monotonic() - ended < SERVED_AGAIN_S
    assert (worker.pid == pid) == (fault != "hang")
    assert pid is not None
    assert alive(pid) == (fault != "hang")


def test_an_illegal_address_kills_the_process_alone(worker: ProfilingWorker) -> None:
    with pytest.raises(CrashError, match=r"^the profiling process ended by SIGSEGV while building$"):
        worker.profile(architecture_with("illegal_address"), QUICK, deadline_s=30)
    measured(worker)


def test_lack_of_memory_behind_another_error_is_told_but_not_gone_on_from(worker: ProfilingWorker) -> None:
    measured(worker)
    pid = worker.pid
    with pytest.raises(OutOfMemoryError, match=r"too little of it$"):
        worker.profile(architecture_with("out_of_memory_in_capture"), QUICK, deadline_s=30)
    measured(worker)
    assert worker.pid != pid


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("defect_of_others", BackendError, r"^their class: KeyError: 'a defect'$"),
        ("out_of_memory_of_others", OutOfMemoryError, r"too little of it$"),
    ],
)
def test_a_process_in_which_code_of_others_failed_is_replaced(
    worker: ProfilingWorker, fault: Fault, error: type[Exception], said: str
) -> None:
    measured(worker)
    pid = worker.pid
    with pytest.raises(error, match=said):
        worker.profile(architecture_with(fault), QUICK, deadline_s=30)
    measured(worker)
    assert worker.pid != pid


def test_what_a_process_last_said_is_the_reason_of_its_end(
    worker: ProfilingWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        CrashError, match=r"^the profiling process ended with exit status 3 while building: its last / words$"
    ):
        worker.profile(architecture_with("exit"), QUICK, deadline_s=30)
    measured(worker)
    assert capfd.readouterr() == ("", "")


def test_a_defect_is_raised_with_its_traceback(worker: ProfilingWorker) -> None:
    with pytest.raises(RuntimeError, match=r"^KeyError: 'a defect'\n") as caught:
        worker.profile(architecture_with("defect"), QUICK, deadline_s=30)
    assert "_go_wrong_on_cpu" in caught.value.__notes__[0]
    measured(worker)


def test_a_process_that_the_system_killed_ran_out_of_memory(worker: ProfilingWorker) -> None:
    measured(worker)
    assert worker.pid is not None
    threading.Timer(1.0, os.kill, (worker.pid, signal.SIGKILL)).start()
    with pytest.raises(
        OutOfMemoryError, match=r"was killed while building, as the system does when memory runs out$"
    ):
        worker.profile(architecture_with("hang"), QUICK, deadline_s=30)


def test_a_process_that_was_lost_between_two_candidates_is_replaced(worker: ProfilingWorker) -> None:
    measured(worker)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    measured(worker)


def test_waiting_for_the_device_does_not_count(worker: ProfilingWorker) -> None:
    measured(worker)  # so that neither starting nor checking falls into the times below
    began = time.monotonic()
    measured(worker)
    deadline_s = 1 + 4 * (time.monotonic() - began)  # a busy machine needs longer
    held = threading.Event()

    def hold() -> None:
        with exclusive("cpu"):
            held.set()
            time.sleep(deadline_s + 1)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    began = time.monotonic()
    measured(worker, deadline_s=deadline_s)
    assert time.monotonic() - began > deadline_s
    holder.join()


def test_a_killed_process_releases_the_device(worker: ProfilingWorker) -> None:
    with pytest.raises(DeadlineError):
        worker.profile(architecture_with("hang"), QUICK, deadline_s=1)
    with exclusive("cpu", timeout_s=60):  # which another test may hold for a moment
        pass


def test_the_device_is_checked_before_a_new_process_serves(
    worker: ProfilingWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(worker)
    worker.close()
    monkeypatch.setitem(worker_module.SLOWEST_ANCHOR, "cpu", 1e-3)
    with pytest.raises(
        DeviceError,
        match=r"^device cpu is not what it was: "
        r"a step of the anchor model takes .* ms, at first it took .* ms$",
    ):
        measured(worker)
    monkeypatch.undo()
    measured(worker)


def test_an_interrupt_leaves_no_answer_for_the_next_question(worker: ProfilingWorker) -> None:
    measured(worker)
    threading.Timer(0.5, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        worker.profile(architecture_with("hang"), QUICK, deadline_s=30)
    assert time.monotonic() - began < 10
    measured(worker)


@pytest.mark.parametrize("device", ["cuda:99", "tpu"])
def test_a_device_that_cannot_be_opened_is_said_in_one_line(device: str) -> None:
    with ProfilingWorker(device) as worker:
        for start in (worker.start, lambda: measured(worker)):
            with pytest.raises(DeviceError, match=device) as caught:
                start()
            assert "\n" not in str(caught.value)
        assert worker.pid is None


@pytest.mark.parametrize("doing", ["idle", "busy"])
def test_a_parent_killed_leaves_no_process_behind(doing: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, doing], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    try:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        time.sleep(0.5 if doing == "busy" else 0)
    finally:
        parent.kill()
        parent.communicate()
    assert gone(pid)
    with exclusive("cpu", timeout_s=60):  # which another test may hold for a moment
        pass


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_serves_the_next_candidate_within_30_s_of_every_fault() -> None:
    faults = [*EVERY_FAULT, ("illegal_address", CrashError, "illegal memory access")]
    with ProfilingWorker("cuda:0") as worker:
        worker.profile(SOUND, QUICK, deadline_s=300)
        for fault, error, said in faults:
            with pytest.raises(error, match=said):
                worker.profile(architecture_with(fault), QUICK, deadline_s=10 if fault == "hang" else 60)
            ended = time.monotonic()
            worker.profile(SOUND, QUICK, deadline_s=60)
            took = time.monotonic() - ended
            print(f"{fault}: the next candidate was measured {took:.1f} s later")  # noqa: T201 - for -s
            assert took < SERVED_AGAIN_S
