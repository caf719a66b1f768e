"""Which code is measured."""

import subprocess
from pathlib import Path


def commit() -> str:
    """The commit that is measured, with `+` behind it if files differ from it; `unknown` outside a checkout."""
    try:
        where = Path(__file__).parent
        head = _git("rev-parse", "--short=12", "HEAD", where=where)
        changed = _git("status", "--porcelain", "--", ".", ":!results", where=where)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def _git(*words: str, where: Path) -> str:
    command = ["git", *words]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
