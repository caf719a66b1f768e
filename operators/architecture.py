"""What a model is: a frozen, validated value with no tensor in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny, ValidationError, model_validator

from operators import registry
from operators.base import shipped
from operators.base.errors import ArchitectureError, in_words, one_line
from operators.base.value import Value, whole
from operators.base.written import WrittenValue, plain_from_file
from operators.rope import Rope
from operators.shape import Shape

Genes = Mapping[str, Mapping[str, Any]]
MAX_DEPTH = 1024  # no useful model is deeper, and a mistyped `repeat` would fill the memory
IN_A_FOLDER = "architecture.yaml"
MODELS: tuple[shipped.Kind, ...] = ("architecture", "vision-language model")

NormKind = Literal["rmsnorm", "layernorm"]
NormPosition = Literal["before", "after"]


class Layer(Value):
    """An operator with its shape, its normalization and a residual connection around both.

    operator: its name.
    shape: its dimensions.
    norm: the kind of normalization.
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
                raise ValueError(
                    f"operator {data['operator']} takes a {expected.__name__}, got a {type(shape).__name__}"
                )
            return data
        try:
            return {**data, "shape": expected.model_validate(shape)}
        except ValidationError as error:
            raise ValueError(f"shape of {data['operator']}: {one_line(error)}") from None

    def resized(self, width_from: int, width_to: int) -> "Layer":
        """The same layer at another width: its genes are kept, its numbers follow the width."""
        shape = type(self.shape).make(width_to, **self.shape.genes(width_from))
        return self.model_copy(update={"shape": shape})


def distinct(layers: Sequence[Layer]) -> dict[int, Layer]:
    """The layers by `id`, each once: an architecture repeats a few values, so that few need be looked at."""
    return dict(zip(map(id, layers), layers, strict=True))


def layers_from_shorthand(text: str, *, width: int, genes: Genes | None = None) -> tuple[Layer, ...]:
    """Layers from symbols or names, as in `d f m f a f`.

    width: of the architecture.
    genes: the genes of each operator's shape; left out, they have their defaults.

    Raises ArchitectureError for an unknown operator, or where an operator has no such shape at this width.
    """
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


def _expanded(layers: Sequence[Any], width: int, where: str) -> list[Any]:
    """Whole layers from a list as people write it, with symbols and repeats.

    An entry in an unknown form stays as it is: the validation refuses it. Raises ValueError.
    """
    expanded: list[Any] = []
    for number, layer in enumerate(layers):
        place = f"{where}.{number}"
        try:
            if isinstance(layer, str):
                expanded += layers_from_shorthand(layer, width=width)
            elif isinstance(layer, Mapping) and "repeat" in layer:
                expanded += _repeated(layer, width, place)
            elif isinstance(layer, Mapping) and "operator" in layer:
                layer = {**layer, "operator": registry.name_of(str(layer["operator"]))}
                if "shape" not in layer:
                    layer["shape"] = _default_layer(layer["operator"], width, {}).shape
                expanded.append(layer)
            else:
                expanded.append(layer)
        except ArchitectureError as error:
            raise ValueError(f"{place}: {error}") from None
    return expanded


def _repeated(entry: Mapping[str, Any], width: int, where: str) -> list[Any]:
    """The layers of an entry `{repeat: N, layers: …}`. Raises ValueError."""
    count, layers = whole(entry["repeat"]), entry.get("layers")
    layers = layers.split() if isinstance(layers, str) else layers
    if set(entry) != {"repeat", "layers"} or not isinstance(layers, list | tuple):
        raise ValueError(
            f"{where}: expected repeat with a list of layers and nothing else, "
            f"got {', '.join(map(str, entry))}"
        )
    if count is None or not 1 <= count <= MAX_DEPTH:
        raise ValueError(
            f"{where}.repeat: expected a whole number from 1 to {MAX_DEPTH}, got {in_words(entry['repeat'])}"
        )
    once = _expanded(layers, width, f"{where}.layers")
    if count * len(once) > MAX_DEPTH:  # checked before the list is built, as repeats may lie within repeats
        raise ValueError(f"{where}: expected at most {MAX_DEPTH} layers, got {count} times {len(once)}")
    return once * count


