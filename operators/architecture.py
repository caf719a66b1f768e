"""What a model is: a frozen, validated value with no tensor in it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, SerializeAsAny, ValidationError, model_validator

from operators import registry
from operators.errors import ArchitectureError, one_line
from operators.operator import Shape
from operators.value import Value

Genes = Mapping[str, Mapping[str, Any]]


class Rope(Value):
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864)."""

    theta: float = Field(default=10_000.0, gt=0)


NormKind = Literal["rmsnorm", "layernorm"]
NormPosition = Literal["before", "after"]


class Layer(Value):
    """An operator with its shape, its normalization and a residual connection around both.

    norm_position: `before` is x + operator(norm(x)); `after` is x + norm(operator(x)).
    """

    operator: str
    shape: SerializeAsAny[Shape]
    norm: NormKind = "rmsnorm"
    norm_position: NormPosition = "before"

    @model_validator(mode="before")
    @classmethod
    def _shape_of_its_operator(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "operator" not in data or "shape" not in data:
            return data
        expected = registry.get(str(data["operator"])).shape
        shape = data["shape"]
        if isinstance(shape, Shape):
            if not isinstance(shape, expected):
                raise ValueError(f"operator {data['operator']} takes a {expected.__name__}, got a {type(shape).__name__}")
            return data
        try:
            return {**data, "shape": expected.model_validate(shape)}
        except ValidationError as error:
            raise ValueError(f"shape of {data['operator']}: {one_line(error)}") from None

    def resized(self, width_from: int, width_to: int) -> "Layer":
        """The same layer at another width: its genes are kept, its numbers follow the width."""
        shape = type(self.shape).make(width_to, **self.shape.genes(width_from))
        return self.model_copy(update={"shape": shape})


def layers_from_shorthand(text: str, *, width: int, genes: Genes | None = None) -> tuple[Layer, ...]:
    """Layers from symbols or names, as in `d f m f a f`, with default shapes at `width` or those that `genes` give per operator."""
    names = [registry.name_of(token) for token in text.split()]
    if not names:
        raise ArchitectureError("layers: expected at least one operator, as in 'd f m f a f', got none")
    return tuple(_default_layer(name, width, (genes or {}).get(name, {})) for name in names)


def _default_layer(name: str, width: int, genes: Mapping[str, Any]) -> Layer:
    try:
        return Layer(operator=name, shape=registry.get(name).shape.make(width, **genes))
    except (ValueError, TypeError) as error:
        message = one_line(error) if isinstance(error, ValidationError) else str(error)
        raise ArchitectureError(f"{name} at width {width}: {message}") from None


class Architecture(Value):
    """A language model: width, vocabulary, layers and what surrounds them.

    `layers` may be given as the shorthand `d f m f a f`, or as a list whose entries are symbols or whole layers;
    a value that was read always holds whole layers.
    """

    name: str = ""
    width: Annotated[int, Field(ge=8, le=65_536)]
    vocabulary: Annotated[int, Field(ge=2, le=4_000_000)]
    layers: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=1024)]
    tied_embeddings: bool = True
    meta_tokens: Annotated[int, Field(ge=0, le=65_536)] = 0
    rope: Rope | None = Rope()
    norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-5

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        layers, width = data.get("layers"), data.get("width")
        if isinstance(layers, str):
            layers = layers.split()
        if not isinstance(width, int) or not 8 <= width <= 65_536:
            raise ValueError(f"width: expected a whole number from 8 to 65536, got {width!r}")
        if not isinstance(layers, list | tuple):
            return data
        expanded: list[Any] = []
        for number, layer in enumerate(layers):
            try:
                if isinstance(layer, str):
                    expanded += layers_from_shorthand(layer, width=width)
                    continue
                if isinstance(layer, Mapping) and "operator" in layer:
                    layer = {**layer, "operator": registry.name_of(str(layer["operator"]))}
                    if "shape" not in layer:
                        layer["shape"] = _default_layer(layer["operator"], width, {}).shape
            except ArchitectureError as error:
                raise ValueError(f"layers.{number}: {error}") from None
            expanded.append(layer)
        return {**data, "layers": tuple(expanded)}

    @classmethod
    def parse(cls, data: Any, *, where: str = "") -> Self:
        """A validated architecture from plain data. Raises ArchitectureError, one line that begins with `where`."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ArchitectureError(f"{where}: {one_line(error)}" if where else one_line(error)) from None

    @classmethod
    def from_shorthand(cls, text: str, *, width: int, vocabulary: int, genes: Genes | None = None, **rest: Any) -> Self:
        """An architecture from `d f m f a f`; `genes` changes the default shapes per operator, `rest` are further fields."""
        layers = layers_from_shorthand(text, width=width, genes=genes)
        return cls.parse({"width": width, "vocabulary": vocabulary, "layers": layers, **rest})

    @classmethod
    def from_yaml(cls, text: str, *, where: str = "architecture") -> Self:
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ArchitectureError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(data, dict):
            raise ArchitectureError(f"{where}: expected a mapping with width, vocabulary and layers, got {type(data).__name__}")
        return cls.parse(data, where=where)

    @classmethod
    def from_json(cls, text: str, *, where: str = "architecture") -> Self:
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ArchitectureError(f"{where}: not JSON: {error}") from None
        return cls.parse(data, where=where)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Reads a YAML or JSON file."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ArchitectureError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        return cls.from_json(text, where=str(path)) if path.suffix == ".json" else cls.from_yaml(text, where=str(path))

    def to_json(self) -> str:
        return self.model_dump_json()

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)

    def digest(self) -> str:
        """SHA-256 (hex) over canonical JSON without the name: equal for equal models."""
        data = self.model_dump(mode="json", exclude={"name"})
        return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def depth(self) -> int:
        """Number of layers; a mixer and a feed-forward network count as one each."""
        return len(self.layers)

    @property
    def shorthand(self) -> str:
        """The operators' symbols, as in `d f m f a f`."""
        return " ".join(registry.get(layer.operator).symbol for layer in self.layers)

    def resized(self, width: int) -> Self:
        """The same layers at another width."""
        return self.model_copy(update={"width": width, "layers": tuple(layer.resized(self.width, width) for layer in self.layers)})
