"""Where a command finds the architectures that it is given."""

import re
from pathlib import Path

from operators import Architecture
from search.run import candidate_of

_CANDIDATE = re.compile(r"(?P<run>[^/\\:]+):(?P<number>\d+)")


def architecture_of(text: str, results: Path) -> tuple[str, Architecture]:
    """A title and the architecture of a file, a published name, or a candidate of a run in `results`, written RUN:ID.

    Raises ArchitectureError and RunError.
    """
    candidate = _CANDIDATE.fullmatch(text)
    if candidate is not None and not Path(text).exists():
        return text, candidate_of(results, candidate["run"], int(candidate["number"]))[2].architecture
    architecture = Architecture.load(text)
    return architecture.name or Path(text).stem, architecture