def find_architecture(path: Path | str) -> Path:
    """The file of a model that a path or a shipped name means.

    A file or folder of this name comes first. A folder means the architecture.yaml in it. A shipped name is
    one word, without a folder before it and without .yaml, .yml or .json after it.

    Raises ArchitectureError where there is neither.
    """
    path = Path(path)
    if (path / IN_A_FOLDER).is_file():
        return path / IN_A_FOLDER
    if path.exists() and not path.is_dir():
        return path
    for kind in MODELS:
        if (file := shipped.find(path, kind)) is not None:
            return file
    if path.is_dir():
        published = (
            "; `frontrunner import` makes one of a Hugging Face folder"
            if (path / "config.json").is_file()
            else ""
        )
        raise ArchitectureError(f"{path}: cannot be read: a folder without {IN_A_FOLDER}{published}")
    if path.suffix in (".yaml", ".yml", ".json") or len(path.parts) != 1:
        raise ArchitectureError(f"{path}: cannot be read: No such file or directory{shipped.hint(path)}")
    known = ", ".join(name for kind in MODELS for name in shipped.names(kind))
    raise ArchitectureError(
        f"{path}: neither a file nor a shipped architecture: expected a YAML or JSON file, a folder with "
        f"{IN_A_FOLDER}, a candidate as RUN:ID, or one of {known}"
    )


class Architecture(WrittenValue):
    """What a language model is: width, vocabulary, layers and what surrounds them.

    name: for people; it changes nothing.
    width: of the residual stream.
    vocabulary: token ids are below it.
    layers: in order. They may be given as the shorthand `d f m f a f`, or as a list whose entries are
        symbols, whole layers, or `repeat: N` with such `layers`. The value always holds whole layers.
    tied_embeddings: whether the head is the embedding.
    normalized_head: whether logits are divided by the norms of the head's rows, so that a token's logit does
        not depend on the length of its vector. `weight_normalization` of a training needs it.
    meta_tokens: learned vectors that come before every sequence.
    rope: rotary positions of attention; None for none.
    norm_eps: added to the mean square in normalizations.
    """

    MAIN_KEYS: ClassVar[str] = "width, vocabulary and layers"

    name: str = ""
    width: Annotated[int, Field(ge=8, le=65_536)]
    vocabulary: Annotated[int, Field(ge=2, le=4_000_000)]
    layers: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=MAX_DEPTH)]
    tied_embeddings: bool = True
    normalized_head: bool = False
    meta_tokens: Annotated[int, Field(ge=0, le=65_536)] = 0
    rope: Rope | None = Rope()
    norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-5

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        layers, width = data.get("layers"), whole(data.get("width"))
        if isinstance(layers, str):
            layers = layers.split()
        if width is None or not 8 <= width <= 65_536:
            raise ValueError(
                f"width: expected a whole number from 8 to 65536, got {in_words(data.get('width'))}"
            )
        if not isinstance(layers, list | tuple):
            return data
        return {**data, "layers": tuple(_expanded(layers, width, "layers"))}

    @classmethod
    def from_shorthand(
        cls, text: str, *, width: int, vocabulary: int, genes: Genes | None = None, **rest: Any
    ) -> Self:
        """An architecture from a shorthand such as `d f m f a f`.

        genes: the genes of each operator's shape; left out, they have their defaults.
        rest: other fields of the architecture.

        Raises ArchitectureError.
        """
        layers = layers_from_shorthand(text, width=width, genes=genes)
        return cls.parse({"width": width, "vocabulary": vocabulary, "layers": layers, **rest})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Reads a YAML or JSON file, a folder's architecture.yaml, or a shipped architecture.

        path: of the file or folder, or a shipped name such as `llama-3.2-1b`.

        Raises ArchitectureError.
        """
        path = find_architecture(path)
        return cls.from_plain(plain_from_file(path), where=str(path))

    @classmethod
    def from_plain(cls, data: Any, *, where: str) -> Self:
        if isinstance(data, dict) and "tower" in data:
            raise ArchitectureError(
                f"{where}: a vision-language model, expected a language model; it has one under `language`"
            )
        return super().from_plain(data, where=where)

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
        return self.model_copy(
            update={
                "width": width,
                "layers": tuple(layer.resized(self.width, width) for layer in self.layers),
            }
        )
