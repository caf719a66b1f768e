"""What a vision-language model is: a tower, a projector and a language model, as frozen values."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_serializer, model_validator

from operators.architecture import Architecture, NormKind, NormPosition, find_architecture
from operators.base.errors import ArchitectureError, in_words
from operators.base.value import Value, whole
from operators.base.written import WrittenValue, plain_from_file

CHANNELS = 3  # red, green, blue
MAX_BLOCKS = 512  # no useful tower is deeper

FeedForwardKind = Literal["gelu", "swiglu", "relu2"]
QKNorm = Literal["none", "head", "full"]
Resize = Literal["stretch", "pad"]


class BlockNorm(Value):
    """The normalization of one block of a tower, around its attention and around its feed-forward network.

    norm: the kind of normalization.
    norm_position: `before` is x + operator(norm(x)); `after` is x + norm(operator(x)).
    """

    norm: NormKind = "layernorm"
    norm_position: NormPosition = "before"


class VisionTower(Value):
    """A vision transformer: patches of an image, each a vector, through blocks that see all patches.

    image_size: pixels of a side of the largest image that it sees. Its grid is the patches of such an image.
    patch_size: pixels of a side of a patch.
    width: of a patch's vector.
    depth: number of blocks; a block is attention and a feed-forward network.
    heads: of attention; the width divided by them is the head dimension.
    hidden: inner width of the feed-forward network.
    feedforward: its kind; `gelu` is the approximation by tanh, as in SigLIP.
    bias: whether the matrices of blocks have biases. The patch embedding always has one.
    qk_norm: `head` normalizes every head's queries and keys by itself, `full` all heads together (RMS).
    norms: the normalization of each block, from the first on. It may be given as one mapping for all blocks,
        or as a list whose entries may have `repeat: N`. The value always holds one for each block.
    final_norm: the normalization behind the last block.
    position_bias: whether a learned vector for each place of the grid is added to the patches.
    position_grid: side of the grid of these vectors where it is not the image's: they are then resized
        (bilinear, antialiased), as in SigLIP 2; None for the image's own grid.
    rope_theta: base of the frequencies of 2-D rotary positions: half of a head is rotated by the row, half by
        the column. None for no rotation.
    norm_eps: added to the mean square in normalizations.
    """

    image_size: Annotated[int, Field(ge=1, le=16_384)]
    patch_size: Annotated[int, Field(ge=1, le=1024)]
    width: Annotated[int, Field(ge=8, le=65_536)]
    depth: Annotated[int, Field(ge=1, le=MAX_BLOCKS)]
    heads: Annotated[int, Field(ge=1)]
    hidden: Annotated[int, Field(ge=1)]
    feedforward: FeedForwardKind = "gelu"
    bias: bool = True
    qk_norm: QKNorm = "none"
    norms: tuple[BlockNorm, ...] = ()
    final_norm: NormKind = "layernorm"
    position_bias: bool = True
    position_grid: Annotated[int, Field(ge=1, le=4096)] | None = None
    rope_theta: Annotated[float, Field(gt=0)] | None = None
    norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-6

    @model_validator(mode="before")
    @classmethod
    def _expand_norms(cls, data: Any) -> Any:
        depth = whole(data.get("depth")) if isinstance(data, Mapping) else None
        if depth is None or not 1 <= depth <= MAX_BLOCKS:
            return data  # the field's own check says what is wrong
        norms = data.get("norms", {})
        return {
            **data,
            "norms": _expanded(norms, depth) if isinstance(norms, list | tuple) else [norms] * depth,
        }

    @model_validator(mode="before")
    @classmethod
    def _one_way_to_say_it(cls, data: Any) -> Any:
        """The image's own grid is None, so that equal towers have equal digests."""
        if not isinstance(data, Mapping):
            return data
        image, patch, grid = (whole(data.get(key)) for key in ("image_size", "patch_size", "position_grid"))
        own = image and patch and grid and image == patch * grid
        return {**data, "position_grid": None} if own else data

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"expected image_size to be a multiple of patch_size, got image_size {self.image_size} "
                f"and patch_size {self.patch_size}"
            )
        if self.width % self.heads:
            raise ValueError(
                f"expected width to be a multiple of heads, got width {self.width} and heads {self.heads}"
            )
        if self.rope_theta is not None and self.head_dim % 4:
            raise ValueError(
                "rope_theta: expected a head dimension that is a multiple of 4, "
                f"got width {self.width} / heads {self.heads} = {self.head_dim}"
            )
        if self.position_grid is not None and not self.position_bias:
            raise ValueError(
                f"position_grid: expected position_bias to be true with it, got {self.position_grid}"
            )
        return self

    @field_serializer("norms")
    def _in_runs(self, norms: tuple[BlockNorm, ...]) -> list[dict[str, Any]]:
        return [{"repeat": len(list(run)), **norm.model_dump()} for norm, run in groupby(norms)]

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def grid(self) -> int:
        """Patches along a side of the largest image."""
        return self.image_size // self.patch_size

    @property
    def positions(self) -> int:
        """Learned position vectors along a side; 0 for none."""
        return (self.position_grid or self.grid) if self.position_bias else 0


