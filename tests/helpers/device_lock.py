"""The lock of this machine's processor, as another process meets it."""

from operators.base.errors import DeviceError
from profiler.device.lock import exclusive


def free() -> bool:
    """Whether nobody holds it."""
    try:
        with exclusive("cpu", timeout_s=0.05):
            return True
    except DeviceError:
        return False
