"""Names that libraries do not promise, and that this project uses all the same.

A new version may drop one. Most are used on a GPU alone, or are assigned to, which never fails. So the
libraries' sources are looked at, and nothing is imported.
"""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARIES = ("torch", "ray", "optuna", "transformers", "tokenizers", "matplotlib", "sqlalchemy")
# By name: the file of the library and the text that it has as long as the name means the same.
NAMES = {
    "torch._C._cuda_clearCublasWorkspaces": (
        "_dynamo/trace_rules.py",
        '"torch._C._cuda_clearCublasWorkspaces"',
    ),
    "torch._dynamo.config.recompile_limit": ("_dynamo/config.py", "\nrecompile_limit = "),
    "torch._foreach_add_": ("_C/_VariableFunctions.pyi", "\ndef _foreach_add_("),
    "torch._foreach_copy_": ("_C/_VariableFunctions.pyi", "\ndef _foreach_copy_("),
    "torch.autograd.profiler._is_profiler_enabled": (
        "autograd/profiler.py",
        "\n_is_profiler_enabled: bool = False",
    ),
    "torch.cuda._sleep": ("cuda/__init__.py", "\ndef _sleep(cycles"),
    "optuna.storages._rdb.models": (
        "storages/_rdb/models.py",
        '\nclass TrialModel(BaseModel):\n    __tablename__ = "trials"',
    ),
    "ray._private.worker.print_to_stdstream": (
        "_private/worker.py",
        "\ndef print_to_stdstream(data, ignore_prefix",
    ),
}


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an expression that is such a name, else nothing."""
    if isinstance(node, ast.Name):
        return node.id
    inside = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inside}.{node.attr}" if inside else ""


def private_names(tree: ast.AST) -> set[str]:
    """The longest names of LIBRARIES that have a part with an underscore before it."""
    names = {name for node in ast.walk(tree) if (name := dotted(node))}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    names = {
        name
        for name in names
        if name.partition(".")[0] in LIBRARIES
        and any(part.startswith("_") and not part.startswith("__") for part in name.split("."))
    }
    return {name for name in names if not any(other.startswith(f"{name}.") for other in names)}


def test_the_sources_use_these_names_and_no_others() -> None:
    files = [
        file
        for name in ("operators", "profiler", "proxy_train", "search")
        for file in (ROOT / name).rglob("*.py")
    ]
    used = set().union(*(private_names(ast.parse(file.read_text(encoding="utf-8"))) for file in files))
    assert used == NAMES.keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_library_still_has_the_name(name: str) -> None:
    spec = find_spec(name.partition(".")[0])
    assert spec is not None
    assert spec.origin is not None
    file, text = NAMES[name]
    assert text in (Path(spec.origin).parent / file).read_text(encoding="utf-8"), (
        f"{name} is gone: see who uses it"
    )
