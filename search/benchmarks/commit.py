"""Which code is measured."""

import subprocess
from pathlib import Path


def commit() -> str:
    """The commit that is measured, with `+` behind it if files differ from it; `unknown` outside a checkout."""
    try:
        where = Path(__file__).parent
        found = [
            subprocess.run(
                ["git", *words], cwd=where, capture_output=True, text=True, check=True
            ).stdout.strip()  # noqa: S603, S607
            for words in (
                ("rev-parse", "--short=12", "HEAD"),
                ("status", "--porcelain", "--", ".", ":!results"),
            )
        ]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found[0] + ("+" if found[1] else "")
