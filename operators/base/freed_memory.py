"""Memory that this process frees: kept for its next use, or given back to the system.

The C library of Linux gives large pieces back as soon as they are free, or keeps them, depending on what
else lies in memory. Where it gives them back, the next use pays for new pages: 500 of them for each picture
of 640 x 480 pixels that is prepared for a tower of 256, and 2,000 for a tower of 512. So what is measured
keeps its memory, as servers do with other allocators.
"""

import ctypes
from collections.abc import Callable
from functools import cache

# Parameters of mallopt(3), see malloc.h. Setting either ends the C library's own adjustment of both.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Free memory at the end of the heap that is kept: more than the temporaries of a step of a small training.
_KEPT_BYTES = 256 << 20
# Larger pieces always go back. It is the most that the C library allows.
_LARGEST_BYTES = 32 << 20


def keep_freed_memory() -> bool:
    """Keeps what is freed from now on for the next use. Returns whether the C library can be told so."""
    return all(
        _call("mallopt", parameter, size)
        for parameter, size in ((_MMAP_THRESHOLD, _LARGEST_BYTES), (_TRIM_THRESHOLD, _KEPT_BYTES))
    )


def give_back_freed_memory() -> None:
    """Gives what was kept back to the system, so that others can have it."""
    _call("malloc_trim", 0)


def _call(name: str, *numbers: int) -> bool:
    """Calls a function of the C library; False where it has none of that name, or refuses."""
    function = _functions().get(name)
    return function is not None and bool(function(*numbers))


@cache
def _functions() -> dict[str, Callable[..., int]]:
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # TypeError on Windows, which has no library of the program itself
        return {}
    found = {name: getattr(library, name, None) for name in ("mallopt", "malloc_trim")}
    return {name: function for name, function in found.items() if function is not None}
