"""Triton's driver of a Hopper GPU that is not there: kernels compile for it, and none is launched."""

from triton.backends.compiler import GPUTarget
from triton.runtime import driver


class HopperDriver:
    """What compiling asks a driver for."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def use() -> None:
    """For the rest of this process."""
    driver.set_active(HopperDriver())
