"""YAML and JSON as people write them: the one reader and the one writer of both.

A plain scalar means what YAML 1.2's core schema says (https://yaml.org/spec/1.2.2/#103-core-schema): `0100`
is one hundred, `1e6` is a million, `1:30` and `no` are text. There is one rule of our own: single underscores
may group the digits of a decimal number (`1_000_000`). Merge keys (`<<`) are read as in YAML 1.1. This reader
and readers of YAML 1.1 read the same from what is written here.
"""

import json
import re
from collections.abc import Hashable
from typing import Any

import yaml

from operators.base.errors import flat

# Nodes with aliases written out: a few lines of aliases can stand for billions of nodes.
MOST_NODES = 1_000_000

_TAG = "tag:yaml.org,2002:"
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
# The tag, the pattern of its scalars, and the characters that they may begin with (NUL stands for an empty
# one).
_CORE: tuple[tuple[str, str, str], ...] = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", rf"[-+]?{_DIGITS}|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        rf"[-+]?(?:\.[0-9]+|{_DIGITS}(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class _Loader(yaml.SafeLoader):
    """Reads the core schema, and refuses repeated keys, other tags, and aliases that stand for too much."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _size(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _fault(key_node, "expected a key of one word, got a list or mapping")
            key = key_node.value if key_node.tag == f"{_TAG}merge" else self.construct_object(key_node)
            if key in seen:
                raise _fault(key_node, f"key {key_node.value!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_bool(self, node: yaml.ScalarNode) -> bool:
        return _matching(node, "bool").lower() == "true"

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = _matching(node, "int").replace("_", "")
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        text = _matching(node, "float").replace("_", "")
        return float(text.replace(".", "", 1) if text.lower().endswith(("inf", "nan")) else text)

    def refuse(self, node: yaml.Node) -> Any:
        raise _fault(node, f"tag {node.tag.removeprefix(_TAG)!r} is not one of YAML's core schema")


class _Dumper(yaml.SafeDumper):
    """Quotes text that a reader of YAML 1.1 or of 1.2 would take for something else."""


_Loader.yaml_implicit_resolvers, _Loader.yaml_constructors = {}, {}
for _name, _pattern, _first in _CORE:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"{_TAG}{_name}",
            re.compile(rf"^(?:{_pattern})$"),
            list(_first.replace("\0", "")) + [""] * ("\0" in _first),
        )
_Dumper.add_implicit_resolver(f"{_TAG}bool", re.compile(r"^[yYnN]$"), list("yYnN"))
_Loader.add_implicit_resolver(f"{_TAG}merge", re.compile(r"^<<$"), ["<"])
for _name in ("null", "str", "seq", "map", "bool", "int", "float"):
    _Loader.add_constructor(f"{_TAG}{_name}", getattr(_Loader, f"construct_yaml_{_name}"))
_Loader.add_constructor(None, _Loader.refuse)


def parse(text: str) -> Any:
    """Plain data from YAML.

    Raises ValueError with a one-line message.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise ValueError(f"not YAML: {where}{flat(problem, at_most=300)}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"not YAML: {flat(error, at_most=300)}") from None
    except RecursionError:
        raise ValueError("not YAML that can be read: nested too deeply") from None


def parse_json(text: str) -> Any:
    """Plain data from JSON.

    Raises ValueError with a one-line message, also for a key given twice, NaN and Infinity.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except ValueError as error:
        raise ValueError(f"not JSON that can be read: {error}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None


def number(text: str) -> int | float | None:
    """The number that a plain scalar of YAML is, or None: `2e6`, `2_000_000` and `0x10` are numbers."""
    loader = _Loader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))
    if tag not in (f"{_TAG}int", f"{_TAG}float"):
        return None
    value: int | float = loader.construct_object(yaml.ScalarNode(tag, text))
    return value


def dump(data: Any) -> str:
    """YAML of plain data, with keys in their order and lists of scalars on one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120)


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes a node has, with aliases written out.

    Raises ConstructorError for too many nodes, and for a node that holds itself.
    """
    if id(node) not in known:
        # 0 marks a node that is being counted.
        known[id(node)] = 0
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inner = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in inner)
    if known[id(node)] == 0:
        raise _fault(node, "an alias stands for something that holds it")
    if known[id(node)] > MOST_NODES:
        raise _fault(node, f"aliases stand for more than {MOST_NODES:,} values")
    return known[id(node)]


def _matching(node: yaml.ScalarNode, name: str) -> str:
    """The scalar's text, if it looks like one of that tag: `!!int yes` does not."""
    pattern = next(pattern for tag, pattern, _ in _CORE if tag == name)
    if not isinstance(node, yaml.ScalarNode) or not re.fullmatch(pattern, node.value):
        raise _fault(node, f"{node.value!r:.60} is not of the type {name!r}")
    text: str = node.value
    return text


def _fault(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = next((key for key in keys if keys.count(key) > 1), None) if len(set(keys)) < len(keys) else None
    if twice is not None:
        raise ValueError(f"key {twice!r} is given twice")
    return dict(pairs)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
