"""In which engines a candidate loads, as a ledger keeps it.

To find it out needs torch, which takes longer to import than all that a reader of a run does. The answer
depends on the architecture and on our code. So the ledger has it with a digest of the code that gave it, and
it is found out anew where the code is another.
"""

import hashlib
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pydantic_core import from_json

from operators import registry
from operators.architecture import Architecture
from operators.vision.vision_language import Model


def line(model: Model) -> str:
    """The engines that load it, as `engines.where_it_loads` has them; empty for models that see."""
    if not isinstance(model, Architecture):
        return ""
    from operators.published.engines import where_it_loads  # needs torch

    return where_it_loads(model)


def write(model: Model) -> str:
    """The line with what it depends on, as JSON; null where it also depends on the code of other packages."""
    if isinstance(model, Architecture) and not {layer.operator for layer in model.layers} <= set(
        registry.library_names()
    ):
        return json.dumps(None)
    return json.dumps([_code(), line(model)])


def read(text: str | None) -> str | None:
    """The line of what `write` returned; None where other code gave it, or none."""
    written = from_json(text or "null")
    return written[1] if written and written[0] == _code() else None


@cache
def _code() -> str:
    """A digest of all that a model is made of, and is published by."""
    spec = find_spec("operators")
    folders = map(Path, spec.submodule_search_locations or ()) if spec else ()
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{file.relative_to(folder)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
