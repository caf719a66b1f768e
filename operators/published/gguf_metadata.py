"""Turns the metadata of a GGUF file of the llama family into a config.json of model_type `llama`.

Every key is used, known to be harmless, or refused. A key means what llama.cpp makes of it (`load_hparams`
and the graph of the llama family).
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from operators.base.errors import ArchitectureError

FAMILY = "llama"
FILE_OF_A_MODEL = "model"  # other types of GGUF: adapter, imatrix, mmproj

# Keys, without `llama.`, that become a setting of config.json.
SIZES = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "max_position_embeddings": "context_length",
}
# llama.cpp takes one number, or one for each layer.
BY_LAYER = ("feed_forward_length", "attention.head_count", "attention.head_count_kv")
REALS = ("attention.layer_norm_rms_epsilon", "rope.freq_base")
# Where they are missing, llama.cpp takes head_count for head_count_kv and 10000 for
# freq_base, and needs no context.
REQUIRED = {*SIZES.values()} - {"attention.head_count_kv", "rope.freq_base", "context_length"}
HEAD_LENGTHS = ("attention.key_length", "attention.value_length", "rope.dimension_count")
SCALINGS = ("rope.scaling.factor", "rope.scale_linear")  # the second is the old name

# Keys that change the computation, with the values that do not.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.sliding_window": (0,),
    "attn_logit_softcapping": (0.0,),
    "embedding_scale": (1.0,),
    "expert_count": (0,),
    "expert_group_count": (0,),
    "expert_group_used_count": (0,),
    "expert_shared_count": (0,),
    "expert_used_count": (0,),
    "final_logit_softcapping": (0.0,),
    "logit_scale": (1.0,),
    "pooling_type": (0,),
    "residual_scale": (1.0,),
    "rope.scaling.attn_factor": (1.0,),
    "tensor_data_layout": ("Meta AI original pth",),  # the order of rows in which llama.cpp rotates them
    "use_parallel_residual": (False,),
}
# Keys that llama.cpp does not use here: that epsilon is for LayerNorm alone, the
# original context for yarn alone.
WITHOUT_EFFECT = (
    "attention.layer_norm_epsilon",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
)
# Groups of keys on the origin of a file, on how it was split, or on how text becomes tokens. llama-quantize
# notes its importance matrix under `quantize.`, a well-known publisher under `mradermacher.`.
DESCRIPTIVE = ("GGUF.", "general.", "tokenizer.", "split.", "quantize.", "mradermacher.")


def llama_config(
    value: Callable[[str], Any], keys: Iterable[str], *, vocabulary: int, tied: bool, where: str
) -> dict[str, Any]:
    """The config.json that the metadata means, without what `rope_freqs.weight` adds.

    value: called with a key, returns its number, string, list of such values, or None.
    keys: all keys of the metadata.
    vocabulary: rows of the embedding.
    tied: whether the file has no head of its own.
    where: the file, for messages.

    Raises ArchitectureError, one line that begins with `where`, for a model that is no llama as we have it.
    """

    def refused(key: str, expected: str) -> ArchitectureError:
        return ArchitectureError(f"{where}: {key}: expected {expected}, got {_shown(value(key))}")

    if value("general.type") not in (None, FILE_OF_A_MODEL):
        raise refused("general.type", repr(FILE_OF_A_MODEL))
    if value("general.architecture") != FAMILY:
        raise refused("general.architecture", f"{FAMILY!r} in a GGUF file")
    names = {key.removeprefix(f"{FAMILY}.") for key in keys if key.startswith(f"{FAMILY}.")}
    known = {*SIZES.values(), *HEAD_LENGTHS, *SCALINGS, *NEUTRAL, *WITHOUT_EFFECT}
    known |= {"rope.scaling.type", "attention.scale", "vocab_size"}
    unknown = sorted(f"{FAMILY}.{name}" for name in names - known)
    unknown += [key for key in keys if not key.startswith((f"{FAMILY}.", *DESCRIPTIVE))]
    if unknown:
        raise ArchitectureError(
            f"{where}: {unknown[0]}: expected no such key, as what it does is not known here, "
            f"got {_shown(value(unknown[0]))}"
        )
    for name, neutral in NEUTRAL.items():
        if name in names and value(f"{FAMILY}.{name}") not in neutral:
            raise refused(f"{FAMILY}.{name}", f"{neutral[0]!r} or none")

    config = {key: short(value(f"{FAMILY}.{theirs}")) for key, theirs in SIZES.items()}
    for key, theirs in SIZES.items():
        if theirs in BY_LAYER and isinstance(config[key], list):
            if len(config[key]) != config["num_hidden_layers"] or len(set(config[key])) != 1:
                raise refused(f"{FAMILY}.{theirs}", "one number for all layers")
            config[key] = config[key][0]
        if config[key] is None and theirs in REQUIRED:
            raise ArchitectureError(f"{where}: {FAMILY}.{theirs}: missing")
        kind = float if theirs in REALS else int
        if config[key] is not None and not (type(config[key]) is kind and 0 < config[key] < math.inf):
            raise refused(f"{FAMILY}.{theirs}", f"a positive {'number' if kind is float else 'whole number'}")
    if "vocab_size" in names and value(f"{FAMILY}.vocab_size") != vocabulary:
        raise refused(f"{FAMILY}.vocab_size", f"{vocabulary}, the rows of token_embd.weight")

    head_dim = value(f"{FAMILY}.attention.key_length")
    if head_dim is None:
        head_dim = config["hidden_size"] // config["num_attention_heads"]
    if type(head_dim) is not int or head_dim < 1:
        raise refused(f"{FAMILY}.attention.key_length", "a positive whole number")
    for name in HEAD_LENGTHS:
        if name in names and value(f"{FAMILY}.{name}") != head_dim:
            raise refused(f"{FAMILY}.{name}", f"{head_dim}, the length of a head")
    scale = value(f"{FAMILY}.attention.scale")
    if scale is not None and not (type(scale) is float and abs(scale * math.sqrt(head_dim) - 1) < 1e-6):
        raise refused(f"{FAMILY}.attention.scale", "1 / the square root of the length of a head, or none")
    _require_no_stretch(value, refused)
    return {
        **{key: setting for key, setting in config.items() if setting is not None},
        "head_dim": head_dim,
        "model_type": "llama",
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }


def _require_no_stretch(
    value: Callable[[str], Any], refused: Callable[[str, str], ArchitectureError]
) -> None:
    """Refuses metadata that stretches positions; the stretch of Llama 3 is in `rope_freqs.weight` instead."""
    kind = f"{FAMILY}.rope.scaling.type"
    if value(kind) == "none":
        return
    if value(kind) not in (None, "linear"):
        raise refused(kind, "'none', or 'linear' with a factor of 1")
    for name in SCALINGS:  # for llama.cpp a factor without a type is linear, and 0 is no factor
        if value(f"{FAMILY}.{name}") not in (None, 0.0, 1.0):
            raise refused(f"{FAMILY}.{name}", "1 with linear scaling")


def short(value: Any) -> Any:
    """A float32 of the metadata by its shortest decimal: 1e-05 instead of 9.999999747378752e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _shown(value: Any) -> str:
    return f"{short(value)!r:.80}"