def _expanded(norms: Sequence[Any], depth: int) -> list[Any]:
    """One normalization for each block from a list with repeats. Raises ValueError."""
    expanded: list[Any] = []
    for number, entry in enumerate(norms):
        if not (isinstance(entry, Mapping) and "repeat" in entry):
            expanded.append(entry)
            continue
        count = whole(entry["repeat"])
        if count is None or not 1 <= count <= MAX_BLOCKS:
            raise ValueError(
                f"norms.{number}.repeat: expected a whole number from 1 to {MAX_BLOCKS}, "
                f"got {in_words(entry['repeat'])}"
            )
        expanded += [{key: value for key, value in entry.items() if key != "repeat"}] * count
    if len(expanded) != depth:
        raise ValueError(
            f"norms: expected one for each of {depth} blocks, as depth says, got {len(expanded)}"
        )
    return expanded


class Projector(Value):
    """From patches to the language model's embeddings: pixel shuffle, then one to three matrices.

    pixel_shuffle: patches along a side that are joined into one image token.
    hidden: inner widths: none for one matrix, one for two, two for three. GELU lies between matrices.
    norm: whether the joined patches are normalized (LayerNorm) first.
    bias: whether the matrices have biases.
    """

    pixel_shuffle: Literal[1, 2, 4] = 1
    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=2)] = ()
    norm: bool = False
    bias: bool = True


class VisionLanguage(WrittenValue):
    """A vision-language model: a tower's patches become image tokens, which the language model reads.

    name: for people; it changes nothing.
    tower: from images to patches.
    projector: from patches to image tokens.
    language: the language model, which also decodes.
    image_token: id of the placeholder: in a prompt it stands once for each image token.
    """

    MAIN_KEYS: ClassVar[str] = "tower, projector, language and image_token"

    name: str = ""
    tower: VisionTower
    projector: Projector
    language: Architecture
    image_token: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.tower.grid % self.projector.pixel_shuffle:
            raise ValueError(
                f"projector.pixel_shuffle: expected a divisor of the {self.tower.grid} patches along a side "
                f"(image_size {self.tower.image_size} / patch_size {self.tower.patch_size}), "
                f"got {self.projector.pixel_shuffle}"
            )
        if self.image_token >= self.language.vocabulary:
            raise ValueError(
                f"image_token: expected an id below language.vocabulary, {self.language.vocabulary}, "
                f"got {self.image_token}"
            )
        return self

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Reads a YAML or JSON file, a folder's architecture.yaml, or a shipped model such as `smolvlm-256m`.

        Raises ArchitectureError.
        """
        path = find_architecture(path)
        data = plain_from_file(path)
        if isinstance(data, dict) and "layers" in data:
            raise ArchitectureError(f"{path}: a language model, expected a vision-language model")
        return cls.from_plain(data, where=str(path))

    @property
    def width(self) -> int:
        """Width of the language model."""
        return self.language.width

    @property
    def depth(self) -> int:
        """Layers of the language model."""
        return self.language.depth

    @property
    def shorthand(self) -> str:
        """The tower's size, image tokens, and the operators: `4×64 patch 8 → 16 → a f m f`."""
        tower = self.tower
        sizes = f"{tower.depth}×{tower.width} patch {tower.patch_size}"
        return f"{sizes} → {self.image_tokens} → {self.language.shorthand}"

    @property
    def image_tokens(self) -> int:
        """Tokens of an image of the tower's full size."""
        return (self.tower.grid // self.projector.pixel_shuffle) ** 2

    @property
    def joined_width(self) -> int:
        """Width of the patches that are joined into one image token."""
        return self.tower.width * self.projector.pixel_shuffle**2


Model = Architecture | VisionLanguage


def parse_model(data: Any, *, where: str) -> Model:
    """A model of either kind from plain data. Raises ArchitectureError, one line that begins with `where`."""
    kind = VisionLanguage if isinstance(data, dict) and "tower" in data else Architecture
    return kind.from_plain(data, where=where)


def load_model(path: Path | str) -> Model:
    """Reads a model of either kind; see `VisionLanguage.load`. A vision-language model has the key `tower`.

    Raises ArchitectureError.
    """
    file = find_architecture(path)
    return parse_model(plain_from_file(file), where=str(file))
