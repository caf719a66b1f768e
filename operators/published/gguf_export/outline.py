"""What a GGUF file of an architecture holds, before any weight is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from operators.base.errors import ArchitectureError

# A value of the metadata. A list has one value for each block, or for each colour.
Value = int | float | bool | str | list[int] | list[bool] | list[float]


class Misfit(ArchitectureError):  # noqa: N818 - for another family it is no error
    """An architecture that one kind of GGUF model cannot hold; the message begins with the layer or field.

    layer: how many layers before it the kind can hold.
    """

    def __init__(self, message: str, *, layer: int) -> None:
        super().__init__(message)
        self.layer = layer


def unchanged(values: Tensor) -> Tensor:
    return values


@dataclass(frozen=True)
class Stored:
    """One tensor of the file.

    name: in the file.
    shape: in the file, the slowest dimension first.
    parts: our parameters that it is made of, one under the other along the first dimension.
    change: makes its values of those of the parts (float32).
    fill: its values where it has no parts: one for all, or a vector.
    precise: whether it stays float32 in a file of fewer bits, as llama.cpp needs it for all but matrices.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[str, ...] = ()
    change: Callable[[Tensor], Tensor] = unchanged
    fill: float | tuple[float, ...] = 0.0
    precise: bool = False


@dataclass(frozen=True)
class Outline:
    """The metadata and tensors of a file.

    family: its `general.architecture`.
    keys: its metadata on the computation, without the family's prefix.
    tensors: in the order of the file.
    remarks: lines for the user.
    """

    family: str
    keys: Mapping[str, Value]
    tensors: tuple[Stored, ...]
    remarks: tuple[str, ...] = ()
