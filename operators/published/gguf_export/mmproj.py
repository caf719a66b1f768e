"""A tower with its projector as the GGUF file that llama.cpp reads beside a language model's: mmproj.

Each kind is a projector type of llama.cpp, with the tower that it puts before it (tools/mtmd/clip.cpp).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from operators.base.errors import ArchitectureError
from operators.published.gguf_export.outline import Outline, Stored, Value
from operators.vision.model import parameter_shapes
from operators.vision.vision_language import CHANNELS, VisionLanguage

FAMILY = "clip"  # general.architecture of every mmproj file
PREFIX = "mmproj-"  # by which programs find the file of a tower beside that of its language model
PLACEHOLDER = "frontrunner.image_token"  # our own key: llama.cpp needs no placeholder
LARGEST = 8192  # pixels of a side, in llama.cpp
MIDDLE = [0.5, 0.5, 0.5]  # llama.cpp subtracts it from pixels of 0 to 1 and divides by it: -1 to 1
# lfm2 makes images smaller or larger until they have so many tokens, unless it is told otherwise.
LFM2_TOKENS = (64, 256)
QWEN35 = "qwen35"  # the only decoder here whose rotation llama.cpp counts otherwise within an image

# Our part of a block -> the name of its tensors.
BLOCK = {
    "attention_norm": "ln1",
    "attention.q_proj": "attn_q",
    "attention.k_proj": "attn_k",
    "attention.v_proj": "attn_v",
    "attention.o_proj": "attn_out",
    "attention.q_norm": "attn_q_norm",
    "attention.k_norm": "attn_k_norm",
    "feedforward_norm": "ln2",
    "feedforward.gate_proj": "ffn_gate",
    "feedforward.up_proj": "ffn_up",
    "feedforward.down_proj": "ffn_down",
}
# llama.cpp takes the two matrices of a feed-forward network of idefics3 for each other where they are square.
_SQUARE, _OTHER = "equal to tower.width", "another"
_LINE = "Ċ"  # "\n" as byte-level BPE names it
_LAYERNORM, _RMSNORM = ("layernorm before",), ("rmsnorm before",)


@dataclass(frozen=True)
class Kind:
    """A kind of tower with projector, as llama.cpp knows it.

    name: of its projector type.
    wants: genes of ours -> the values that it holds; it holds any value of others.
    matrices: the tensors of the projector's matrices.
    biased: whether each of them has a bias.
    final_norm: the tensors of the normalization behind the last block.
    scaled: the tensor of an RMS normalization before that one. It has ones here, and the LayerNorm behind it
        undoes what it does.
    sizes: keys of the file on how large images are -> the power of the tower's image_size that they have.
    marks: what llama.cpp puts around an image, as tokens are named.
    needed: whether it cannot read an image without a token for each mark.
    remark: for the user.
    """

    name: str
    wants: Mapping[str, tuple[Any, ...]]
    matrices: tuple[str, ...]
    biased: bool = True
    final_norm: str = "v.post_ln"
    scaled: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    needed: bool = False
    remark: str = ""


_SIGLIP: Mapping[str, tuple[Any, ...]] = {
    "tower.feedforward": ("gelu", "swiglu"),
    "tower.norms": _LAYERNORM,
    "tower.final_norm": ("layernorm",),
    "tower.qk_norm": ("none",),
    "tower.rope_theta": (None,),
}
_TWO = {"projector.matrices": (2,)}
_PIXELS = {"vision.image_min_pixels": 2, "vision.image_max_pixels": 2}
KINDS = (
    Kind(
        "phi4",
        {**_SIGLIP, **_TWO, "projector.pixel_shuffle": (1,), "projector.norm": (False,)},
        ("mm.0", "mm.2"),
        sizes=_PIXELS,
    ),
    Kind(
        "lfm2",
        {**_SIGLIP, **_TWO, "projector.pixel_shuffle": (2, 4)},
        ("mm.1", "mm.2"),
        marks=("<|image_start|>", "<|image_end|>"),
    ),
    Kind(
        "idefics3",
        {
            **_SIGLIP,
            "tower.position_grid": (None,),
            "tower.hidden": (_OTHER,),
            "projector.pixel_shuffle": (2, 4),
            "projector.matrices": (1,),
            "projector.norm": (False,),
            "projector.bias": (False,),
        },
        ("mm.model.fc",),
        biased=False,
        sizes={"vision.preproc_image_size": 1},
        marks=("<fake_token_around_image>", "<row_1_col_1>", 2 * _LINE, "<global-img>"),
        needed=True,
        remark="llama.cpp reads an image twice: as a tile and as a whole",
    ),
    Kind(
        "dots_ocr",
        {
            **_TWO,
            "tower.feedforward": ("gelu", "swiglu"),
            "tower.norms": _RMSNORM,
            "tower.final_norm": ("layernorm",),
            "tower.position_bias": (False,),
            "tower.rope_theta": (10_000.0,),
            "tower.norm_eps": (1e-6,),  # llama.cpp has that of the final norm as a fixed number
            "projector.pixel_shuffle": (2, 4),
            "projector.norm": (False,),
        },
        ("mm.0", "mm.2"),
        final_norm="mm.input_norm",
        scaled="mm.post_norm.weight",
        sizes=_PIXELS,
        marks=("<|img|>", "<|endofimg|>"),
    ),
)


def eyes_outline(value: VisionLanguage) -> tuple[Kind, Outline]:
    """The file of the first kind that holds tower and projector.

    Raises ArchitectureError, one line that names every gene that the nearest kind does not hold.
    """
    size = value.tower.image_size
    if size > LARGEST:
        raise ArchitectureError(f"tower.image_size: expected at most {LARGEST} in llama.cpp, got {size}")
    genes = _genes(value)
    kind = min(KINDS, key=lambda kind: _distance(kind, genes))
    if lacks := _lacks(kind, genes):
        raise ArchitectureError(
            f"no mmproj file of llama.cpp holds tower and projector: the nearest, {kind.name}, has no "
            + "; no ".join(lacks)
        )
    return kind, Outline(FAMILY, _keys(kind, value), tuple(_tensors(kind, value)), _remarks(kind, value))


def readable(marks: Sequence[str]) -> str:
    """Marks as a text has them."""
    return ", ".join(mark.replace(_LINE, "\\n") for mark in marks)


def require_same_positions(language: Outline, value: VisionLanguage) -> None:
    """Raises ArchitectureError for a decoder that would count the tokens of an image otherwise than ours."""
    attends = any(layer.operator == "attention" for layer in value.language.layers)
    if language.family == QWEN35 and attends:
        raise ArchitectureError(
            f"language: llama.cpp runs it as {QWEN35}, in which attention rotates the tokens of an image by "
            "their row and column, expected by their place in the text"
        )


def _genes(value: VisionLanguage) -> dict[str, Any]:
    tower, projector = value.tower, value.projector
    norms = dict.fromkeys(f"{norm.norm} {norm.norm_position}" for norm in tower.norms)
    return {
        "tower.feedforward": tower.feedforward,
        "tower.hidden": _SQUARE if tower.hidden == tower.width else _OTHER,
        "tower.qk_norm": tower.qk_norm,
        "tower.norms": " and ".join(norms),
        "tower.final_norm": tower.final_norm,
        "tower.position_bias": tower.position_bias,
        "tower.rope_theta": tower.rope_theta,
        "tower.position_grid": tower.position_grid,
        "tower.norm_eps": tower.norm_eps,
        "projector.pixel_shuffle": projector.pixel_shuffle,
        "projector.matrices": 1 + len(projector.hidden),
        "projector.norm": projector.norm,
        "projector.bias": projector.bias,
    }


def _lacks(kind: Kind, genes: Mapping[str, Any]) -> list[str]:
    """What a kind does not hold, each with the gene and its value."""
    return [f"{gene} {genes[gene]}" for gene, values in kind.wants.items() if genes[gene] not in values]


def _distance(kind: Kind, genes: Mapping[str, Any]) -> tuple[bool, int]:
    """How far a kind is from holding these genes. Another number of matrices is a larger change than any."""
    matrices = "projector.matrices"
    return genes[matrices] not in kind.wants[matrices], len(_lacks(kind, genes))


def _keys(kind: Kind, value: VisionLanguage) -> dict[str, Value]:
    tower, projector = value.tower, value.projector
    return {
        "has_vision_encoder": True,
        "projector_type": kind.name,
        "use_gelu": tower.feedforward == "gelu",
        "use_silu": tower.feedforward == "swiglu",
        "vision.image_size": tower.image_size,
        "vision.patch_size": tower.patch_size,
        "vision.embedding_length": tower.width,
        "vision.feed_forward_length": tower.hidden,
        "vision.block_count": tower.depth,
        "vision.attention.head_count": tower.heads,
        "vision.attention.layer_norm_epsilon": tower.norm_eps,
        "vision.projection_dim": value.language.width,
        "vision.projector.scale_factor": projector.pixel_shuffle,
        "vision.image_mean": MIDDLE,
        "vision.image_std": MIDDLE,
        **{key: tower.image_size**power for key, power in kind.sizes.items()},
    }


def _tensors(kind: Kind, value: VisionLanguage) -> list[Stored]:
    """Matrices of blocks and projector take the file's type. All else is float32, as llama.cpp adds it."""
    tower = value.tower
    names = {"tower.patch_embedding": "v.patch_embd", "tower.norm": kind.final_norm}
    for block in range(tower.depth):
        names |= {f"tower.blocks.{block}.{ours}": f"v.blk.{block}.{name}" for ours, name in BLOCK.items()}
    names |= {"projector.norm": "mm.input_norm"}
    names |= {f"projector.matrices.{number}": name for number, name in enumerate(kind.matrices)}
    tensors = []
    for ours, shape in parameter_shapes(value).items():
        part, _, what = ours.rpartition(".")
        if part in names and part != "tower.patch_embedding":
            name = f"{names[part]}.{what}"
            tensors.append(Stored(name, tuple(shape), (ours,), precise=len(shape) == 1))
    patches = (tower.width, CHANNELS, tower.patch_size, tower.patch_size)

    def as_kernel(weight: Tensor) -> Tensor:
        return weight.reshape(patches)

    tensors += [
        Stored("v.patch_embd.weight", patches, ("tower.patch_embedding.weight",), as_kernel, precise=True),
        Stored("v.patch_embd.bias", (tower.width,), ("tower.patch_embedding.bias",), precise=True),
    ]
    if "tower.position_bias" not in kind.wants:  # where it is, the kind has no positions
        tensors.append(_positions(value))
    if kind.biased and not value.projector.bias:
        widths = (*value.projector.hidden, value.language.width)
        tensors += [
            Stored(f"{name}.bias", (width,), precise=True)
            for name, width in zip(kind.matrices, widths, strict=True)
        ]
    if kind.scaled:
        tensors.append(Stored(kind.scaled, (tower.width,), fill=1.0, precise=True))
    return tensors


def _positions(value: VisionLanguage) -> Stored:
    """The learned vectors row by row. llama.cpp reads them in any case: without them they are zeros."""
    tower = value.tower
    side = tower.positions or tower.grid

    def row_by_row(position: Tensor) -> Tensor:
        return position.flatten(0, 1)

    parts = ("tower.position",) if tower.position_bias else ()
    return Stored("v.position_embd.weight", (side**2, tower.width), parts, row_by_row, precise=True)


def _remarks(kind: Kind, value: VisionLanguage) -> tuple[str, ...]:
    size, tokens = value.tower.image_size, value.image_tokens
    lines = [
        f"images: llama.cpp reads squares of {size}×{size} pixels as they are and resizes others in its own "
        "way: give it such squares"
    ]
    least, most = LFM2_TOKENS
    if not kind.sizes and not least <= tokens <= most:
        lines.append(f"start llama.cpp with --image-min-tokens {tokens} --image-max-tokens {tokens}")
    return (*lines, *([kind.remark] if kind.remark else []))
