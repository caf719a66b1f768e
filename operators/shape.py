"""The dimensions of an operator, as a frozen value."""

from typing import Any, Self

from operators.base.value import Value


class Shape(Value):
    """The dimensions of one operator, in absolute numbers; subclasses have the fields.

    A search mutates genes, not these numbers. Genes are relative to the width (a ratio, say) or independent
    of it (a head dimension), so that a set of genes makes sense at every width. `make` and `genes` translate.
    """

    @classmethod
    def make(cls, width: int, *args: Any, **genes: Any) -> Self:
        """The shape of these genes at `width`; genes left out have their defaults.

        Raises ValueError where there is no such shape.
        """
        raise NotImplementedError

    def genes(self, width: int) -> dict[str, Any]:
        """The genes for which `make(width, **genes)` gives this shape back."""
        raise NotImplementedError
