"""The modules of an exported folder: copies of our own sources, whose imports become relative."""

import ast
import importlib.util
from collections.abc import Sequence
from pathlib import Path

_TEMPLATES = "search.runs.remote_code"
_ENTRIES = ("configuration_frontrunner", "modeling_frontrunner")
_PLAIN, _PARTS, _TABLE = (f"{_TEMPLATES}.{name}" for name in ("plain", "parts", "table"))
# Which template stands for a module that an exported folder does not have.
_INSTEAD = {
    "pydantic": _PLAIN,
    "operators.base.value": _PLAIN,
    "operators.base.errors": _PLAIN,
    "operators.kernels.libraries": _PLAIN,
    "operators": _PARTS,
    "operators.architecture": _PARTS,
}
_HEADER = "# Part of Frontrunner, under the Apache License 2.0. Written by `frontrunner export`.\n"


def code_modules(operators: Sequence[str]) -> dict[str, str]:
    """The text of each file by its name.

    operators: the names of those that the model uses.
    """
    table = "".join(f"from operators.library.{name} import OPERATOR as {name}\n" for name in operators)
    table += f"\nOPERATORS = {{{', '.join(f'{name!r}: {name}' for name in operators)}}}\n"
    texts: dict[str, str] = {}
    waiting = [f"{_TEMPLATES}.{name}" for name in _ENTRIES]
    while waiting:
        module = waiting.pop()
        if _file(module) in texts:
            continue
        source = table if module == _TABLE else _source(module)
        text, needed = _relative(source)
        texts[_file(module)] = _HEADER + text
        waiting += needed
    return texts


def _relative(source: str) -> tuple[str, list[str]]:
    """The source with imports of our modules made relative, and these modules."""
    lines, needed = source.splitlines(keepends=True), []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        module = _INSTEAD.get(node.module, node.module)
        if module.split(".")[0] in ("operators", "search"):
            needed.append(module)
            line = lines[node.lineno - 1]
            stem = _file(module).removesuffix(".py")
            lines[node.lineno - 1] = line.replace(f"from {node.module} import", f"from .{stem} import", 1)
    return "".join(lines), needed


def _file(module: str) -> str:
    name = module.removeprefix(f"{_TEMPLATES}.").removeprefix("operators.")
    return name.replace(".", "_") + ".py"


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{module} has no source that an exported folder could hold")
    return Path(spec.origin).read_text(encoding="utf-8")
