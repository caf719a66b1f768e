"""Files that are written whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path

from operators.errors import RunError


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it is either the old one or the whole new one, also after a crash. Raises RunError."""
    partial = path.parent / f".{path.name}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, ValueError) as error:
        with suppress(OSError):
            partial.unlink()
        raise RunError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
