"""Values that many candidates share, each kept once."""

from collections.abc import Hashable
from typing import Any


class Shared:
    """A list in which every value stands once; others hold its place in the list."""

    def __init__(self) -> None:
        self._places: dict[Hashable, int] = {}
        self.values: list[Any] = []

    def place(self, value: Any, *, key: Hashable = None) -> int:
        """Returns where a value stands in `values`, and puts it there if it is new.

        key: what tells the value from others; None for the value itself.
        """
        key = value if key is None else key
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = len(self.values)
            self.values.append(value)
        return place
