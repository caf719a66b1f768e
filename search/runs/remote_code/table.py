"""The operators that a model may use; an exported folder has a table of those that its model does use."""

from operators import registry
from operators.operator import Operator

OPERATORS: dict[str, Operator] = {name: registry.get(name) for name in registry.library_names()}
